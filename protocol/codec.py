"""Request bodies to messages, messages to response bodies, for every API that kafka-python has.

The messages are kafka-python's own classes (`protocol.messages`). Requests are read by our own
strict decoder, since they come from strangers; responses are written by kafka-python's encoder.
The hot messages have codecs of their own: `protocol.produce`, `protocol.fetch`.
"""

from __future__ import annotations

import struct
from typing import Any

import protocol.kafka_package  # noqa: F401  # isort: skip  # before kafka

from kafka.protocol.api_message import ApiMessage

from protocol import messages
from protocol.errors import MalformedFrame
from protocol.request_decoder import Decoder, compile_decoder


def _by_key(kind: str) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for name in messages.__all__:
        message = getattr(messages, name)
        if issubclass(message, ApiMessage) and message.type == kind:
            found[message.API_KEY] = message
    return found


_REQUESTS = _by_key("request")
_RESPONSES = _by_key("response")
_decoders: dict[tuple[int, int], Decoder] = {}


def request_class(api_key: int) -> Any:
    """kafka-python's class of the request. Raises KeyError: it has none for this key."""
    return _REQUESTS[api_key]


def response_class(api_key: int) -> Any:
    """kafka-python's class of the response. Raises KeyError: it has none for this key."""
    return _RESPONSES[api_key]


def decode_request(api_key: int, version: int, body: memoryview) -> Any:
    """The message in a request's body; nothing in it refers to `body` but records fields.

    Bytes after the message are ignored, as Kafka ignores them.
    Raises MalformedFrame: whatever is wrong with the bytes. KeyError: no schema for the key.
    """
    decoder = _decoders.get((api_key, version))
    if decoder is None:
        decoder = _decoders[api_key, version] = _compile(api_key, version)
    try:
        message, _position = decoder(body, 0)
    except (struct.error, IndexError):
        raise MalformedFrame(
            f"{request_class(api_key).name} v{version}: cut short after {len(body)} bytes"
        ) from None
    return message


def encode_response(message: Any, version: int) -> bytes:
    """The body of a response, without header and length."""
    return bytes(message.encode(version=version))


def _compile(api_key: int, version: int) -> Decoder:
    message = request_class(api_key)
    if not 0 <= version <= message.max_version:
        raise MalformedFrame(f"{message.name} has no version {version}")
    # kafka-python holds its message classes by weak proxies; [None] is the class itself.
    return compile_decoder(
        message._struct, message[None], version, message.flexible_version_q(version)
    )
