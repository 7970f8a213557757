"""A log in memory and a broker around one coordinator, reached by encoded requests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from broker.api import find_coordinator, groups, offsets
from broker.api.group_context import Endpoint
from broker.coordinator import GroupConfig, GroupCoordinator
from protocol import codec
from protocol.errors import ErrorCode, KafkaError

START_MS = 1_700_000_000_000

HANDLERS = {
    8: offsets.commit,
    9: offsets.fetch,
    10: find_coordinator.handle,
    11: groups.join_group,
    12: groups.heartbeat,
    13: groups.leave_group,
    14: groups.sync_group,
    15: groups.describe_groups,
    16: groups.list_groups,
    42: groups.delete_groups,
    47: offsets.delete,
}


@dataclass
class LogRecordDouble:
    key: bytes | None
    value: bytes | None


class MemoryLog:
    """hold: appends wait until `release`. fail_next: the next append is lost with this code.
    read_s: how long three records take to be read.
    """

    def __init__(self, records: Sequence[LogRecordDouble] = (), read_s: float = 0.0) -> None:
        self.records: list[LogRecordDouble] = list(records)
        self._read_s = read_s
        self.log_start_offset = 0
        self.hold = False
        self.latency_s = 0.002
        self.refuse: ErrorCode | None = None
        self.lose: ErrorCode | None = None
        self.lost_leadership = False
        self.appends = 0
        self._late: list[tuple[int, asyncio.Future[int]]] = []
        self._held: list[tuple[list[tuple[bytes, bytes | None]], asyncio.Future[int]]] = []

    @property
    def high_watermark(self) -> int:
        return len(self.records)

    async def read(self, offset: int) -> tuple[Sequence[LogRecordDouble], int]:
        end = min(offset + 3, len(self.records))
        if self._read_s:
            await asyncio.sleep(self._read_s)
        return self.records[offset:end], end

    async def confirm(self) -> None:
        if self.lost_leadership:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def append(self, records: list[tuple[bytes, bytes | None]]) -> asyncio.Future[int]:
        if self.refuse is not None:
            raise KafkaError(self.refuse)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self.appends += 1
        self._held.append((records, future))
        if not self.hold:
            loop.call_later(self.latency_s, self._write_first)
        return future

    def _write_first(self) -> None:
        if not self._held:
            return
        records, future = self._held.pop(0)
        if self.lose is not None:
            future.set_exception(KafkaError(self.lose))
            return
        base = len(self.records)
        self.records.extend(LogRecordDouble(key, value) for key, value in records)
        future.set_result(base)

    def write_last(self) -> None:
        """The newest append is answered before the older ones, which are in the log before it."""
        records, future = self._held.pop()
        base = len(self.records) + sum(len(older) for older, _ in self._held)
        for older, _ in self._held:
            self.records.extend(LogRecordDouble(key, value) for key, value in older)
        self.records.extend(LogRecordDouble(key, value) for key, value in records)
        future.set_result(base)
        base -= sum(len(older) for older, _ in self._held)
        self._late = []
        for older, older_future in self._held:
            self._late.append((base, older_future))
            base += len(older)
        self._held.clear()

    def answer_late(self) -> None:
        for base, future in self._late:
            future.set_result(base)
        self._late = []

    def release(self) -> None:
        self.hold = False
        while self._held:
            self._write_first()


@dataclass
class BrokerDouble:
    """One broker that leads every partition of the offsets topic, with topics a, b and c."""

    config: GroupConfig = field(
        default_factory=lambda: GroupConfig(
            group_initial_rebalance_delay_ms=0, offsets_topic_num_partitions=1
        )
    )
    client_id: str = "probe"
    client_host: str = "/127.0.0.1"
    log: MemoryLog = field(default_factory=MemoryLog)
    wall_ms: int = START_MS
    coordinator_topic_exists: bool = True

    def __post_init__(self) -> None:
        # One for all processes: another one never draws the same member ids again.
        self._rng = random.Random(7)
        self.topics = {name: UUID(int=i + 1) for i, name in enumerate("abc")}
        self.groups = self._coordinator()

    def _coordinator(self) -> GroupCoordinator:
        return GroupCoordinator(self.config, self.now_ms, self._rng)

    def now_ms(self) -> int:
        return self.wall_ms + round(asyncio.get_running_loop().time() * 1000)

    async def start(self) -> BrokerDouble:
        for partition in range(self.config.offsets_topic_num_partitions):
            await self.groups.lead(partition, 0, self.log)
        return self

    async def restart(self, config: GroupConfig | None = None, read_s: float = 0.0) -> BrokerDouble:
        """Another process on the same log."""
        self.groups.close()
        self.config = config or self.config
        self.groups = self._coordinator()
        self.log = MemoryLog(self.log.records, read_s)
        return await self.start()

    def topic_id(self, name: str) -> UUID | None:
        return self.topics.get(name)

    def topic_name(self, topic_id: UUID) -> str | None:
        return next((name for name, known in self.topics.items() if known == topic_id), None)

    def has_partition(self, topic: str, index: int) -> bool:
        return topic in self.topics and 0 <= index < 2

    async def group_coordinator(self, partition: int) -> Endpoint | None:
        assert 0 <= partition < self.config.offsets_topic_num_partitions
        return Endpoint(1, "127.0.0.1", 9092) if self.coordinator_topic_exists else None

    async def __call__(self, request: Any, version: int) -> Any:
        """Through the wire format and back, as a client would send it."""
        key = request.API_KEY
        body = memoryview(bytes(request.encode(version=version)))
        response = await HANDLERS[key](self, codec.decode_request(key, version, body), version)
        encoded = bytes(codec.encode_response(response, version))
        return codec.response_class(key).decode(encoded, version=version)
