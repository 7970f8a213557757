"""A partition whose older ranges lie in index objects: read, proven, shown, and let go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from unittest.mock import patch

import pytest

import broker.node
from broker.config import BrokerConfig
from broker.inspect import lines_of
from broker.maintenance import Maintenance
from broker.partition.partition import READ_UNCOMMITTED, Partition
from broker.storage_config import stream_config
from broker.verify import Fault, verify
from objectstore.errors import Corrupt
from protocol.record_batch import iter_headers
from s3stream.config import S3StreamConfig

from .api.requests import produce
from .node_rig import Rig, batch, run

UPLOADS = 20
MINUTE = 60_000


def short(config: BrokerConfig, *, billed: bool) -> S3StreamConfig:
    return replace(stream_config(config, billed=billed), history_ranges=4, history_keep=2)


def with_history(
    body: Callable[[Rig, Partition], Awaitable[None]], *, every_s: int = 1, **configs: str
) -> None:
    """A partition with one upload for each of its batches, of 1000 bytes and one record."""

    async def main(rig: Rig) -> None:
        partition = await rig.topic("t", 1, **configs)
        client = rig.client()
        for _ in range(UPLOADS):
            data = batch(value=bytes(1000), timestamp=rig.loop.now_ms())
            await client.ask(produce([("t", 0, data)]), 12)
            await rig.node.storage.uploader.upload()
            await asyncio.sleep(every_s)
        rig.node.storage.cache.shrink(0)
        assert len(partition.stream.entry.history) >= 3
        await body(rig, partition)

    with patch.object(broker.node, "stream_config", short):
        run(
            main,
            log_retention_check_interval_ms=str(10**9),
            offsets_retention_check_interval_ms=str(10**9),
            compaction_budget_bytes_per_second="0",
        )


def test_verify_proves_what_index_objects_name() -> None:
    async def body(rig: Rig, partition: Partition) -> None:
        found = await verify(rig.store)
        assert found.contents.amount.records == UPLOADS
        await partition.stream.trim(3)
        await rig.node.storage.checkpointer.write()
        assert rig.node.storage.archiver.shortened == 1
        found = await verify(rig.store)
        assert found.contents.amount.records == UPLOADS - 3

    with_history(body)


def test_verify_finds_a_damaged_or_missing_index_object() -> None:
    async def body(rig: Rig, partition: Partition) -> None:
        index = partition.stream.entry.history[1].object
        data, modified_ms = rig.store._objects[index.key]
        changed = bytearray(data)
        changed[-9] ^= 1
        rig.store._objects[index.key] = (bytes(changed), modified_ms)
        with pytest.raises(Corrupt, match=index.key):
            await verify(rig.store)
        del rig.store._objects[index.key]
        with pytest.raises(Fault, match=index.key):
            await verify(rig.store)

    with_history(body)


def test_inspect_shows_ranges_of_index_objects() -> None:
    async def body(rig: Rig, partition: Partition) -> None:
        entry = partition.stream.entry
        lines = [line async for line in lines_of(rig.store, "t/0")]
        assert sum(" batches 10" in line and " in data/" in line for line in lines) == UPLOADS
        key = entry.history[0].object.key
        lines = [line async for line in lines_of(rig.store, key)]
        assert any("HISTORY" in line for line in lines)
        assert sum("0..1 " in line or "3..4 " in line for line in lines) == 2

    with_history(body)


def test_a_consumer_reads_from_the_first_record_to_the_last() -> None:
    async def body(rig: Rig, partition: Partition) -> None:
        offset, found = 0, []
        while offset < partition.log_end_offset:
            for view in await partition.read(offset, 1, READ_UNCOMMITTED):
                found += [header.base_offset for _, header in iter_headers(view)]
            offset = found[-1] + 1
        assert found == list(range(UPLOADS))
        newest = await partition.max_timestamp()
        assert newest is not None and newest.offset == UPLOADS - 1

    with_history(body)


def test_retention_goes_into_index_objects_by_age_and_by_size() -> None:
    async def body(rig: Rig, partition: Partition) -> None:
        rig.node.storage.touch()
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        # Of twenty, one each minute, those of the last ten and a half stay.
        assert partition.log_start_offset == 10
        size = partition.stream.entry.ranges[-1].size_bytes
        configs = {"retention.bytes": str(7 * size + 1), "retention.ms": "-1"}
        partition.config = partition.config.with_overrides(configs)
        rig.node.storage.touch()
        await Maintenance(rig.node).run_once()
        await asyncio.sleep(1)
        assert partition.log_start_offset == UPLOADS - 8
        await rig.node.storage.checkpointer.write()
        found = await verify(rig.store)
        assert 8 <= found.contents.amount.records <= 12

    with_history(body, every_s=60, retention_ms=str(10 * MINUTE + 30_000))
