"""Housekeeping of a whole broker: the internal topic's compaction, retention, one part apart."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import broker.maintenance
from broker.maintenance import Maintenance
from broker.partition.partition import Partition
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest

from .api.requests import produce
from .node_rig import Client, Rig, batch, run

GROUP = "g"


async def coordinator(rig: Rig, client: Client) -> Partition:
    for _ in range(50):
        request = FindCoordinatorRequest(key=GROUP, key_type=0)
        answer = await client.ask(request, 3)
        if answer.error_code == 0:
            break
        await asyncio.sleep(0.5)
    found = rig.node.partitions.get("__consumer_offsets", rig.node.groups.partition_for(GROUP))
    assert found is not None
    return found


async def commit(client: Client, offset: int, partitions: int) -> None:
    topic = OffsetCommitRequest.OffsetCommitRequestTopic
    rows = [
        topic.OffsetCommitRequestPartition(
            partition_index=n,
            committed_offset=offset + n,
            committed_leader_epoch=-1,
            committed_metadata="x" * 100,
        )
        for n in range(partitions)
    ]
    request = OffsetCommitRequest(
        group_id=GROUP,
        generation_id_or_member_epoch=-1,
        member_id="",
        group_instance_id=None,
        topics=[topic(name="t", partitions=rows)],
    )
    for _ in range(50):
        answer = await client.ask(request, 8)
        told = {p.error_code for t in answer.topics for p in t.partitions}
        if told == {0}:
            return
        assert told <= {int(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS), 15, 16}, told
        await asyncio.sleep(0.5)
    raise AssertionError("not committed")


async def committed(client: Client) -> dict[int, int]:
    request = OffsetFetchRequest(group_id=GROUP, topics=None, require_stable=False)
    answer = await client.ask(request, 7)
    return {p.partition_index: p.committed_offset for t in answer.topics for p in t.partitions}


def test_compaction_keeps_what_is_live_in_batches_below_the_limit() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(partitions=40)
        client = rig.client()
        partition = await coordinator(rig, client)
        for n in range(30):
            await commit(client, n, 40)
        sizes: list[int] = []
        append = partition.append_internal

        def watched(records: Any) -> Any:
            begun = append(records)
            sizes.append(len(records))
            return begun

        partition.append_internal = watched  # type: ignore[method-assign]
        before = partition.stream.size_bytes
        maintenance = Maintenance(rig.node)
        with (
            patch.object(broker.maintenance, "COMPACT_FROM_BYTES", 1000),
            patch.object(broker.maintenance, "BATCH_BYTES", 2000),
        ):
            await maintenance.run_once()
            assert len(sizes) > 2 and sum(sizes) >= 40
            assert partition.log_start_offset == partition.log_end_offset - sum(sizes)
            assert partition.stream.size_bytes < before / 2 or partition.log_start_offset > 0
            sizes.clear()
            await maintenance.run_once()
            assert not sizes, "there is nothing more to gain"
        await commit(client, 100, 1)
        # Read anew, as after a move of the partition.
        rig.node.groups.resign(partition.index)
        rig.node._leading._loading.lead(partition)  # type: ignore[union-attr]
        await asyncio.sleep(5)
        assert await committed(client) == {n: 29 + n for n in range(40)} | {0: 100}

    run(body)


def test_a_part_that_fails_stops_no_other() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(retention_ms="1000")
        client = rig.client()
        await client.ask(produce([("t", 0, batch(3))]), 12)

        async def failing() -> None:
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)

        rig.node.groups.expire = failing  # type: ignore[method-assign]
        await asyncio.sleep(5)
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == 3

    run(body)


def test_retention_by_size_drops_whole_ranges_and_never_more_than_asked() -> None:
    async def body(rig: Rig) -> None:
        client = rig.client()
        size = len(batch(value=bytes(1000)))
        partition = await rig.topic(retention_bytes=str(3 * size), retention_ms="-1")
        for _ in range(10):
            await client.ask(produce([("t", 0, batch(value=bytes(1000)))]), 12)
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == 7
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == 7

    run(body)


def test_a_dynamic_change_of_the_producers_expiry_reaches_partitions_and_uploads() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        await rig.node.controller.alter_configs("broker", "", {"producer.id.expiration.ms": "5000"})
        await asyncio.sleep(1)
        assert partition.producers.expiration_ms == 5000
        assert rig.node.storage.uploader.producer_expiration_ms == 5000
        client = rig.client()
        await client.ask(produce([("t", 0, batch(producer=(7, 0, 0)))]), 12)
        assert len(partition.producers) == 1
        await asyncio.sleep(6)
        await Maintenance(rig.node).run_once()
        assert len(partition.producers) == 0

    run(body)
