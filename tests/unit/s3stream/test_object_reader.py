from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectstore.errors import Corrupt, NotFound
from protocol.record_batch import iter_headers, parse_header
from s3stream.block_cache import BlockCache
from s3stream.object_reader import ObjectReader
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import Kind, LargeBatchRef

from .counting_store import CountingStore
from .stored_objects import batch, entry, object_range, put_object

MIB = 1 << 20


def reader_of(store: CountingStore, memory_bytes: int = 64 * MIB) -> ObjectReader:
    return ObjectReader(store, BlockCache(memory_bytes))


def history(
    store: CountingStore, batches: list[bytes], *, per_object: int, stream_id: int = 7
) -> list[ObjectRange]:
    """The batches in objects of `per_object` each, between those of other streams."""
    ranges = []
    for n, first in enumerate(range(0, len(batches), per_object)):
        own = [entry(stream_id, one) for one in batches[first : first + per_object]]
        others = [entry(other, batch(n)) for other in (stream_id - 1, stream_id + 1)]
        ranges.append(object_range(*put_object(store, n, others + own), stream_id))
    return ranges


def test_whole_stream_comes_back_byte_for_byte() -> None:
    store = CountingStore()
    batches = [batch(i * 3, 3, body_bytes=50_000) for i in range(100)]
    ranges = history(store, batches, per_object=30)

    async def run() -> bytes:
        reader = reader_of(store)
        return b"".join(await reader.read_stream(7, ranges, 0, 300, 100 * MIB))

    assert asyncio.run(run()) == b"".join(batches)


def test_a_batch_that_does_not_fit_behind_others_is_not_taken_for_read() -> None:
    store = CountingStore()
    ranges = history(store, [batch(i, body_bytes=MIB - 100) for i in range(4)], per_object=4)

    async def run() -> None:
        reader = reader_of(store)
        served: list[int] = []
        note = reader.block_cache.note_served

        def noted(ref: ObjectRef, block: int, start: int, end: int) -> None:
            served.append(block)
            note(ref, block, start, end)

        reader.block_cache.note_served = noted  # type: ignore[method-assign]
        assert await reader.read_run(7, ranges, 1, 4, 1000, first=False) == ([], 1)
        assert served == []
        views, behind = await reader.read_run(7, ranges, 1, 4, 1000)
        assert (len(views), behind, len(served)) == (1, 2, 1)

    asyncio.run(run())


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_read_is_the_longest_run_that_fits(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=20))
    sizes = [data.draw(st.sampled_from([1, 100, 3000, 400_000])) for _ in counts]
    batches, base = [], 0
    for count, size in zip(counts, sizes, strict=True):
        batches.append(batch(base, count, body_bytes=size))
        base += count
    store = CountingStore()
    ranges = history(store, batches, per_object=data.draw(st.integers(1, 7)))
    offset = data.draw(st.integers(0, base - 1))
    end = data.draw(st.sampled_from([0, *(parse_header(one).next_offset for one in batches)]))
    max_bytes = data.draw(st.sampled_from([1, 500, 5000, 500_000, 10 * MIB]))
    expected: list[bytes] = []
    for one in batches:
        header = parse_header(one)
        if header.next_offset <= offset:
            continue
        total = sum(map(len, expected)) + len(one)
        if header.next_offset > end or (expected and total > max_bytes):
            break
        expected.append(one)

    async def run() -> list[bytes]:
        reader = reader_of(store)
        await reader.read_stream(7, ranges, 0, base, max_bytes)
        out = []
        for view in await reader.read_stream(7, ranges, offset, end, max_bytes):
            out += [bytes(view[at : at + h.size_bytes]) for at, h in iter_headers(view)]
        return out

    assert asyncio.run(run()) == expected


def test_sequential_reading_gives_every_batch_once() -> None:
    store = CountingStore()
    batches = [batch(i, body_bytes=7000) for i in range(300)]
    ranges = history(store, batches, per_object=70)

    async def run() -> bytes:
        reader = reader_of(store)
        out, offset = b"", 0
        while offset < 300:
            views = await reader.read_stream(7, ranges, offset, 300, 50_000)
            out += b"".join(views)
            for view in views:
                for _, header in iter_headers(view):
                    offset = header.next_offset
        return out

    assert asyncio.run(run()) == b"".join(batches)
    assert len(store.reads) < 20  # an index and a run of blocks of each object


def test_views_of_large_reads_share_the_blocks_memory() -> None:
    store = CountingStore()
    ranges = history(store, [batch(i, body_bytes=100_000) for i in range(9)], per_object=9)

    async def run() -> None:
        reader = reader_of(store)
        first = await reader.read_stream(7, ranges, 0, 9, MIB)
        again = await reader.read_stream(7, ranges, 0, 9, MIB)
        assert len(first) == 1
        assert first[0].obj is again[0].obj

    asyncio.run(run())


def test_index_and_blocks_of_an_object_are_fetched_by_one_request_each() -> None:
    store = CountingStore()
    ranges = history(store, [batch(i, body_bytes=500_000) for i in range(12)], per_object=12)

    async def run() -> None:
        reader = reader_of(store, 256 * MIB)
        await reader.read_stream(7, ranges, 0, 12, 100 * MIB)
        await reader.read_stream(7, ranges, 3, 12, 100 * MIB)

    asyncio.run(run())
    assert len(store.reads) == 2


def test_absent_object_is_not_found_by_its_key() -> None:
    store = CountingStore()
    ranges = history(store, [batch(i) for i in range(4)], per_object=2)
    asyncio.run(store.delete([ranges[1].object.key]))

    async def run() -> None:
        with pytest.raises(NotFound, match=ranges[1].object.key):
            await reader_of(store).read_stream(7, ranges, 0, 4, MIB)

    asyncio.run(run())


def test_object_of_another_write_at_the_key_is_refused() -> None:
    store = CountingStore()
    ref, index = put_object(store, 0, [entry(7, batch(0))])
    asyncio.run(store.delete([ref.key]))
    put_object(store, 0, [entry(7, batch(0))], write_id=Random(99).randbytes(16))

    async def run() -> None:
        with pytest.raises(Corrupt, match=ref.key):
            await reader_of(store).read_stream(7, [object_range(ref, index, 7)], 0, 1, MIB)

    asyncio.run(run())


def test_every_flipped_bit_of_what_is_read_is_noticed() -> None:
    store = CountingStore()
    original = batch(0, 3)
    ref, index = put_object(store, 0, [entry(7, original)])
    own = object_range(ref, index, 7)

    async def read() -> bytes:
        return b"".join(await reader_of(store).read_stream(7, [own], 0, 3, MIB))

    # The object's own header is read by nobody here: its copy in the index is.
    for position in range(80, ref.size_bytes):
        store.flip(ref.key, position)
        with pytest.raises(Corrupt, match=ref.key):
            asyncio.run(read())
        store.flip(ref.key, position)
    assert asyncio.run(read()) == original


def test_hole_between_objects_stops_the_reader_loudly() -> None:
    store = CountingStore()
    ranges = history(store, [batch(i) for i in range(9)], per_object=3)

    async def run() -> None:
        reader = reader_of(store)
        with pytest.raises(Corrupt, match="hole: offset 3 expected"):
            await reader.read_stream(7, [ranges[0], ranges[2]], 0, 9, MIB)
        with pytest.raises(Corrupt, match="hole"):
            await reader.read_stream(7, ranges[:1], 5, 9, MIB)

    asyncio.run(run())


def test_hole_inside_an_object_stops_the_reader_loudly() -> None:
    store = CountingStore()
    ref, index = put_object(store, 0, [entry(7, batch(0)), entry(7, batch(2))])

    async def run() -> None:
        with pytest.raises(Corrupt, match="hole: offset 1 expected"):
            await reader_of(store).read_stream(7, [object_range(ref, index, 7)], 0, 3, MIB)

    asyncio.run(run())


def test_batch_out_of_line_comes_with_the_offset_it_was_given() -> None:
    store = CountingStore()
    stored = batch(0, 5, body_bytes=5 * MIB)
    large, _ = put_object(store, 0, [entry(7, stored)], kind=Kind.BATCH)
    final = batch(40, 5, body_bytes=5 * MIB, epoch=3)
    reference = entry(7, final)
    reference.reference = LargeBatchRef(large.key, large.write_id, large.size_bytes)
    before, after = batch(39), batch(45, epoch=3)
    ref, index = put_object(store, 1, [entry(7, before), reference, entry(7, after)])

    async def run() -> bytes:
        reader = reader_of(store)
        ranges = [object_range(ref, index, 7)]
        return b"".join(await reader.read_stream(7, ranges, 39, 46, 100 * MIB))

    got = asyncio.run(run())
    headers = [header for _, header in iter_headers(got)]
    assert [(h.base_offset, h.leader_epoch) for h in headers] == [(39, 0), (40, 3), (45, 3)]
    assert got[len(before) + 61 : -len(after)] == stored[61:]


def test_range_that_names_only_part_of_an_object_gives_only_that_part() -> None:
    store = CountingStore()
    batches = [batch(i) for i in range(10)]
    ref, index = put_object(store, 0, [entry(7, one) for one in batches])
    whole = object_range(ref, index, 7)
    newer, newer_index = put_object(store, 1, [entry(7, one) for one in batches[5:]])
    part = ObjectRange(ref, 2, 5, *_rest(whole))

    async def run() -> bytes:
        ranges = [part, object_range(newer, newer_index, 7)]
        return b"".join(await reader_of(store).read_stream(7, ranges, 2, 10, MIB))

    assert asyncio.run(run()) == b"".join(batches[2:])


def _rest(one: ObjectRange) -> tuple[int, int, int, int, int, int, int, bytes]:
    return (
        one.size_bytes,
        one.record_count,
        one.batch_count,
        one.first_leader_epoch,
        one.last_leader_epoch,
        one.max_timestamp,
        one.max_timestamp_offset,
        one.sum,
    )


def test_index_is_kept_only_within_its_bound() -> None:
    store = CountingStore()
    ranges = history(store, [batch(i) for i in range(20)], per_object=1)

    async def run() -> None:
        reader = ObjectReader(store, BlockCache(MIB), index_cache_bytes=6000)
        for one in ranges:
            await reader.index(one.object)
        assert 0 < reader.index_bytes <= 6000
        store.reads.clear()
        await reader.index(ranges[-1].object)
        assert store.reads == []
        await reader.index(ranges[0].object)
        assert len(store.reads) == 1

    asyncio.run(run())


def test_readers_of_one_index_share_one_request_and_one_may_leave() -> None:
    store = CountingStore()
    ref, _ = put_object(store, 0, [entry(7, batch(0))])

    async def run() -> None:
        store.gate = asyncio.Event()
        reader = reader_of(store)
        readers = [asyncio.create_task(reader.index(ref)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        readers[0].cancel()
        store.gate.set()
        results = await asyncio.gather(*readers, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] is results[2]
        assert len(store.reads) == 1

    asyncio.run(run())


def test_hints_follow_the_stream_not_the_block() -> None:
    """Two streams in one block, read in turns: each goes on where it stopped."""
    store = CountingStore()
    left = [batch(i, seed=1) for i in range(20)]
    right = [batch(i, seed=2) for i in range(20)]
    ref, index = put_object(
        store, 0, [entry(1, one) for one in left] + [entry(2, one) for one in right]
    )
    ranges = {s: [object_range(ref, index, s)] for s in (1, 2)}

    async def run() -> None:
        reader = reader_of(store)
        for i in range(20):
            assert b"".join(await reader.read_stream(1, ranges[1], i, 20, 1)) == left[i]
            assert b"".join(await reader.read_stream(2, ranges[2], i, 20, 1)) == right[i]

    asyncio.run(run())


def test_stored_batches_are_contiguous() -> None:
    """The builder of these tests itself: offsets without a gap."""
    batches = [parse_header(batch(i * 2, 2)) for i in range(5)]
    assert all(a.next_offset == b.base_offset for a, b in pairwise(batches))
