"""Retention of a whole broker: what a consumer still sees, some time after it was written."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import broker.maintenance
import broker.partition.log_starts
from broker.maintenance import Maintenance
from broker.partition.log_starts import LogStarts
from broker.partition.partition import READ_UNCOMMITTED, Partition
from broker.verify import verify

from .api.requests import produce
from .node_rig import Client, Rig, batch, run

MINUTE = 60_000
# The broker's own passes would come between.
BY_HAND = {
    "log_retention_check_interval_ms": str(10**9),
    "offsets_retention_check_interval_ms": str(10**9),
}
# Retention waits while a broker is idle.
HOUSEKEEPING_S = 601


async def write(rig: Rig, client: Client, *, every_s: int, times: int, size: int = 100) -> None:
    for _ in range(times):
        await client.ask(
            produce([("t", 0, batch(value=bytes(size), timestamp=rig.loop.now_ms()))]), 12
        )
        await asyncio.sleep(every_s)


async def into_objects(rig: Rig) -> None:
    """Nothing of it is in memory any more."""
    assert rig.node.storage is not None
    await rig.node.storage.uploader.upload()
    rig.node.storage.cache.shrink(0)


async def oldest_ms(partition: Partition) -> int:
    """Time of the first record that a consumer gets."""
    start = partition.log_start_offset
    assert await partition.read(start, 1, READ_UNCOMMITTED)
    records, _ = await partition.read_records(start, 1)
    return records[0].timestamp


def test_records_of_one_object_go_after_retention_ms_and_at_most_segment_ms_more() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(retention_ms=str(5 * MINUTE), segment_ms=str(MINUTE))
        client = rig.client()
        await write(rig, client, every_s=5, times=110)
        await into_objects(rig)
        assert len(partition.stream.entry.ranges) == 1
        maintenance = Maintenance(rig.node)
        for _ in range(10):
            await write(rig, client, every_s=1, times=1)
            await maintenance.run_once()
            await asyncio.sleep(1)
            age_ms = rig.loop.now_ms() - await oldest_ms(partition)
            assert 4 * MINUTE < age_ms <= 6 * MINUTE + 1000
            await asyncio.sleep(18)
        entry = partition.stream.entry
        assert entry.ranges[0].base_offset < entry.start_offset < entry.ranges[0].end_offset
        await rig.node.storage.flush()
        found = await verify(rig.store)
        assert found.contents.amount.records == 120

    run(body, **BY_HAND)


def test_without_a_segment_ms_records_of_one_block_stay_until_the_newest_is_too_old() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(retention_ms=str(5 * MINUTE))
        client = rig.client()
        await write(rig, client, every_s=10, times=60)
        await into_objects(rig)
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == 0
        await asyncio.sleep(HOUSEKEEPING_S)
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == partition.log_end_offset == 60

    run(body, **BY_HAND)


def test_blocks_of_an_object_go_by_themselves() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(retention_ms=str(5 * MINUTE))
        client = rig.client()
        await write(rig, client, every_s=30, times=20, size=400_000)  # two in a block
        await into_objects(rig)
        assert len(partition.stream.entry.ranges) == 1
        await write(rig, client, every_s=1, times=1)
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == 10
        assert rig.loop.now_ms() - await oldest_ms(partition) <= 6 * MINUTE

    run(body, **BY_HAND)


def test_retention_by_size_goes_into_an_object_and_never_leaves_less_than_asked() -> None:
    async def body(rig: Rig) -> None:
        size = len(batch(value=bytes(400_000)))
        partition = await rig.topic(retention_bytes=str(5 * size), retention_ms="-1")
        client = rig.client()
        await write(rig, client, every_s=1, times=20, size=400_000)
        await into_objects(rig)
        assert len(partition.stream.entry.ranges) == 1
        maintenance = Maintenance(rig.node)
        for _ in range(3):
            await maintenance.run_once()
            await asyncio.sleep(1)
            assert partition.log_start_offset == 14  # two in a block
        await write(rig, client, every_s=1, times=3, size=400_000)
        await maintenance.run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == 18

    run(body, **BY_HAND)


def test_an_idle_broker_looks_no_more_often_than_its_housekeeping() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(retention_ms=str(5 * MINUTE), segment_ms="1")
        client = rig.client()
        await write(rig, client, every_s=10, times=60)
        looks: list[float] = []

        class Watched(LogStarts):
            async def due(self, partitions, now_ms):  # type: ignore[no-untyped-def]
                looks.append(rig.loop.time())
                return await super().due(partitions, now_ms)

        with patch.object(broker.maintenance, "LogStarts", Watched):
            maintenance = Maintenance(rig.node)
        await asyncio.sleep(10)
        idle_from = rig.loop.time()
        for _ in range(100):
            await maintenance.run_once()
            await asyncio.sleep(60)
        assert looks and looks[0] >= idle_from + 570
        assert all(two - one >= 600 for one, two in zip(looks[::2], looks[2::2], strict=False))
        assert partition.log_start_offset == 60

    run(body, **BY_HAND)


def test_what_was_found_is_not_looked_for_again() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(retention_ms=str(60 * MINUTE), segment_ms=str(MINUTE))
        client = rig.client()
        await write(rig, client, every_s=10, times=30)
        await into_objects(rig)
        starts = LogStarts()
        asked: list[str] = []
        index = rig.node.storage.reader.index

        async def watched(ref):  # type: ignore[no-untyped-def]
            asked.append(ref.key)
            return await index(ref)

        rig.node.storage.reader.index = watched  # type: ignore[method-assign]
        assert await starts.due([partition], rig.loop.now_ms()) == []
        assert asked
        asked.clear()
        for _ in range(5):
            assert await starts.due([partition], rig.loop.now_ms()) == []
        assert not asked
        later = rig.loop.now_ms() + 58 * MINUTE
        assert await starts.due([partition], later) == [(partition.stream.stream_id, 18)]
        assert asked

    run(body, **BY_HAND)


def test_one_pass_asks_the_store_for_a_bounded_number_of_things_and_the_next_goes_on() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(partitions=6, retention_ms=str(MINUTE), segment_ms="1000")
        client = rig.client()
        for _ in range(10):
            for n in range(6):
                data = batch(value=bytes(100), timestamp=rig.loop.now_ms())
                await client.ask(produce([("t", n, data)]), 12)
            await asyncio.sleep(20)
        await into_objects(rig)
        partitions = [rig.node.partitions.get("t", n) for n in range(6)]
        wanted = [one for one in partitions if one is not None]
        starts = LogStarts()
        now_ms = rig.loop.now_ms()
        with patch.object(broker.partition.log_starts, "BLOCKS_AT_MOST", 2):
            counts = []
            for _ in range(3):
                due = await starts.due(wanted, now_ms)
                counts.append(len(due))
                await rig.node.storage.trim_streams(due)
        assert counts == [2, 2, 2]
        assert all(one.log_start_offset > 5 for one in wanted)

    run(body, **BY_HAND)


def test_what_retention_let_go_is_left_out_when_it_is_most_of_what_a_partition_has() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(retention_ms=str(5 * MINUTE))
        client = rig.client()
        await write(rig, client, every_s=30, times=24, size=400_000)  # two in a block
        await into_objects(rig)
        await write(rig, client, every_s=1, times=1)
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == 14
        compactor = rig.node.upkeep.compactor
        assert compactor is not None
        await compactor.compact_once()
        entry = partition.stream.entry
        assert (entry.ranges[0].base_offset, entry.trimmed.batch_count) == (14, 14)
        await rig.node.storage.flush()
        found = await verify(rig.store)
        assert found.contents.amount.records == 11

    run(body, **BY_HAND)
