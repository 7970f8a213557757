"""What is no request of the protocol, or not of a version served: the connection is closed."""

from __future__ import annotations

import struct

from protocol.api_versions import SERVED, ApiKey
from tests.peers.differential.peer import Closed, header, schema_name
from tests.peers.differential.schema import encode, message
from tests.peers.differential.session import CLOSED, Session, script

METADATA = ApiKey.METADATA


def outcome(s: Session, data: bytes) -> dict[str, object]:
    """What comes back for these bytes on a new connection."""
    with s.another() as c:
        try:
            c.send_bytes(data)
            frame = c.receive_frame()
        except Closed:
            return CLOSED
        return {"connection": "answered", "correlation id": struct.unpack_from(">i", frame)[0]}


def framed(frame: bytes) -> bytes:
    return struct.pack(">i", len(frame)) + frame


def request(api: int, version: int, body: bytes, *, flexible: bool = False) -> bytes:
    return framed(header(api, version, 7, "probe", flexible) + body)


@script
def versions_that_are_not_served(s: Session) -> None:
    for api, (oldest, newest) in SERVED.items():
        if api == ApiKey.API_VERSIONS:
            continue
        flexible = newest in message(schema_name(api) + "Request").flexible
        wrong = {newest + 1: "a version above all", -1: "version -1", 0x7FFF: "version 32767"}
        if oldest > 0:
            wrong[oldest - 1] = "a version below all"
        for version, case in wrong.items():
            told = outcome(s, request(api, version, bytes(40), flexible=flexible))
            s.note(api, version, case, told, is_error=True)


@script
def requests_cut_short(s: Session) -> None:
    for api, (oldest, newest) in SERVED.items():
        schema = message(schema_name(api) + "Request")
        for version in {newest, max(oldest, 3 if api == ApiKey.PRODUCE else 0)}:
            flexible = version in schema.flexible
            whole = encode(schema, version, {})
            if not whole:
                continue
            told = outcome(s, request(api, version, whole[:-1], flexible=flexible))
            s.note(api, version, "cut short by a byte", told, is_error=True)
            told = outcome(s, request(api, version, b"", flexible=flexible))
            s.note(api, version, "no body", told, is_error=True)


@script
def keys_that_nobody_serves(s: Session) -> None:
    for key in (-1, 99, 999, 0x7FFF):
        told = outcome(s, request(key, 0, bytes(20)))
        s.note(None, 0, f"API key {key}", told, is_error=True)
    for key in (ApiKey.LEADER_AND_ISR, ApiKey.STOP_REPLICA, ApiKey.UPDATE_METADATA, ApiKey.VOTE):
        told = outcome(s, request(key, 0, bytes(20)))
        s.note(None, 0, f"API key {int(key)}, for brokers among themselves", told, is_error=True)


@script
def frames_that_are_no_requests(s: Session) -> None:
    good = request(METADATA, 4, encode(message("MetadataRequest"), 4, {"topics": []}))
    frames = {
        "length 0": struct.pack(">i", 0),
        "length -1": struct.pack(">i", -1),
        "length -2147483648": struct.pack(">i", -(2**31)),
        "length beyond the limit": struct.pack(">i", 0x7FFFFFFF) + bytes(10),
        "a frame of one byte": framed(b"\0"),
        "a frame without client id": framed(struct.pack(">hhi", 3, 4, 7)),
        "a client id longer than the frame": framed(struct.pack(">hhih", 3, 4, 7, 1000) + b"x"),
        "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a TLS handshake": bytes.fromhex("16030100c8010000c40303") + bytes(60),
        "an array of 2147483647": request(METADATA, 4, b"\x7f\xff\xff\xff\0"),
        "a string longer than the frame": request(METADATA, 4, b"\0\0\0\x01\x7f\xff\0"),
        "a string of length -1 that may not be null": request(METADATA, 4, b"\0\0\0\x01\xff\xff\0"),
        "a varint without end": request(METADATA, 9, b"\xff" * 12, flexible=True),
        "tags without end": request(METADATA, 9, b"\x01\0\0\0\x09", flexible=True),
    }
    for case, data in frames.items():
        s.note(None, 0, case, outcome(s, data), is_error=True)
    s.note(None, 0, "a good request", outcome(s, good))
    odd = framed(struct.pack(">hhih", 3, 4, 7, -5) + bytes(10))
    s.note(None, 0, "a client id of length -5", outcome(s, odd))
    s.note(None, 0, "an array of -2", outcome(s, request(METADATA, 4, b"\xff\xff\xff\xfe\0")))
    longer = framed(good[4:] + b"more")
    s.note(None, 0, "bytes behind the request", outcome(s, longer))
    nobody = framed(struct.pack(">hhih", 3, 4, 7, -1) + b"\0\0\0\0\0")
    s.note(None, 0, "null client id", outcome(s, nobody))
    unknown_tag = request(METADATA, 9, b"\x01\0\0\0\x01\x63\x02ab", flexible=True)
    s.note(None, 0, "an unknown tag", outcome(s, unknown_tag))


@script
def requests_in_a_row_are_answered_in_order(s: Session) -> None:
    topic = s.topic()
    with s.another() as c:
        for _ in range(20):
            c.send(METADATA, 9, {"topics": [{"name": topic[0]}]})
            c.send(ApiKey.LIST_GROUPS, 4, {})
        for _ in range(20):
            c.receive()
            c.receive()
    s.note(None, 0, "forty requests at once", {"answers in order": True})
