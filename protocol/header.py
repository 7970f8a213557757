"""Request and response headers.

    request v1   api_key int16, api_version int16, correlation_id int32, client_id nullable string
    request v2   the same (client_id is not compact), then tagged fields
    response v0  correlation_id int32
    response v1  the same, then tagged fields

A flexible version of an API goes with request v2 and response v1, but for ApiVersions, which is
always answered with response v0: its client cannot know yet what the broker speaks (KIP-511).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from protocol.api_versions import ApiKey, flexible_from
from protocol.errors import MalformedFrame
from protocol.primitives import read_nullable_string, skip_tags

_FIXED = struct.Struct(">hhi")
_I32 = struct.Struct(">i")


class RequestHeader(NamedTuple):
    """What every request begins with.

    client_id: an absent one is the empty string, as in Kafka.
    body_position: where the body begins in the frame.
    flexible: whether the body has compact fields and tags.
    """

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str
    body_position: int
    flexible: bool


def decode_request_header(frame: memoryview) -> RequestHeader:
    """Read the header of a frame; the body is not touched.

    An ApiVersions request of a version that does not exist yet has a header v2; whoever answers
    must not read its body (KIP-511). Whether the version is served is not asked here.
    Raises MalformedFrame: cut short, or an API key without a schema.
    """
    try:
        api_key, api_version, correlation_id = _FIXED.unpack_from(frame, 0)
    except struct.error:
        raise MalformedFrame(f"a frame of {len(frame)} bytes has no header") from None
    try:
        flexible = api_version >= flexible_from(api_key)
    except KeyError:
        raise MalformedFrame(f"unknown API key {api_key}") from None
    client_id, position = read_nullable_string(frame, _FIXED.size, compact=False)
    if flexible:
        position = skip_tags(frame, position)
    return RequestHeader(api_key, api_version, correlation_id, client_id or "", position, flexible)


def encode_response_header(api_key: int, api_version: int, correlation_id: int) -> bytes:
    """The header that an answer to this API and version begins with."""
    header = _I32.pack(correlation_id)
    if api_key != ApiKey.API_VERSIONS and api_version >= flexible_from(api_key):
        return header + b"\x00"
    return header
