"""Gives the group coordinator its partitions to load, and tells it of topics that are gone.

A partition that cannot be loaded is tried again, ever more slowly, and told of once: its groups
are not served meanwhile, everything else is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from broker.coordinator import GroupCoordinator
from protocol.errors import KafkaError

from .partition.coordinator_log import PartitionLog
from .partition.partition import Partition

log = logging.getLogger(__name__)

RETRY_S = 1.0
SLOWEST_RETRY_S = 30.0
# What is wrong with the records themselves does not heal by waiting a second.
BROKEN_RETRY_S = 60.0


class GroupLoading:
    """confirm_leader: see broker.confirmation."""

    def __init__(
        self, groups: GroupCoordinator, confirm_leader: Callable[[], Awaitable[None]]
    ) -> None:
        self._groups = groups
        self._confirm = confirm_leader
        self._loading: dict[Partition, asyncio.Task[None]] = {}
        self._deleted: list[dict[str, UUID]] = []
        self._wake = asyncio.Event()

    def lead(self, partition: Partition) -> None:
        """This broker leads a partition of `__consumer_offsets`."""
        task = asyncio.create_task(self._load(partition), name=f"load groups {partition.index}")
        self._loading[partition] = task
        task.add_done_callback(lambda _: self._loaded(partition))

    def resign(self, partition: Partition) -> None:
        """It does not any more. `partition` is closed already."""
        task = self._loading.get(partition)
        if task is not None:
            task.cancel()
        self._groups.resign(partition.index)

    def topics_deleted(self, topics: dict[str, UUID]) -> None:
        """Their deletion is durable: what groups committed for them goes too."""
        self._deleted.append(topics)
        self._wake.set()

    async def run(self) -> None:
        """Owner's task: for ever."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._forget_deleted()
        finally:
            tasks = list(self._loading.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _forget_deleted(self) -> None:
        # Groups that are being loaded are passed over, so they are asked again when they are there.
        while self._deleted and not self._loading:
            topics = self._deleted[0]
            try:
                await self._groups.topics_deleted(topics)
            except KafkaError as error:
                log.warning("offsets of deleted topics %s stay for now: %s", sorted(topics), error)
                await asyncio.sleep(SLOWEST_RETRY_S)
            else:
                if not self._loading:
                    self._deleted.pop(0)

    def _loaded(self, partition: Partition) -> None:
        self._loading.pop(partition, None)
        self._wake.set()

    async def _load(self, partition: Partition) -> None:
        partition_log = PartitionLog(partition, self._confirm)
        delay_s, told = RETRY_S, ""
        while not partition.closed:
            try:
                await self._groups.lead(partition.index, partition.leader_epoch, partition_log)
                return
            except KafkaError as error:
                trouble = str(error) or error.code.name
            except Exception as error:
                # A record that nobody can read, say. The others go on being served.
                trouble, delay_s = repr(error), BROKEN_RETRY_S
                if trouble != told:
                    log.exception("%s-%d: its groups", partition.topic, partition.index)
            if trouble != told:
                told = trouble
                log.warning(
                    "%s-%d: its groups cannot be loaded and are not served: %s",
                    partition.topic,
                    partition.index,
                    trouble,
                )
            await asyncio.sleep(delay_s)
            delay_s = max(min(delay_s * 2, SLOWEST_RETRY_S), delay_s)
