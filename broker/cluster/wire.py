"""Frames between brokers: ordinary Kafka frames under a key that ApiVersions does not tell.

    request   size i32 | key i16 20480 | version i16 | correlation i32 | client id string | body
    answer    size i32 | correlation i32 | version i16 | body

The body is msgpack (`messages`): a field that a later version adds has a default, and an older
broker skips it. What an older one must not skip gets a new message or a new version.
"""

from __future__ import annotations

import struct

import msgspec

from protocol.errors import MalformedFrame
from protocol.primitives import read_nullable_string

from .messages import Answer, Request

INTERNAL_API_KEY = 20480
VERSION = 1
CLIENT_ID = b"headwater-broker"

_HEAD = struct.Struct(">hhi")
_ANSWER_HEAD = struct.Struct(">ih")
_SIZE = struct.Struct(">i")
_KEY = struct.Struct(">h")

_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def is_internal(frame: memoryview) -> bool:
    """Whether a request frame (without its size) is one between brokers."""
    return len(frame) >= _KEY.size and _KEY.unpack_from(frame)[0] == INTERNAL_API_KEY


def encode_request(correlation: int, request: Request) -> bytes:
    """The whole frame, size included."""
    body = _encoder.encode(request)
    head = _HEAD.pack(INTERNAL_API_KEY, VERSION, correlation)
    name = _KEY.pack(len(CLIENT_ID)) + CLIENT_ID
    return _SIZE.pack(len(head) + len(name) + len(body)) + head + name + body


def decode_request(frame: memoryview) -> tuple[int, Request]:
    """(correlation, request) of a frame without its size. Raises MalformedFrame."""
    try:
        _, version, correlation = _HEAD.unpack_from(frame)
    except struct.error:
        raise MalformedFrame("a request between brokers is cut short") from None
    if version != VERSION:
        raise MalformedFrame(f"a request between brokers of version {version}, not {VERSION}")
    _, position = read_nullable_string(frame, _HEAD.size, compact=False)
    try:
        return correlation, _requests.decode(frame[position:])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedFrame(f"unreadable request between brokers: {error}") from error


def encode_answer(correlation: int, answer: Answer) -> bytes:
    """The whole frame, size included."""
    body = _encoder.encode(answer)
    return (
        _SIZE.pack(_ANSWER_HEAD.size + len(body)) + _ANSWER_HEAD.pack(correlation, VERSION) + body
    )


def decode_answer(frame: bytes | memoryview) -> tuple[int, Answer]:
    """(correlation, answer) of a frame without its size. Raises MalformedFrame."""
    try:
        correlation, version = _ANSWER_HEAD.unpack_from(frame)
    except struct.error:
        raise MalformedFrame("an answer between brokers is cut short") from None
    if version != VERSION:
        raise MalformedFrame(f"an answer between brokers of version {version}, not {VERSION}")
    try:
        return correlation, _answers.decode(memoryview(frame)[_ANSWER_HEAD.size :])
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise MalformedFrame(f"unreadable answer between brokers: {error}") from error
