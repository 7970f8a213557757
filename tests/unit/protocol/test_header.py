from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.api_versions import SERVED, ApiKey, flexible_from, is_served
from protocol.codec import request_class, response_class
from protocol.errors import MalformedFrame
from protocol.header import decode_request_header, encode_response_header
from tests.unit.protocol.sample_messages import filled

EVERY_VERSION = [
    (key, version) for key, (low, high) in SERVED.items() for version in range(low, high + 1)
]


@pytest.mark.parametrize(("key", "version"), EVERY_VERSION)
def test_the_header_of_every_served_request_ends_where_its_body_begins(
    key: ApiKey, version: int
) -> None:
    message = filled(request_class(key), version, random.Random(1))
    message.with_header(correlation_id=-7, client_id="clïent")
    frame = memoryview(bytes(message.encode(version=version, header=True)))
    header = decode_request_header(frame)
    assert header[:4] == (key, version, -7, "clïent")
    assert header.flexible == (version >= flexible_from(key))
    assert bytes(frame[header.body_position :]) == bytes(message.encode(version=version))


@pytest.mark.parametrize(("key", "version"), EVERY_VERSION)
def test_a_client_finds_the_body_behind_our_response_header(key: ApiKey, version: int) -> None:
    message = filled(response_class(key), version, random.Random(2))
    if key == ApiKey.API_VERSIONS:
        message.error_code = 0  # kafka-python reads a failed answer as version 0
    frame = encode_response_header(key, version, 77) + bytes(message.encode(version=version))
    decoded = response_class(key).decode(frame, version=version, header=True)
    assert decoded.header.correlation_id == 77
    assert decoded == message


def test_tags_in_a_request_header_are_stepped_over() -> None:
    frame = struct.pack(">hhi", ApiKey.HEARTBEAT, 4, 1) + b"\x00\x01c" + b"\x02\x00\x01x\x09\x00"
    assert decode_request_header(memoryview(frame + b"body")).body_position == len(frame)


def test_a_null_client_id_is_an_empty_one() -> None:
    frame = struct.pack(">hhih", ApiKey.METADATA, 1, 5, -1)
    assert decode_request_header(memoryview(frame)).client_id == ""


def test_bad_utf8_in_the_client_id_is_replaced_as_java_does() -> None:
    frame = struct.pack(">hhih", ApiKey.METADATA, 1, 5, 2) + b"a\xff"
    assert decode_request_header(memoryview(frame)).client_id == "a\ufffd"


@pytest.mark.parametrize(("version", "tail"), [(99, b"\x00"), (-1, b"")])
def test_api_versions_of_an_unknown_version_still_has_a_readable_header(
    version: int, tail: bytes
) -> None:
    frame = struct.pack(">hhih", ApiKey.API_VERSIONS, version, 5, -1) + tail
    assert decode_request_header(memoryview(frame)).correlation_id == 5
    assert not is_served(ApiKey.API_VERSIONS, version)


def test_api_versions_is_answered_with_the_oldest_header() -> None:
    assert encode_response_header(ApiKey.API_VERSIONS, 4, 9) == b"\x00\x00\x00\x09"
    assert encode_response_header(ApiKey.HEARTBEAT, 4, 9) == b"\x00\x00\x00\x09\x00"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x00\x12\x00\x00",
        struct.pack(">hhi", 999, 0, 1) + b"\xff\xff",
        struct.pack(">hhi", 18, 0, 1),
        struct.pack(">hhih", 18, 0, 1, 100) + b"short",
        struct.pack(">hhih", 18, 99, 1, -1),
        struct.pack(">hhih", 18, 3, 1, -1) + b"\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_a_header_that_cannot_be_read_is_malformed(frame: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_request_header(memoryview(frame))


@given(st.binary(max_size=80))
def test_arbitrary_headers_raise_nothing_but_malformed_frame(data: bytes) -> None:
    try:
        header = decode_request_header(memoryview(data))
    except MalformedFrame:
        return
    assert header.body_position <= len(data)


def test_old_produce_versions_are_advertised_and_refused() -> None:
    assert SERVED[ApiKey.PRODUCE] == (0, 13)
    assert [v for v in range(15) if is_served(ApiKey.PRODUCE, v)] == list(range(3, 14))
    assert not is_served(ApiKey.SASL_HANDSHAKE, 0) and not is_served(12345, 0)
