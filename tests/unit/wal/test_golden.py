"""Objects written by every released format version are still read, byte for byte as meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectstore.errors import Corrupt
from tests.golden.make import BLOBS, FOLDER, RECORDS, build, entries, write_id
from wal.format import NO_BLOCK, Kind, parse_blob, parse_object


def golden(kind: Kind) -> bytes:
    return Path(FOLDER / f"{kind.name.lower()}.bin").read_bytes()


def test_there_is_one_for_every_kind() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {kind.name.lower() for kind in Kind}
    assert {*RECORDS, *BLOBS, Kind.SEAL, Kind.END} == set(Kind)


@pytest.mark.parametrize("kind", list(Kind))
def test_todays_code_writes_the_same_bytes(kind: Kind) -> None:
    assert build(kind) == golden(kind)


@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_v1_are_read(kind: Kind) -> None:
    found = parse_object(golden(kind), "k", write_id(kind))
    header = found.header
    assert (header.kind, header.log_id, header.seq) == (kind, 17, 12)
    assert (header.trim, header.durable, header.checkpoint, header.window) == (4, 10, 9, 16)
    assert found.index.controls == [b"control one", b""]
    ranges = [
        (r.stream_id, r.base_offset, r.end_offset, r.leader_epoch) for r in found.index.ranges
    ]
    assert ranges == [(2, 0, 1002, 3), (5, 40, 42, 3), (9, 100, 112, 3), (9, 112, 116, 4)]
    by_stream = {2: b"", 9: b""}
    for one in found.index.ranges:
        if one.reference is None:
            by_stream[one.stream_id] += found.range_bytes(one)
    for stream_id, data in by_stream.items():
        assert data == b"".join(e.buffer for e in entries() if e.stream_id == stream_id)
    large = found.index.ranges[1]
    assert large.block == NO_BLOCK
    assert large.reference is not None
    assert large.reference.key == "data/ab/large"
    first, second = found.index.ranges[2].producers
    assert (first.producer_id, [b[:4] for b in first.batches]) == (
        4000,
        [(0, 4, 100, 104), (5, 6, 105, 106)],
    )
    assert (second.epoch, second.reset, second.txn_first_offset) == (3, True, 111)
    (marker,) = found.index.ranges[2].markers
    assert (marker.offset, marker.commit, marker.first_offset) == (110, True, 107)
    (wrapped,) = found.index.ranges[0].producers
    assert wrapped.batches == [(2**31 - 10, 989, 1, 1000, 1_750_000_000_001)]


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in RECORDS])
def test_blobs_of_v1_are_read(kind: Kind) -> None:
    found = parse_blob(golden(kind), "k", kind, write_id(kind))
    assert found.header.log_id == 17
    if kind in BLOBS:
        assert found.body == b"blob of " + kind.name.encode()


@pytest.mark.parametrize("kind", list(Kind))
def test_a_bit_flipped_anywhere_is_found(kind: Kind) -> None:
    whole = golden(kind)
    step = 1 if len(whole) < 400 else 3
    parse = parse_object if kind in RECORDS else parse_blob
    for position in range(0, len(whole), step):
        data = bytearray(whole)
        data[position] ^= 1 << (position % 8)
        with pytest.raises(Corrupt, match="the key"):
            parse(data, "the key", write_id=write_id(kind))


@pytest.mark.parametrize("kind", list(Kind))
def test_an_object_cut_short_or_grown_is_found(kind: Kind) -> None:
    whole = golden(kind)
    parse = parse_object if kind in RECORDS else parse_blob
    for data in (*(whole[:size] for size in range(0, len(whole), 7)), whole + b"\0"):
        with pytest.raises(Corrupt, match="the key"):
            parse(data, "the key", write_id=write_id(kind))
