from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protocol.record_batch import iter_headers
from s3stream.block_cache import BlockCache
from s3stream.object_reader import ObjectReader
from s3stream.read_ahead import GONE_AFTER_S, ReadAhead
from s3stream.refs import ObjectRange

from .counting_store import CountingStore
from .stored_objects import batch, entry, object_range, put_object

MIB = 1 << 20
BATCHES = 200
BODY = 100_000


class Setting:
    """One stream of 20 MB in five objects, a reader of it, and two stores that count apart."""

    def __init__(self, total_bytes: int = 16 * MIB) -> None:
        self.store = CountingStore()
        self.background = CountingStore()
        self.ranges: list[ObjectRange] = []
        for n in range(5):
            own = [entry(7, batch(i, body_bytes=BODY)) for i in range(n * 40, n * 40 + 40)]
            self.ranges.append(object_range(*put_object(self.store, n, own), 7))
        self.background._objects = self.store._objects
        self.reader = ObjectReader(self.store, BlockCache(64 * MIB))
        self.ahead = ReadAhead(self.reader, self.background, total_bytes=total_bytes)

    def ranges_from(self, offset: int) -> Sequence[ObjectRange]:
        return [one for one in self.ranges if one.end_offset > offset]

    async def read(self, offset: int, max_bytes: int = MIB) -> int:
        views = await self.reader.read_stream(
            7, self.ranges_from(offset), offset, BATCHES, max_bytes
        )
        next_offset = offset
        for view in views:
            for _, header in iter_headers(view):
                next_offset = header.next_offset
        served = sum(map(len, views))
        self.ahead.note_read(7, offset, next_offset, served, self.ranges_from)
        return next_offset

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)


def fetched(store: CountingStore) -> int:
    return sum(end - start for _, start, end in store.reads)


def test_sequential_reader_soon_finds_everything_in_memory() -> None:
    async def run() -> None:
        setting = Setting()
        offset = 0
        waits = 0
        while offset < BATCHES:
            before = fetched(setting.store)
            offset = await setting.read(offset)
            waits += fetched(setting.store) - before > BODY
            await setting.settle()
        assert fetched(setting.background) > 15 * MIB
        assert waits <= 3

    asyncio.run(run())


def test_first_read_of_a_stream_reads_nothing_ahead() -> None:
    async def run() -> None:
        setting = Setting()
        for offset in (0, 100, 50, 150):
            await setting.read(offset)
            await setting.settle()
        assert setting.background.reads == []

    asyncio.run(run())


def test_window_doubles_up_to_its_share() -> None:
    async def run() -> None:
        setting = Setting(total_bytes=4 * MIB)
        offset, before, steps = 0, 0, []
        for _ in range(8):
            offset = await setting.read(offset)
            await setting.settle()
            now = fetched(setting.background)
            steps.append(now - before)
            before = now
            assert setting.ahead.ahead_bytes <= 4 * MIB
        assert steps[0] == 0 and 0 < steps[1] < steps[2]

    asyncio.run(run())


def test_two_readers_of_one_stream_both_read_ahead() -> None:
    async def run() -> None:
        setting = Setting()
        left, right = 0, 100
        for _ in range(4):
            left = await setting.read(left)
            right = await setting.read(right)
            await setting.settle()
        keys = {key for key, _, _ in setting.background.reads}
        assert setting.ranges[1].object.key in keys
        assert setting.ranges[4].object.key in keys

    asyncio.run(run())


def test_with_very_many_readers_nobody_reads_ahead() -> None:
    async def run() -> None:
        setting = Setting(total_bytes=4 * MIB)
        offsets = list(range(0, 100, 10))
        for _ in range(2):
            for i, offset in enumerate(offsets):
                offsets[i] = await setting.read(offset, 1)
        setting.background.reads.clear()
        for i, offset in enumerate(offsets):
            offsets[i] = await setting.read(offset, 1)
            await setting.settle()
        assert setting.background.reads == []

    asyncio.run(run())


def test_fetch_for_a_reader_that_is_gone_is_cancelled_when_another_reads() -> None:
    async def run() -> None:
        setting = Setting()
        setting.background.gate = asyncio.Event()
        offset = await setting.read(0)
        await setting.read(offset)
        await setting.settle()
        assert setting.background.waiting > 0
        now = asyncio.get_running_loop().time()
        asyncio.get_running_loop().time = lambda: now + GONE_AFTER_S + 1  # type: ignore[method-assign]
        await setting.read(120)
        await setting.settle()
        assert setting.background.waiting == 0

    asyncio.run(run())


def test_closed_stream_and_closing_cancel_what_is_under_way() -> None:
    async def run() -> None:
        for end in ("stream", "all"):
            setting = Setting()
            setting.background.gate = asyncio.Event()
            offset = await setting.read(0)
            await setting.read(offset)
            await setting.settle()
            assert setting.background.waiting > 0
            if end == "stream":
                setting.ahead.forget_stream(7)
                await setting.settle()
            else:
                await setting.ahead.close()
                await setting.settle()
            assert setting.background.waiting == 0
            assert setting.ahead.ahead_bytes == 0

    asyncio.run(run())


def test_object_that_vanished_ends_reading_ahead_without_an_error() -> None:
    async def run() -> None:
        setting = Setting()
        offset = await setting.read(0)
        offset = await setting.read(offset)
        await setting.settle()
        gone = setting.ranges[1].object.key
        await setting.store.delete([gone])
        while offset < 40:
            offset = await setting.read(offset, 5 * BODY) if offset < 35 else 40
            await setting.settle()
        await setting.ahead.close()

    asyncio.run(run())
