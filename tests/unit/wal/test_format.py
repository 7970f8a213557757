"""Composing and reading objects of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import Corrupt
from tests.golden.make import entry
from wal.format import (
    BLOCK_BYTES,
    HEADER_SIZE,
    BatchEntry,
    ControlMarker,
    Kind,
    add_sums,
    batch_sum,
    compose,
    parse_object,
    read_blocks,
    read_header,
    read_index,
    subtract_sum,
    sum_bytes,
)
from wal.format import read as read_module

from .whole_object import read_object

WRITE_ID = bytes(range(16))


def made(entries: Sequence[BatchEntry], controls: Sequence[bytes] = ()) -> bytes:
    chunks, _, size = compose(Kind.LOG, 1, 5, 0, 3, None, 8, WRITE_ID, entries, controls)
    data = b"".join(chunks)
    assert len(data) == size
    return data


def test_batches_are_referred_to_and_never_copied() -> None:
    batches = [entry(s % 3, s // 3, 1, 500) for s in range(9)]
    chunks, _, _ = compose(Kind.LOG, 1, 5, 0, 3, None, 8, WRITE_ID, batches)
    body = chunks[1:-2]
    assert {id(chunk) for chunk in body} == {id(one.buffer) for one in batches}


def test_streams_are_sorted_and_each_keeps_its_order() -> None:
    batches = [entry(s, o, 1, 60) for o in range(4) for s in (9, 1, 5)]
    found = parse_object(made(batches), "k")
    assert [(r.stream_id, r.base_offset, r.end_offset) for r in found.index.ranges] == [
        (1, 0, 4),
        (5, 0, 4),
        (9, 0, 4),
    ]


def test_a_range_never_spans_blocks_and_a_large_batch_has_its_own() -> None:
    half = BLOCK_BYTES // 2
    batches = [
        entry(1, 0, 1, half),
        entry(1, 1, 1, half),
        entry(1, 2, 1, 100),
        entry(1, 3, 1, 2 * BLOCK_BYTES),
        entry(1, 4, 1, 100),
    ]
    found = parse_object(made(batches), "k")
    assert [b.size for b in found.index.blocks] == [BLOCK_BYTES, 100, 2 * BLOCK_BYTES, 100]
    assert [(r.block, r.base_offset, r.end_offset) for r in found.index.ranges] == [
        (0, 0, 2),
        (1, 2, 3),
        (2, 3, 4),
        (3, 4, 5),
    ]


def test_a_leader_epoch_or_a_gap_breaks_a_range() -> None:
    batches = [entry(1, 0, 1, 50), entry(1, 1, 1, 50, epoch=4), entry(1, 9, 1, 50, epoch=4)]
    found = parse_object(made(batches), "k")
    assert [(r.base_offset, r.leader_epoch) for r in found.index.ranges] == [(0, 3), (1, 4), (9, 4)]


def test_the_maximum_timestamp_is_that_of_the_first_batch_that_has_it() -> None:
    batches = [entry(1, o, 2, 50) for o in (0, 2, 4, 6)]
    for one, stamp in zip(batches, (5, 9, 9, 7), strict=True):
        one.max_timestamp = stamp
    (only,) = parse_object(made(batches), "k").index.ranges
    assert (only.max_timestamp, only.max_timestamp_offset) == (9, 3)


def test_only_the_last_five_batches_of_a_producer_are_kept() -> None:
    batches = [entry(1, o, 1, 50, producer=(77, 0, o)) for o in range(8)]
    ((update,),) = [r.producers for r in parse_object(made(batches), "k").index.ranges]
    assert [b[0] for b in update.batches] == [3, 4, 5, 6, 7]
    assert not update.reset


def test_a_marker_ends_the_open_transaction_and_is_listed() -> None:
    def told(*batches: BatchEntry) -> tuple[int, int]:
        (only,) = parse_object(made(batches), "k").index.ranges
        return only.producers[0].txn_first_offset, len(only.markers)

    begun = entry(1, 0, 1, 50, producer=(5, 0, 0), transactional=True)
    more = entry(1, 1, 1, 50, producer=(5, 0, 1), transactional=True)
    ended = entry(1, 2, 1, 50, producer=(5, 0, -1), marker=ControlMarker(2, 5, 0, 0, False, 0))
    assert told(begun, more) == (0, 0)
    assert told(begun, more, ended) == (-1, 1)


def test_the_sum_of_a_range_is_that_of_its_batches_and_can_be_taken_apart() -> None:
    batches = [entry(1, o, 1, 50 + o) for o in range(3)]
    (only,) = parse_object(made(batches), "k").index.ranges
    parts = [
        sum_bytes(batch_sum(e.base_offset, e.last_offset, e.size_bytes, e.crc, e.leader_epoch))
        for e in batches
    ]
    assert only.sum == add_sums(*parts)
    assert subtract_sum(only.sum, parts[1]) == add_sums(parts[0], parts[2])


def test_an_object_may_hold_control_records_alone() -> None:
    found = parse_object(made([], [b"one", b"two"]), "k")
    assert found.index.controls == [b"one", b"two"]
    assert found.index.blocks == []


def test_another_writes_object_is_not_served() -> None:
    data = made([entry(1, 0, 1, 50)])
    parse_object(data, "k", WRITE_ID)
    with pytest.raises(Corrupt, match="another write"):
        parse_object(data, "k", bytes(16))


def test_index_and_blocks_are_read_apart_from_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [entry(s, 0, 1, 200_000) for s in range(20)]
    data = made(batches, [b"control" * 100])

    async def main() -> None:
        store = MemoryStore(lambda: 0)
        await store.create("k", [data])
        whole = await read_object(store, "k", WRITE_ID)
        for suffix in (64 << 10, 100, 60):  # the index in the first read, or not
            monkeypatch.setattr(read_module, "SUFFIX_BYTES", suffix)
            assert await read_index(store, "k", len(data), WRITE_ID) == whole.index
        index_size = len(data) - sum(b.size for b in whole.index.blocks) - HEADER_SIZE - 48
        index = await read_index(store, "k", len(data), WRITE_ID, index_size=index_size)
        assert await read_header(store, "k") == index.decoded_header("k") == whole.header
        for numbers in ([0], [1, 2], [2, 0, 1], [0, 3]):
            views = await read_blocks(store, "k", index, numbers)
            for number, view in zip(numbers, views, strict=True):
                block = index.blocks[number]
                assert view == data[block.position : block.position + block.size]
        with pytest.raises(Corrupt):
            await read_index(store, "k", len(data) - 1)
        with pytest.raises(Corrupt):
            await read_index(store, "k", len(data) + 1)
        with pytest.raises(Corrupt, match="another write"):
            await read_index(store, "k", len(data), bytes(16))

    asyncio.run(main())


def test_a_damaged_block_is_not_served() -> None:
    data = bytearray(made([entry(1, 0, 1, 500_000), entry(2, 0, 1, 900_000)]))
    data[HEADER_SIZE + 700_000] ^= 1

    async def main() -> None:
        store = MemoryStore(lambda: 0)
        await store.create("k", [data])
        index = await read_index(store, "k", len(data))
        await read_blocks(store, "k", index, [0])
        with pytest.raises(Corrupt, match="k: checksum of the block"):
            await read_blocks(store, "k", index, [0, 1])

    asyncio.run(main())


def test_the_proof_sum_never_changes_and_covers_each_field() -> None:
    fields = (5, 7, 112, 0xDEADBEEF, 2)
    assert batch_sum(*fields) == 0x4C8A63A0028FA2DA8D9EDEF0FB51F425
    for place in range(5):
        other = [one + (n == place) for n, one in enumerate(fields)]
        assert batch_sum(*other) != batch_sum(*fields)
