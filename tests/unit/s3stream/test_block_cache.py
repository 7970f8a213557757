from __future__ import annotations

import asyncio
import gc

import pytest

from objectstore.errors import Corrupt, NotFound, StoreUnavailable
from s3stream.block_cache import BlockCache
from s3stream.refs import ObjectRef
from wal.format import BlockEntry, ObjectIndex

from .counting_store import CountingStore
from .stored_objects import batch, entry, put_object

MIB = 1 << 20
Blocks = list[tuple[int, BlockEntry]]


def stored(
    store: CountingStore, n: int, *, blocks: int = 1, block_bytes: int = 600_000
) -> tuple[ObjectRef, list[tuple[int, BlockEntry]]]:
    """An object of `blocks` blocks, each of one batch."""
    index: ObjectIndex
    entries = [entry(7, batch(i, body_bytes=block_bytes - 61, seed=n)) for i in range(blocks)]
    ref, index = put_object(store, n, entries)
    assert len(index.blocks) == blocks
    return ref, list(enumerate(index.blocks))


def test_block_is_fetched_once_for_any_number_of_readers_at_once() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0)

    async def run() -> None:
        store.gate = asyncio.Event()
        cache = BlockCache(10 * MIB)
        readers = [asyncio.create_task(cache.read(store, ref, blocks)) for _ in range(50)]
        await asyncio.sleep(0)
        store.gate.set()
        got = await asyncio.gather(*readers)
        assert len(store.reads) == 1
        assert len({bytes(views[0]) for views in got}) == 1

    asyncio.run(run())


def test_adjacent_blocks_come_by_one_request_up_to_the_limit() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0, blocks=6)

    async def run() -> None:
        cache = BlockCache(100 * MIB, coalesce_bytes=3 * 600_000)
        await cache.read(store, ref, blocks)
        assert [end - start for _, start, end in store.reads] == [3 * 600_000] * 2
        cache = BlockCache(100 * MIB)
        store.reads.clear()
        await cache.read(store, ref, [blocks[0], blocks[1], blocks[4]])
        assert [end - start for _, start, end in store.reads] == [2 * 600_000, 600_000]

    asyncio.run(run())


def test_block_under_way_is_joined_and_only_the_rest_is_fetched() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0, blocks=3)

    async def run() -> None:
        store.gate = asyncio.Event()
        cache = BlockCache(100 * MIB)
        first = asyncio.create_task(cache.read(store, ref, blocks[1:2]))
        await asyncio.sleep(0)
        second = asyncio.create_task(cache.read(store, ref, blocks))
        await asyncio.sleep(0)
        store.gate.set()
        (middle,) = await first
        assert (await second)[1] == middle
        assert len(store.reads) == 3

    asyncio.run(run())


@pytest.mark.parametrize("rounds", range(6))
def test_fetch_that_has_ended_is_not_joined(rounds: int) -> None:
    """A cache that keeps nothing: the second reader comes just when the first has got its last."""
    store = CountingStore()
    ref, blocks = stored(store, 0, blocks=2)
    delayed = blocks[1][1].position

    class Late(CountingStore):
        async def get_range(self, key: str, start: int, end: int) -> bytes:
            for _ in range(rounds if start == delayed else 0):
                await asyncio.sleep(0)
            return await store.get_range(key, start, end)

    async def run() -> None:
        cache = BlockCache(0)
        for reads in (2, 4):
            await cache.read(Late(), ref, blocks)
            assert len(store.reads) == reads
        assert cache.counters.joined_flights == 0

    asyncio.run(run())


def test_reader_that_leaves_does_not_take_the_fetch_from_the_others() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0)

    async def run() -> None:
        store.gate = asyncio.Event()
        cache = BlockCache(10 * MIB)
        leaver = asyncio.create_task(cache.read(store, ref, blocks))
        stayer = asyncio.create_task(cache.read(store, ref, blocks))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.sleep(0)
        store.gate.set()
        assert len((await stayer)[0]) == 600_000
        assert leaver.cancelled()

    asyncio.run(run())


def test_fetch_goes_on_when_its_readers_leave_and_who_comes_later_joins_it() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0)

    async def run() -> None:
        store.gate = asyncio.Event()
        cache = BlockCache(10 * MIB)
        leaver = asyncio.create_task(cache.read(store, ref, blocks))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert store.waiting == 1
        leaver.cancel()
        await asyncio.sleep(0)
        later = asyncio.create_task(cache.read(store, ref, blocks))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert store.waiting == 1
        store.gate.set()
        assert len((await later)[0]) == 600_000
        assert cache.counters.store_requests == 1

    asyncio.run(run())


def test_flipped_block_from_the_store_is_never_served_nor_kept() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0)
    store.flip(ref.key, blocks[0][1].position + 1000)

    async def run() -> None:
        cache = BlockCache(10 * MIB)
        for _ in range(2):
            with pytest.raises(Corrupt, match=ref.key):
                await cache.read(store, ref, blocks)
        assert cache.cached_bytes == 0
        assert len(store.reads) == 2

    asyncio.run(run())


def test_object_that_was_cut_short_is_corrupt() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0)
    store.alter = lambda key, data: data[:-1]

    async def run() -> None:
        with pytest.raises(Corrupt, match=ref.key):
            await BlockCache(10 * MIB).read(store, ref, blocks)

    asyncio.run(run())


def test_absent_object_is_told_to_every_reader_and_asked_for_again_by_the_next() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0)
    asyncio.run(store.delete([ref.key]))

    async def run() -> None:
        cache = BlockCache(10 * MIB)
        for _ in range(2):
            both = await asyncio.gather(
                *(cache.read(store, ref, blocks) for _ in range(2)), return_exceptions=True
            )
            assert [type(error) for error in both] == [NotFound, NotFound]
        assert len(store.reads) == 2

    asyncio.run(run())


def test_memory_stays_within_its_bound() -> None:
    store = CountingStore()

    async def run() -> None:
        cache = BlockCache(5 * MIB)
        for n in range(40):
            ref, blocks = stored(store, n)
            await cache.read(store, ref, blocks)
            assert cache.live_bytes <= 5 * MIB
        assert cache.cached_bytes > 3 * MIB

    asyncio.run(run())


def test_what_responses_still_hold_counts_until_they_let_it_go() -> None:
    store = CountingStore()

    async def run() -> None:
        cache = BlockCache(5 * MIB)
        held = []
        for n in range(7):
            ref, blocks = stored(store, n)
            held += await cache.read(store, ref, blocks)
        ref, blocks = stored(store, 7)
        await cache.read(store, ref, blocks)
        assert cache.live_bytes >= 7 * 600_000
        for n in range(8, 12):
            ref, blocks = stored(store, n)
            await cache.read(store, ref, blocks)
        assert cache.live_bytes <= 5 * MIB + 600_000
        before = cache.live_bytes
        del held[:4]
        gc.collect()
        assert cache.live_bytes < before

    asyncio.run(run())


def test_scan_of_history_does_not_evict_what_is_read_again_and_again() -> None:
    store = CountingStore()
    hot = [stored(store, n) for n in range(3)]

    async def read_all(cache: BlockCache, ref: ObjectRef, blocks: Blocks) -> None:
        await cache.read(store, ref, blocks)
        cache.note_served(ref, 0, 0, 300_000)
        cache.note_served(ref, 0, 300_000, 600_000)

    async def run() -> None:
        cache = BlockCache(8 * MIB)
        for ref, blocks in hot + hot:
            await read_all(cache, ref, blocks)
        for n in range(10, 60):
            await read_all(cache, *stored(store, n))
        assert all(cache.is_cached(ref, 0) for ref, _ in hot)
        store.reads.clear()
        await read_all(cache, *hot[0])
        assert store.reads == []

    asyncio.run(run())


def test_what_was_read_to_its_end_goes_before_what_is_still_to_be_read() -> None:
    store = CountingStore()

    async def run() -> None:
        cache = BlockCache(5 * MIB)
        ahead = [stored(store, n) for n in range(4)]
        for ref, blocks in ahead:
            await cache.read(store, ref, blocks, ahead=True)
        for n in range(10, 30):
            ref, blocks = stored(store, n)
            await cache.read(store, ref, blocks)
            cache.note_served(ref, 0, 0, 600_000)
        assert all(cache.is_cached(ref, 0) for ref, _ in ahead)
        assert cache.live_bytes <= 5 * MIB

    asyncio.run(run())


def test_what_nobody_comes_for_goes_in_the_end() -> None:
    store = CountingStore()

    async def run() -> None:
        cache = BlockCache(5 * MIB)
        for n in range(30):
            ref, blocks = stored(store, n)
            await cache.read(store, ref, blocks, ahead=True)
            assert cache.is_cached(ref, 0)
            assert cache.live_bytes <= 5 * MIB
        assert not cache.is_cached(stored(CountingStore(), 0)[0], 0)

    asyncio.run(run())


def test_promoted_blocks_do_not_crowd_out_new_ones_for_ever() -> None:
    store = CountingStore()

    async def run() -> None:
        cache = BlockCache(6 * MIB)
        for n in range(30):
            ref, blocks = stored(store, n)
            for _ in range(3):
                await cache.read(store, ref, blocks)
                cache.note_served(ref, 0, 0, 600_000)
            assert cache.is_cached(ref, 0)
            assert cache.live_bytes <= 6 * MIB

    asyncio.run(run())


def test_one_huge_block_is_served_but_does_not_empty_the_cache() -> None:
    store = CountingStore()
    small, small_blocks = stored(store, 0)
    huge, huge_blocks = stored(store, 1, block_bytes=4 * MIB)

    async def run() -> None:
        cache = BlockCache(5 * MIB)
        await cache.read(store, small, small_blocks)
        (view,) = await cache.read(store, huge, huge_blocks)
        assert len(view) == 4 * MIB
        assert cache.is_cached(small, 0)

    asyncio.run(run())


def test_closing_ends_the_flights_and_tells_their_readers() -> None:
    store = CountingStore()
    ref, blocks = stored(store, 0)

    async def run() -> None:
        store.gate = asyncio.Event()
        cache = BlockCache(10 * MIB)
        reader = asyncio.create_task(cache.read(store, ref, blocks))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await cache.close()
        with pytest.raises(StoreUnavailable):
            await reader
        with pytest.raises(StoreUnavailable):
            await cache.read(store, ref, blocks)
        assert store.waiting == 0

    asyncio.run(run())
