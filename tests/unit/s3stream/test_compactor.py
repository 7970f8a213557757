"""The task that merges history, on a running broker's streams."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

from s3stream.compaction.compactor import Compactor
from s3stream.compaction.plan import CompactionConfig
from s3stream.compaction.worker import InProcessRunner
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import SimulatedStore

from .log_rig import SMALL, Life, living, make_entry, open_new, read_all, run

COMPACTION = CompactionConfig(fan_in=2)


def compactor_of(
    life: Life, bucket: SimulatedStore, config: CompactionConfig = COMPACTION
) -> Compactor:
    storage = life.storage
    return Compactor(
        storage.registry,
        storage.numbers,
        storage.reader,
        InProcessRunner(bucket, config, rng=Random(3)),
        config,
        append=storage.append_control,
        rng=Random(4),
    )


def test_a_tiny_object_is_not_rewritten_again_and_again() -> None:
    """An object's header is larger than the smallest batch: it is no waste."""

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, bucket):
            (stream,) = (await open_new(life, [1])).values()
            await stream.append(make_entry(stream, value=b"v"))
            life.storage.uploader.ask()
            await asyncio.sleep(1)
            compactor = compactor_of(life, bucket)
            assert not await compactor.compact_once()
            assert compactor.space_amplification() == 1.0

    run(body)


def test_a_merged_object_that_nobody_needs_any_more_is_let_go_of_on_an_idle_broker() -> None:
    """Until a checkpoint recovery would read it again, and that comes with the next upload."""

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, bucket):
            streams = await open_new(life, [1, 2])
            for _ in range(2):
                for stream in streams.values():
                    await stream.append(make_entry(stream, value=bytes(300)))
                life.storage.uploader.ask()
                await asyncio.sleep(1)
            assert await compactor_of(life, bucket).compact_once()
            merged = streams[1].entry.ranges[0].object.key
            await life.storage.drop_streams([1, 2])
            assert merged in life.storage.registry.references
            await asyncio.sleep(2 * SMALL.housekeeping_s)
            assert merged not in life.storage.registry.references

    run(body)


def test_merging_is_put_off_while_nobody_does_anything() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, bucket):
            streams = await open_new(life, [1, 2])
            for _ in range(2):
                for stream in streams.values():
                    await stream.append(make_entry(stream, value=bytes(300)))
                life.storage.uploader.ask()
                await asyncio.sleep(1)
            waits = [700.0]
            compactor = compactor_of(life, bucket)
            compactor._put_off_s = lambda: waits[0]
            running = asyncio.create_task(compactor.run())
            compactor.notice()
            await asyncio.sleep(600)
            assert compactor.merges == 0
            # It asks again when the time that it was told is over.
            await asyncio.sleep(200)
            assert compactor.merges == 0
            waits[0] = 0.0
            await asyncio.sleep(700)
            assert compactor.merges == 1
            running.cancel()
            await asyncio.wait([running])

    run(body)


def test_what_lies_below_a_streams_start_is_left_out_when_it_is_half_of_the_stream() -> None:
    async def body(loop: SimulatedLoop) -> None:
        config = replace(
            SMALL,
            log_cache_bytes=8 << 20,
            upload_trigger_bytes=8 << 20,
            adopt_share_bytes=1 << 30,
        )
        async with living(loop, config) as (life, bucket):
            streams = await open_new(life, [1, 2])
            for n in range(6):  # each fills a block
                with await life.storage.admit(700_000):
                    last = streams[1].append(make_entry(streams[1], value=bytes([n]) * 700_000))
            await streams[2].append(make_entry(streams[2], value=bytes(1000)))
            await last
            await life.storage.uploader.upload()
            life.storage.cache.shrink(0)
            entry = streams[1].entry
            assert len(entry.ranges) == 1
            compactor = compactor_of(life, bucket)
            await streams[1].trim(2)
            assert not await compactor.compact_once()
            await streams[1].trim(4)
            whole = await read_all(streams[1])
            assert await compactor.compact_once()
            assert (entry.ranges[0].base_offset, entry.ranges[0].end_offset) == (4, 6)
            assert entry.ranges[0].object.size_bytes < 1_500_000
            assert (entry.live.batch_count, entry.trimmed.batch_count) == (2, 4)
            assert await read_all(streams[1]) == whole
            assert compactor.space_amplification() > 2
            assert not await compactor.compact_once()
            assert compactor.space_amplification() == 1.0

    run(body)


def test_a_range_is_not_copied_where_no_block_of_it_could_be_left_out() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, bucket):
            (stream,) = (await open_new(life, [1])).values()
            for _ in range(20):
                last = stream.append(make_entry(stream, value=bytes(1000)))
            await last
            await life.storage.uploader.upload()
            await stream.trim(19)
            compactor = compactor_of(life, bucket)
            assert not await compactor.compact_once()
            assert len(stream.entry.ranges) == 1

    run(body)
