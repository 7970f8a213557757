"""Streams end to end: append, durable, fetch, upload, crash, take over."""

from __future__ import annotations

from tests.simulation.loop import SimulatedLoop

from .log_rig import flat, living, make_entry, offsets, open_new, read_all, run, take_over


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
