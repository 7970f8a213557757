"""Hostile bytes: nothing but Corrupt escapes a decoder, and none allocates what it was told."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress

import msgspec
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from objectstore.errors import Corrupt
from tests.golden.make import build
from wal.format import FOOTER_SIZE, HEADER_SIZE, Kind, decode_header, parse_blob, parse_object
from wal.format.index import Footer, decode_footer, decode_index

OBJECTS = {kind: build(kind) for kind in Kind}
LOG = OBJECTS[Kind.LOG]


def decode_everything(data: bytes) -> None:
    for decode in (
        lambda: decode_header(data, "k"),
        lambda: decode_footer(data[-FOOTER_SIZE:], "k", len(data)),
        lambda: parse_object(data, "k"),
        lambda: parse_blob(data, "k"),
        lambda: decode_index(data, "k", Footer(80, len(data), crc32c(data), 0, b"")),
    ):
        with suppress(Corrupt):
            decode()


@given(st.binary(max_size=400))
def test_arbitrary_bytes(data: bytes) -> None:
    decode_everything(data)


@given(
    st.sampled_from(list(Kind)),
    st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=9)), max_size=4),
    st.floats(0, 1),
)
def test_mutated_objects(kind: Kind, patches: list[tuple[float, bytes]], keep: float) -> None:
    data = bytearray(OBJECTS[kind])
    for where, patch in patches:
        position = int(where * len(data))
        data[position : position + len(patch)] = patch
    decode_everything(bytes(data[: max(1, int(keep * len(data)))]))
    decode_everything(bytes(data))


def resigned(index_bytes: bytes, body: bytes = b"") -> bytes:
    """An object with this index, all of whose checksums fit: made by somebody, not by chance."""
    data = LOG[:HEADER_SIZE] + body
    size = len(data) + len(index_bytes) + FOOTER_SIZE
    foot = struct.pack(
        ">QQIQ8s4sI", len(data), len(index_bytes), crc32c(index_bytes), size, LOG[8:16], b"HWFT", 1
    )
    return data + index_bytes + foot + struct.pack(">I", crc32c(foot))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=20)
    | st.text(max_size=5)
    | st.just(LOG[:HEADER_SIZE]),
    lambda inner: st.lists(inner, max_size=16),
    max_leaves=40,
)


@given(VALUES)
def test_an_index_of_any_shape_with_good_checksums(value: object) -> None:
    decode_everything(resigned(msgspec.msgpack.encode(value)))


@given(st.integers(0, 14), st.integers(-(2**63), 2**64 - 1))
def test_an_index_whose_numbers_lie(field: int, value: int) -> None:
    good = parse_object(LOG, "k")
    raw = msgspec.msgpack.decode(msgspec.msgpack.encode(good.index))
    raw[1][0][field] = value
    body = bytes(good.data[HEADER_SIZE : HEADER_SIZE + sum(b.size for b in good.index.blocks)])
    data = resigned(msgspec.msgpack.encode(raw), body)
    with suppress(Corrupt):
        found = parse_object(data, "k")
        for one in found.index.ranges:
            if one.reference is None:
                assert len(found.range_bytes(one)) == one.size_bytes


@settings(max_examples=200)
@given(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b"\xdd\xff\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff",
            b"\xdc\xff\xff",
            b"\x94\xdd\x7f\xff\xff\xff",
        ]
    ),
)
def test_lengths_that_lie_allocate_nothing(tail: bytes, lie: bytes) -> None:
    data = resigned(lie + tail)
    tracemalloc.start()
    try:
        decode_everything(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_deeply_nested_index_is_refused() -> None:
    for depth in (100, 100_000):
        decode_everything(resigned(b"\x95" + b"\x90" * 4 + b"\x91" * depth + b"\x90"))
