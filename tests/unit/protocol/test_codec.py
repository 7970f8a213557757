from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.api_versions import ApiKey
from protocol.codec import decode_request, encode_response, request_class, response_class
from protocol.errors import MalformedFrame
from tests.unit.protocol.sample_messages import filled
from tests.unit.protocol.test_header import EVERY_VERSION


@pytest.mark.parametrize(("key", "version"), EVERY_VERSION)
def test_every_served_request_reads_back_as_the_client_wrote_it(key: ApiKey, version: int) -> None:
    rng = random.Random(version)
    for _ in range(10):
        message = filled(request_class(key), version, rng)
        raw = memoryview(bytes(message.encode(version=version)))
        decoded = decode_request(key, version, raw)
        assert decoded.to_dict() == message.to_dict()
        assert type(decoded) is type(message)


@pytest.mark.parametrize(("key", "version"), EVERY_VERSION)
def test_every_served_response_reads_back_at_the_client(key: ApiKey, version: int) -> None:
    rng = random.Random(version)
    for _ in range(5):
        message = filled(response_class(key), version, rng)
        if key == ApiKey.API_VERSIONS:
            message.error_code = 0
        body = encode_response(message, version)
        assert response_class(key).decode(body, version=version) == message


@pytest.mark.parametrize(("key", "version"), EVERY_VERSION)
def test_every_cut_of_a_request_is_malformed_or_a_message(key: ApiKey, version: int) -> None:
    raw = bytes(filled(request_class(key), version, random.Random(3)).encode(version=version))
    for end in range(len(raw)):
        try:
            decode_request(key, version, memoryview(raw)[:end])
        except MalformedFrame:
            continue
        pytest.fail(f"{end} of {len(raw)} bytes were taken for a whole request")


@settings(max_examples=400)
@given(st.sampled_from(EVERY_VERSION), st.binary(max_size=300), st.integers(0, 2**32))
def test_hostile_bodies_raise_nothing_but_malformed_frame(
    api: tuple[ApiKey, int], noise: bytes, seed: int
) -> None:
    key, version = api
    rng = random.Random(seed)
    raw = bytearray(filled(request_class(key), version, rng).encode(version=version))
    for byte in noise[:8]:
        if raw:
            raw[rng.randrange(len(raw))] = byte
    for body in (noise, bytes(raw), noise[:4] + bytes(raw), bytes(raw) + noise):
        try:
            decode_request(key, version, memoryview(body))
        except MalformedFrame:
            pass


@pytest.mark.parametrize("key_version", EVERY_VERSION)
@pytest.mark.parametrize("fill", [0x7F, 0x80, 0xFF, 0x00, 0x01])
def test_little_input_never_costs_much_memory(key_version: tuple[ApiKey, int], fill: int) -> None:
    key, version = key_version
    body = memoryview(bytes([fill]) * 2000)
    try:
        decode_request(key, version, body)  # compile outside the measurement
    except MalformedFrame:
        pass
    tracemalloc.start()
    try:
        decode_request(key, version, body)
    except MalformedFrame:
        pass
    finally:
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_000_000


def test_an_array_longer_than_the_body_is_refused_at_once() -> None:
    with pytest.raises(MalformedFrame, match="array of 2147483647"):
        decode_request(ApiKey.METADATA, 1, memoryview(struct.pack(">i", 2**31 - 1)))


def test_null_is_refused_where_the_schema_has_none() -> None:
    with pytest.raises(MalformedFrame, match="null"):
        decode_request(ApiKey.METADATA, 0, memoryview(struct.pack(">i", -1)))
    assert decode_request(ApiKey.METADATA, 1, memoryview(struct.pack(">i", -1))).topics is None
    with pytest.raises(MalformedFrame, match="null"):
        decode_request(ApiKey.API_VERSIONS, 3, memoryview(b"\x00\x00\x00"))


def test_bytes_after_the_message_are_ignored() -> None:
    body = memoryview(struct.pack(">i", 0) + b"trailing")
    assert decode_request(ApiKey.METADATA, 1, body).topics == []


def test_unknown_tags_are_ignored_and_cut_ones_refused() -> None:
    body = b"\x02a\x02b\x01\x63\x03xyz"
    assert decode_request(ApiKey.API_VERSIONS, 3, memoryview(body)).client_software_name == "a"
    with pytest.raises(MalformedFrame):
        decode_request(ApiKey.API_VERSIONS, 3, memoryview(body[:-1]))


@pytest.mark.parametrize("varint", [b"\x80\x80\x80\x80\x80\x00", b"\xff\xff\xff\xff\x0f"])
def test_a_varint_beyond_31_bits_is_malformed(varint: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_request(ApiKey.HEARTBEAT, 4, memoryview(varint))


def test_many_tagged_sections_cost_linear_time() -> None:
    # 60,000 topics that each carry an unknown tag: quadratic work would copy gigabytes here.
    count = 60_000
    topic = b"\x02t" + b"\x01\x63\x01x"
    size = count + 1
    prefix = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    body = memoryview(prefix + topic * count + b"\x01\x00\x00\x00")
    tracemalloc.start()
    message = decode_request(ApiKey.METADATA, 9, body)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(message.topics) == count
    assert peak < 400 * len(body)


def test_no_two_messages_share_a_default_list() -> None:
    body = memoryview(bytes(request_class(ApiKey.FETCH)(version=4).encode(version=4)))
    one = decode_request(ApiKey.FETCH, 4, body)
    one.forgotten_topics_data.append("mine")
    assert decode_request(ApiKey.FETCH, 4, body).forgotten_topics_data == []


def test_a_version_without_schema_is_malformed() -> None:
    with pytest.raises(MalformedFrame):
        decode_request(ApiKey.METADATA, 99, memoryview(b""))
