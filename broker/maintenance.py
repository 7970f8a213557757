"""What is done now and then: retention, offsets that expire, the internal topic's compaction.

A pass looks at memory; it asks the store nothing unless something goes, or the oldest that a
partition has was not looked into yet. While no client does anything, retention waits for the
housekeeping of an idle broker, and looks no more often than that.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

from broker.coordinator import OFFSETS_TOPIC
from objectstore.errors import StoreError
from protocol.batch_header import HEADER_SIZE
from protocol.errors import KafkaError
from s3stream.errors import StreamError
from wal.errors import Fenced, LogError

from .partition.log_starts import LogStarts
from .partition.partition import Partition

if TYPE_CHECKING:
    from .node import Node

log = logging.getLogger(__name__)

# The internal topic is rewritten when it holds so many bytes, and so many times what is live.
COMPACT_FROM_BYTES = 1 << 20
COMPACT_FACTOR = 4
BATCH_BYTES = 1 << 20
# Lengths, deltas and attributes of a record, at their longest.
_RECORD_OVERHEAD = 32


class Maintenance:
    """One task; nothing here may hold up a request."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._log_starts = LogStarts()
        self._looked_at = -math.inf

    async def run(self) -> None:
        """Owner's task: for ever."""
        while True:
            await asyncio.sleep(self._interval_s())
            await self.run_once()

    def _interval_s(self) -> float:
        config = self._node.config
        return (
            min(
                config.int("log.retention.check.interval.ms"),
                config.int("offsets.retention.check.interval.ms"),
            )
            / 1000
        )

    async def run_once(self) -> None:
        """One pass over all partitions that this broker leads; each part by itself."""
        await self._part("retention", self._apply_retention())
        await self._part("expiry of group offsets", self._node.groups.expire())
        for partition in self._node.partitions.all():
            partition.producers.expire(self._node.environment.now_ms())
            if partition.topic == OFFSETS_TOPIC and not partition.closed:
                name = f"compaction of {partition.topic}-{partition.index}"
                await self._part(name, self._compact(partition))

    async def _part(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except Fenced:
            raise
        except (StoreError, KafkaError, StreamError, LogError) as error:
            log.warning("%s is put off: %s", name, error)

    async def _apply_retention(self) -> None:
        storage = self._node.storage
        now = asyncio.get_running_loop().time()
        between_s = storage.config.housekeeping_s if storage.is_idle else 0.0
        if storage.put_off_s() > 0 or now < self._looked_at + between_s:
            return
        self._looked_at = now
        own_ms = self._node.environment.now_ms()
        partitions = self._node.partitions.all()
        starts = await self._log_starts.due(partitions, own_ms)
        if not starts:
            return
        # Nothing goes by a clock that runs ahead of the store's.
        store_ms = await self._node.store.date_ms()
        if store_ms < own_ms:
            starts = await self._log_starts.due(partitions, store_ms)
        if starts:
            await storage.trim_streams(starts)
            log.info("retention moved the log start of %d partitions", len(starts))

    async def _compact(self, partition: Partition) -> None:
        """Write what is live of an offsets partition anew at its end, and drop all before it.

        Only when nothing is on its way: the copy must say what the log says below it, no less and
        no more, and it is appended before anything else can be.
        """
        stream = partition.stream
        if stream.size_bytes < COMPACT_FROM_BYTES:
            return
        try:
            end_offset, live = self._node.groups.compaction_snapshot(partition.index)
        except KafkaError:
            return
        live_bytes = sum(len(key) + len(value) + _RECORD_OVERHEAD for key, value in live)
        if stream.size_bytes < COMPACT_FACTOR * live_bytes or end_offset != stream.next_offset:
            return
        limit = partition.config.max_message_bytes
        if any(
            len(key) + len(value) + _RECORD_OVERHEAD > limit - HEADER_SIZE for key, value in live
        ):
            return  # written when the limit was higher
        batches = _split(live, limit)
        # No await before the last: what a group appends must come behind the whole copy.
        copies = [partition.append_internal(batch) for batch in batches]
        for _, durable in copies:
            await durable
        await stream.trim(end_offset)
        log.info("compacted %s-%d: %d live records", partition.topic, partition.index, len(live))


def _split(
    records: Sequence[tuple[bytes, bytes]], limit_bytes: int
) -> list[list[tuple[bytes, bytes]]]:
    """Runs that make batches below the limit; one record at least in each."""
    runs: list[list[tuple[bytes, bytes]]] = []
    left = 0
    for key, value in records:
        size = len(key) + len(value) + _RECORD_OVERHEAD
        if not runs or size > left:
            runs.append([])
            left = min(limit_bytes, BATCH_BYTES) - HEADER_SIZE
        runs[-1].append((key, value))
        left -= size
    return runs
