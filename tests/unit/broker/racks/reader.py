"""A consumer with a rack, as a test drives it: it fetches where it is told to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from protocol.batch_header import iter_headers
from protocol.errors import ErrorCode
from protocol.messages import FetchRequest, MetadataRequest
from protocol.record_batch import parse_header
from tests.simulation.client import Connection, Disconnected, connect
from tests.simulation.loop import start_on
from tests.unit.broker.cluster.fleet import Fleet, run
from tests.unit.broker.node_rig import batch

TOPIC = "t"


class RackReader:
    """Of one partition. position: what it reads next. read: offsets, in the order they came."""

    def __init__(
        self, fleet: Fleet, rack: str, *, index: int = 0, name: str = "c", version: int = 12
    ) -> None:
        self.fleet = fleet
        self.rack = rack
        self.index = index
        self.version = version
        self.position = 0
        self.read: list[int] = []
        self.served_by: list[int] = []
        self._name = name
        self._connections: dict[int, Connection] = {}

    async def call(self, node: int, request: Any, version: int) -> Any:
        connection = self._connections.get(node)
        if connection is None or connection.lost:
            network = self.fleet.network.at(self._name)
            connection = await connect(network, (f"h{node}", 9092), self._name)
            self._connections[node] = connection
        return await connection.call(request, version, 10.0)

    async def fetch(
        self,
        node: int,
        offset: int | None = None,
        *,
        epoch: int = -1,
        max_wait_ms: int = 200,
        isolation: int = 0,
        session: tuple[int, int] = (0, -1),
        max_bytes: int = 1 << 20,
    ) -> Any:
        """One request; the answer of the one partition, None where a session has no news."""
        wanted = FetchRequest.FetchTopic.FetchPartition(
            partition=self.index,
            current_leader_epoch=epoch,
            fetch_offset=self.position if offset is None else offset,
            last_fetched_epoch=-1,
            log_start_offset=-1,
            partition_max_bytes=max_bytes,
        )
        request = FetchRequest(
            replica_id=-1,
            max_wait_ms=max_wait_ms,
            min_bytes=1,
            max_bytes=1 << 20,
            isolation_level=isolation,
            session_id=session[0],
            session_epoch=session[1],
            topics=[FetchRequest.FetchTopic(topic=TOPIC, partitions=[wanted])],
            forgotten_topics_data=[],
            rack_id=self.rack,
        )
        answer = await self.call(node, request, self.version)
        assert answer.error_code == 0
        self.session_id = answer.session_id
        return answer.responses[0].partitions[0] if answer.responses else None

    async def poll(self) -> None:
        """As a consumer does: from the preferred replica, else from the leader."""
        node = self.served_by[-1] if self.served_by else await self.leader()
        if node < 0:
            return
        try:
            told = await self.fetch(node)
        except Disconnected:
            self.served_by.append(await self.leader())
            return
        if told.error_code:
            self.served_by.append(await self.leader())
            return
        if told.preferred_read_replica >= 0:
            assert not told.records
            self.served_by.append(told.preferred_read_replica)
            return
        self.served_by.append(node)
        self.take(told)

    def take(self, told: Any) -> None:
        for _, header in iter_headers(memoryview(told.records or b"")):
            if header.next_offset <= self.position:
                continue
            first = max(header.base_offset, self.position)
            self.read += range(first, header.next_offset)
            self.position = header.next_offset

    async def leader(self) -> int:
        """As any broker that answers tells; -1: nobody."""
        return int((await self.metadata()).leader_id)

    async def metadata(self) -> Any:
        request = MetadataRequest(
            topics=[MetadataRequest.MetadataRequestTopic(name=TOPIC)],
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        )
        for node in sorted(self.fleet.lives):
            try:
                answer = await self.call(node, request, 9)
            except Disconnected:
                continue
            return next(p for p in answer.topics[0].partitions if p.partition_index == self.index)
        raise AssertionError("no broker answers")

    async def until(self, condition: Callable[[], bool], polls: int = 400) -> None:
        for _ in range(polls):
            if condition():
                return
            await self.poll()
        raise AssertionError(f"not after {polls} polls: {self.position}, {self.served_by[-5:]}")


async def append(fleet: Fleet, node: int, count: int = 1, *, index: int = 0, size: int = 20) -> int:
    """Batches of one record each to the partition that `node` leads; its high watermark then."""
    partition = fleet.node(node).partitions.get(TOPIC, index)
    assert partition is not None

    async def append() -> None:
        for _ in range(count):
            data = memoryview(batch(1, b"x" * size))
            pending = partition.append_as_leader(data, parse_header(data))
            assert pending.durable is not None
            await pending.durable

    await start_on(fleet.names[node], append())
    return partition.high_watermark


def code(told: Any) -> str:
    return ErrorCode(told.error_code).name


def in_racks(
    *racks: str | None,
    body: Callable[[Fleet, int], Awaitable[None]],
    seed: int = 1,
    **settings: str,
) -> None:
    """Run a test with brokers 1, 2, … in these racks, and a topic `t`.

    body: is given the partition that broker 1 leads. settings: of all, underscores for dots.
    """

    async def whole(fleet: Fleet) -> None:
        for number, rack in enumerate(racks, 1):
            given = {} if rack is None else {"broker_rack": rack}
            await fleet.start(number, **given, **settings)
        await fleet.topic(through=1, name=TOPIC, partitions=len(racks))
        await fleet.until(
            lambda: all(
                len(n.controller.image.live_brokers()) == len(racks) for n in fleet.nodes()
            ),
            10,
        )
        await fleet.until(lambda: 1 in fleet.leaders(1), 10)
        await body(fleet, fleet.leaders(1).index(1))

    run(whole, seed)
