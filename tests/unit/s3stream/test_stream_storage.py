"""Streams end to end: append, durable, fetch, upload, crash, take over."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from unittest.mock import patch

import pytest
from msgspec import structs

from objectstore.errors import Corrupt, NotFound
from protocol.record_batch import assign, parse_header
from s3stream.batches import entry_of
from s3stream.errors import OffsetOutOfRange, StreamClosed
from s3stream.metadata.records import BlobRef
from s3stream.refs import ObjectRef
from s3stream.takeover import SourceRef, recover
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import SimulatedStore
from wal import Fenced, LogClosed, end_log, wal_log
from wal.format import Kind, StreamRange, decode_header

from .log_rig import (
    SMALL,
    WINDOW,
    flat,
    living,
    make_entry,
    offsets,
    open_new,
    read_all,
    run,
    take_over,
)


def test_what_was_acknowledged_before_a_crash_is_there_after_taking_over() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            streams = await open_new(life, [1, 2])
            written = {1: b"", 2: b""}
            for n in range(20):
                for one in streams.values():
                    entry = make_entry(one, records=3, value=b"%d" % n)
                    written[one.stream_id] += bytes(entry.buffer)
                    future = one.append(entry)
                await future
            assert [one.high_watermark for one in streams.values()] == [60, 60]
            assert await read_all(streams[1]) == written[1]
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop)
            for stream_id, one in opened.items():
                assert one.high_watermark == one.next_offset == 60
                assert one.fetch_cached(0, 60, 1000) is None
                assert await read_all(one, 400) == written[stream_id]
                assert one.entry.live == one.entry.total
            await opened[1].append(make_entry(opened[1]))
            assert offsets(await opened[1].fetch(58, 61, 1 << 20)) == [(57, 59), (60, 60)]
            await second.kill()

    run(body)


def test_uploaded_streams_are_read_from_their_data_object_and_taken_over() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            streams = await open_new(life, [1, 2, 3])
            written = {1: b"", 2: b"", 3: b""}
            for n in range(30):
                one = streams[1 + n % 3]
                entry = make_entry(one, value=bytes(1000))
                written[one.stream_id] += bytes(entry.buffer)
                await one.append(entry)
            await life.storage.uploader.upload()
            assert life.storage.registry.tail_bytes == 0
            assert life.storage.cache.pinned_bytes == 0
            assert {r.object.key[:5] for s in streams.values() for r in s.entry.ranges} == {"data/"}
            assert life.storage.wal.trim > 20
            life.storage.cache.shrink(0)
            for stream_id, one in streams.items():
                assert one.fetch_cached(0, 10, 1) is None
                assert await read_all(one) == written[stream_id]
            await streams[2].append(make_entry(streams[2]))
            written[2] += flat(streams[2].fetch_cached(10, 11, 1) or [])
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop)
            for stream_id, one in opened.items():
                assert await read_all(one) == written[stream_id]
            await second.storage.uploader.upload()
            await second.kill()
            third, opened = await take_over(store, 2, 3, loop)
            for stream_id, one in opened.items():
                assert await read_all(one) == written[stream_id]
                assert one.entry.live == one.entry.total
            await third.kill()

    run(body)


def test_an_idle_broker_asks_the_store_nothing_until_the_housekeeping_pass() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            streams = await open_new(life, [1])
            for _ in range(5):
                await streams[1].append(make_entry(streams[1]))
                await asyncio.sleep(1)
            await asyncio.sleep(10)
            before = store.requests.total()
            await asyncio.sleep(580)
            assert store.requests.total() == before
            await asyncio.sleep(60)
            assert life.storage.registry.tail_bytes == 0
            after = store.requests.total()
            assert after - before <= 3  # one data object, the record, the checkpoint
            await asyncio.sleep(86_400)
            assert store.requests.total() == after

    run(body)


def test_a_closed_broker_leaves_a_checkpoint_and_the_next_reads_little() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            streams = await open_new(life, [1, 2])
            for _ in range(100):
                await streams[1].append(make_entry(streams[1]))
            await life.close()
            await end_log(store, wal_log(1), WINDOW, b"process", Random(1))
            before = store.requests["get"]
            recovered = await recover(store, 1, life.storage.wal.next_seq)
            assert recovered.entries[1].next_offset == 100
            assert recovered.registry.folded_seq == life.storage.registry.folded_seq
            # The end, the header and index of the last object: not one for each of a hundred.
            assert store.requests["get"] - before < 8

    run(body)


def test_close_with_the_store_away_ends_at_its_deadline_and_loses_nothing_acknowledged() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            streams = await open_new(life, [1])
            await streams[1].append(make_entry(streams[1]))
            store.outage()
            pending = streams[1].append(make_entry(streams[1]))
            started = loop.time()
            await life.close(5.0)
            assert loop.time() - started < 6
            with pytest.raises(LogClosed):
                await pending
            store.recover()
            second, opened = await take_over(store, 1, 2, loop)
            assert opened[1].high_watermark in (1, 2)
            await second.kill()

    run(body)


def test_a_fetch_gives_whole_batches_within_its_bounds() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for _ in range(4):
                await stream.append(make_entry(stream, records=5))
            size = stream.size_bytes // 4

            async def check() -> None:
                assert offsets(await stream.fetch(7, 20, 1 << 20)) == [(5, 9), (10, 14), (15, 19)]
                assert offsets(await stream.fetch(7, 20, 1)) == [(5, 9)]
                assert offsets(await stream.fetch(0, 20, 2 * size)) == [(0, 4), (5, 9)]
                assert offsets(await stream.fetch(0, 20, 2 * size - 1)) == [(0, 4)]
                assert offsets(await stream.fetch(0, 14, 1 << 20)) == [(0, 4), (5, 9)]
                assert offsets(await stream.fetch(6, 8, 1 << 20)) == [(5, 9)]
                assert await stream.fetch(20, 20, 1) == []
                assert await stream.fetch(20, 30, 1) == []
                for bad in (-1, 21):
                    with pytest.raises(OffsetOutOfRange):
                        await stream.fetch(bad, 30, 1)

            await check()
            await life.storage.uploader.upload()
            life.storage.cache.shrink(0)
            assert stream.fetch_cached(0, 20, 1) is None
            await check()
            await stream.append(make_entry(stream))
            found = await stream.fetch(12, 21, 1 << 20)
            assert offsets(found) == [(10, 14), (15, 19), (20, 20)]

    run(body)


def test_a_batch_above_the_high_watermark_is_not_served() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            store.outage()
            stream.append(make_entry(stream))
            await asyncio.sleep(1)
            assert (stream.next_offset, stream.high_watermark) == (2, 1)
            assert offsets(stream.fetch_cached(0, 100, 1 << 20) or []) == [(0, 0)]
            assert stream.fetch_cached(1, 100, 1 << 20) == []
            assert offsets(await stream.fetch(0, 100, 1 << 20)) == [(0, 0)]

    run(body)


def test_readers_are_told_when_the_high_watermark_or_the_start_moves() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            stream = (await open_new(life, [1]))[1]
            told: list[tuple[int, int]] = []
            stream.on_advance.append(lambda s: told.append((s.start_offset, s.high_watermark)))
            await stream.append(make_entry(stream, records=2))
            await stream.append(make_entry(stream, records=2))
            await stream.trim(3)
            assert told == [(0, 2), (0, 4), (3, 4)]
            with pytest.raises(OffsetOutOfRange):
                stream.trim(5)
            await stream.trim(1)
            assert stream.start_offset == 3

    run(body)


def test_producers_wait_while_the_store_is_away_and_go_on_in_order() -> None:
    config = replace(SMALL, log_cache_bytes=100_000)

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, config) as (life, store):
            stream = (await open_new(life, [1]))[1]
            store.outage()
            done: list[int] = []

            async def produce(n: int) -> None:
                with await life.storage.admit(10_000):
                    future = stream.append(make_entry(stream, value=bytes(10_000)))
                done.append(n)
                await future

            tasks = []
            for n in range(30):
                tasks.append(loop.create_task(produce(n)))
                await asyncio.sleep(0)
            await asyncio.sleep(30)
            assert 5 <= len(done) < 10
            assert life.storage.cache.pinned_bytes < config.log_cache_bytes
            tasks[-1].cancel()
            store.recover()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert sorted(done) == list(range(29))
            # Those who waited were let in first come first served.
            assert done[10:] == list(range(10, 29))
            assert stream.high_watermark == 29
            assert life.storage.pressure.admitted_bytes == life.storage.pressure.waiting == 0

    run(body)


def test_replies_lost_by_the_store_duplicate_nothing() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            store.lose_reply("wal/*", times=5)
            store.lose_reply("data/*", times=2)
            written = b""
            for _ in range(10):
                entry = make_entry(stream, value=bytes(2000))
                written += bytes(entry.buffer)
                await stream.append(entry)
            await life.storage.uploader.upload()
            assert store.fired["lost_reply"] == 7 or store.fired["lost_reply"] == 6
            life.storage.cache.shrink(0)
            assert await read_all(stream) == written
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop)
            assert await read_all(opened[1]) == written
            await second.kill()

    run(body)


def test_who_was_replaced_stops_and_says_so() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            await end_log(store, wal_log(1), WINDOW, b"other", Random(1))
            with pytest.raises(Fenced):
                await stream.append(make_entry(stream))
            with pytest.raises(Fenced):
                await life.task
            with pytest.raises(Fenced):
                await life.storage.admit(1)
            with pytest.raises(Fenced):
                stream.append(make_entry(stream))
            assert stream.high_watermark == 1
            await life.storage.close(1.0)

    run(body)


def test_a_large_batch_lies_out_of_line_until_it_is_uploaded() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            large = make_entry(stream, records=2, value=bytes(40_000))
            draft = bytearray(large.buffer)
            assign(draft, 0, 99)  # as the client sent it: offset and epoch come later
            draft_view = memoryview(draft)
            reference = await life.storage.write_large_batch(
                entry_of(1, draft_view, parse_header(draft_view))
            )
            assert life.storage.numbers.lowest_unsettled == 0
            await stream.append(structs.replace(large, reference=reference))
            assert life.storage.numbers.lowest_unsettled == 1
            await stream.append(make_entry(stream))
            written = await read_all(stream)
            assert reference.key in life.storage.references()
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop)
            assert await read_all(opened[1]) == written
            assert reference.key in second.storage.references()
            await second.storage.uploader.upload()
            assert reference.key not in second.storage.references()
            assert await read_all(opened[1]) == written
            await second.kill()

    run(body)


def test_batches_are_found_by_time_wherever_they_lie() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            stream = (await open_new(life, [1]))[1]
            times = [10, 50, 20, 60, 60, 30]
            for n, time in enumerate(times):
                await stream.append(make_entry(stream, records=2, timestamp=time))
                if n == 2:
                    await life.storage.uploader.upload()

            async def found(time: int) -> int | None:
                batch = await stream.find_batch_by_timestamp(time)
                return None if batch is None else parse_header(batch).base_offset

            for cached in (True, False):
                if not cached:
                    await life.storage.uploader.upload()
                    life.storage.cache.shrink(0)
                assert [await found(t) for t in (0, 10, 11, 50, 51, 60, 61)] == [
                    0, 0, 2, 2, 6, 6, None,
                ]  # fmt: skip
                newest = await stream.max_timestamp()
                assert newest is not None and newest[:2] == (60, 7)
            await stream.trim(10)
            assert await found(0) == 10
            assert await found(31) is None
            newest = await stream.max_timestamp()
            assert newest is not None and newest[:2] == (30, 11)
            await stream.trim(12)
            assert await stream.max_timestamp() is None

    run(body)


def test_a_trim_that_overtakes_a_search_by_time_is_no_error() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for n in range(6):
                await stream.append(make_entry(stream, timestamp=1000 + n))
            await life.storage.uploader.upload()
            life.storage.cache.shrink(0)
            ranges = life.storage.reader.stream_ranges

            async def overtaken(ref: ObjectRef, stream_id: int) -> list[StreamRange]:
                await stream.trim(min(stream.start_offset + 2, 5))
                return await ranges(ref, stream_id)

            with patch.object(life.storage.reader, "stream_ranges", overtaken):
                found = await stream.find_batch_by_timestamp(1000)
            assert found is not None and offsets([found]) == [(5, 5)]

            fetch = stream.fetch

            async def late(offset: int, end_offset: int, max_bytes: int) -> list[memoryview]:
                if offset == 6:
                    await stream.trim(7)
                return await fetch(offset, end_offset, max_bytes)

            for n in (9000, 500):
                await stream.append(make_entry(stream, timestamp=n))
            await stream.trim(6)
            with patch.object(stream, "fetch", late):
                newest = await stream.max_timestamp()
            assert newest is not None and newest[:2] == (500, 7)

    run(body)


def test_a_deleted_stream_leaves_nothing_behind_and_holds_up_nobody() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            streams = await open_new(life, [1, 2])
            for stream in streams.values():
                await stream.append(make_entry(stream))
            await life.storage.uploader.upload()
            shared = streams[1].entry.ranges[0].object.key
            last = streams[1].append(make_entry(streams[1]))
            await life.storage.drop_streams([1, 77])
            assert last.done()
            with pytest.raises(StreamClosed):
                streams[1].append(make_entry(streams[1]))
            assert life.storage.stream(1) is None
            assert shared in life.storage.references()
            await life.storage.drop_streams([2])
            assert shared not in life.storage.references()
            assert life.storage.registry.tail_bytes == 0
            await life.storage.uploader.upload()
            assert life.storage.cache.pinned_bytes == 0

    run(body)


def test_a_tail_that_cannot_be_read_delays_only_its_own_stream() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            streams = await open_new(life, [1])
            await streams[1].append(make_entry(streams[1]))
            lost = streams[1].entry.ranges[0].object.key
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop)
            await store.inner.delete([lost])
            other = (await open_new(second, [2]))[2]
            for stream in (other, opened[1]):
                await stream.append(make_entry(stream))
            await second.storage.uploader.upload()
            assert other.entry.ranges[0].object.key.startswith("data/")
            assert opened[1].entry.ranges[0].object.key == lost
            assert opened[1].entry.ranges[1].object.key.startswith("wal/")
            # Nor does it start upload after upload.
            before = store.requests.total()
            await asyncio.sleep(500)
            assert store.requests.total() == before
            with pytest.raises(NotFound, match="wal/"):
                await opened[1].fetch(0, 1, 1)
            await second.kill()

    run(body)


def test_a_stream_opened_again_after_its_closing_goes_on_where_it_was() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            await life.storage.close_streams([1])
            with pytest.raises(StreamClosed):
                stream.append(make_entry(stream))
            await life.storage.uploader.upload()
            assert life.storage.registry.entries[1].ranges[0].object.key.startswith("wal/")
            again = (await open_new(life, [1], epoch=3))[1]
            await again.append(make_entry(again))
            assert offsets(await again.fetch(0, 2, 1 << 20)) == [(0, 0), (1, 1)]
            assert again.entry.leader_epochs == [(0, 0), (3, 1)]
            await life.storage.uploader.upload()
            assert {one.object.key[:5] for one in again.entry.ranges} == {"data/"}
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop)
            assert offsets(await opened[1].fetch(0, 2, 1 << 20)) == [(0, 0), (1, 1)]
            await second.kill()

    run(body)


def test_a_consumer_that_catches_up_is_served_by_few_large_reads() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            for _ in range(60):
                await stream.append(make_entry(stream, value=bytes(5000)))
            written = await read_all(stream)
            await life.storage.uploader.upload()
            life.storage.cache.shrink(0)
            before = store.requests.total()
            assert await read_all(stream, 5000) == written
            assert store.requests.total() - before < 6

    run(body)


def test_a_fetch_does_not_wait_for_a_batch_that_hardly_fits() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for _ in range(2):
                await stream.append(make_entry(stream, value=bytes(1_000_000)))
            await life.storage.uploader.upload()
            life.storage.cache.shrink(0)
            counters = life.storage.block_cache.counters
            assert offsets(await stream.fetch(0, 2, 1 << 20)) == [(0, 0)]
            assert counters.memory_hits == 0, "the second one was looked for, too"

    run(body)


def test_what_a_log_never_held_is_not_opened_from_it() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            await open_new(life, [1])
            await life.kill()
            second, _ = await take_over(store, 1, 2, loop)
            source = SourceRef(1, _recovery_of(store))
            with pytest.raises(Corrupt, match=r"nothing of streams \[5\]"):
                await second.storage.open_streams([(5, 1, (0, 2, 0))], source)
            assert not second.task.done()
            await second.kill()

    run(body)


def _recovery_of(store: SimulatedStore) -> BlobRef:
    """The only object of kind RECOVERY in the bucket."""
    for key, (data, _) in store.inner._objects.items():
        if key.startswith("data/"):
            header = decode_header(data, key)
            if header.kind == Kind.RECOVERY:
                return BlobRef(key, header.write_id, len(data))
    raise AssertionError("no recovery object")


def test_opening_and_dropping_may_be_cancelled_and_asked_for_again() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            store.outage(for_s=5)
            for _ in range(3):
                opening = loop.create_task(open_new(life, [1, 2]))
                await asyncio.sleep(1)
                opening.cancel()
            streams = await open_new(life, [1, 2])
            assert await open_new(life, [1, 2]) == streams
            await streams[1].append(make_entry(streams[1]))
            await asyncio.gather(*[life.storage.drop_streams([1]) for _ in range(3)])
            assert list(life.storage.registry.entries) == [2]
            await life.kill()
            second, opened = await take_over(store, 1, 2, loop)
            assert list(opened) == [2]
            await second.kill()

    run(body)


def test_a_higher_epoch_may_be_opened_over_an_open_stream() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            # Still on its way, and a control record comes before the batches of its object.
            late = stream.append(make_entry(stream))
            again = (await open_new(life, [1], epoch=4))[1]
            assert again is stream and stream.epoch == 4 and late.done()
            await stream.append(make_entry(stream))
            assert stream.entry.leader_epochs == [(0, 0), (4, 2)]

    run(body)
