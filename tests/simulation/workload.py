"""What clients do to the simulated broker, each an endless loop until told to stop.

All of them retry for ever what a real client retries, and take any other error code for a bug of
the broker. Answers go to `History`, which judges them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol
from uuid import UUID

from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.records import Record, encode_batch

from .checkers import History, Place, Sent, Violation
from .client import Connection, Disconnected, connect
from .cluster import Cluster
from .loop import SimulatedLoop

REQUEST_TIMEOUT_S = 3.0
PRODUCE_TIMEOUT_MS = 2_000

RETRIABLE = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REQUEST_TIMED_OUT,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.NOT_CONTROLLER,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.NOT_COORDINATOR,
    }
)


@dataclass
class Topic:
    name: str
    id: UUID
    partitions: int

    def place(self, index: int) -> Place:
        return self.id, index


@dataclass
class World:
    """What every client is made with. stopping: begin nothing new, finish what was begun. busy:
    not set in a lull, when clients stay connected and do nothing.
    """

    loop: SimulatedLoop
    cluster: Cluster
    history: History
    stopping: asyncio.Event
    topics: dict[str, Topic] = field(default_factory=dict)
    busy: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.busy.set()


class Doing(Protocol):
    """Who has something to do until the world stops."""

    async def run(self) -> None: ...


class Client:
    """A connection to the newest process, opened anew when it breaks."""

    def __init__(self, world: World, name: str, rng: Random) -> None:
        self.world = world
        self.loop = world.loop
        self.history = world.history
        self.name = name
        self.rng = rng
        self.connection: Connection | None = None
        self.host = ""

    @property
    def stopping(self) -> bool:
        return self.world.stopping.is_set()

    async def connected(self) -> Connection:
        """Open at once, or in the end."""
        while self.connection is None or self.connection.lost:
            self.connection = None
            host, port = self.world.cluster.address
            network = self.world.cluster.network.at("client")
            try:
                self.connection = await connect(network, (host, port), self.name)
                self.host = host
            except Disconnected:
                await asyncio.sleep(self.rng.uniform(0.05, 0.3))
        return self.connection

    async def call(self, request: Any, version: int, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
        """Raises Disconnected."""
        connection = await self.connected()
        return await connection.call(request, version, timeout_s)

    def leave(self) -> None:
        """Look for the broker anew at the next call: this one says that it is not the one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def retry(self, code: int, what: str) -> bool:
        """True for an error that a client waits out. Raises Violation for one of a bug."""
        if code == 0:
            return False
        error = ErrorCode(code)
        if error not in RETRIABLE:
            raise Violation(f"{self.name}: {what} was answered with {error.name}")
        self.history.counted[f"told {error.name}"] += 1
        if error in (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NOT_COORDINATOR):
            self.leave()
        return True

    async def rest(self, mean_s: float) -> None:
        await asyncio.sleep(self.rng.expovariate(1 / mean_s))

    def stale(self, asked_at: float) -> bool:
        return self.world.cluster.may_be_stale(self.host, asked_at)

    def values(self, first: int, count: int) -> list[Record]:
        # Clients' clocks differ: timestamps do not follow the order in the log.
        now = self.loop.now_ms() - self.rng.randrange(3000)
        dice = self.rng.random()
        fill = self.rng.randrange(10, 400) if dice < 0.95 else 9000
        if dice > 0.99 and self.world.cluster.large_batches:
            fill = 70_000  # goes to an object of its own
        return [
            Record(i, now, None, f"{self.name}/{first}+{i}/".encode() + self.rng.randbytes(fill))
            for i in range(count)
        ]


@dataclass(eq=False)
class _Pending:
    sent: Sent
    batch: bytearray
    position: int
    in_flight: int = 0


@dataclass(eq=False)
class _Lane:
    """One partition of a producer. pending: batches not acknowledged, in order."""

    topic: Topic
    index: int
    pending: list[_Pending] = field(default_factory=list)
    next_sequence: int = 0
    broken: bool = False
    made: int = 0
    batches: int = 0

    @property
    def is_free(self) -> bool:
        """A broker knows the last five batches of a producer: never go further ahead. And it takes
        any sequence for the first of a producer that it does not know, as Apache Kafka does.
        """
        if not self.pending:
            return True
        first = self.pending[0].position
        return first > 0 and self.batches - first < 5


class Producer(Client):
    """Several requests in flight; what was not acknowledged is sent again, in order.

    idempotent: with sequences, so that nothing may be there twice.
    """

    def __init__(
        self,
        world: World,
        name: str,
        rng: Random,
        targets: list[tuple[Topic, int]],
        *,
        idempotent: bool,
        pace_s: float,
    ) -> None:
        super().__init__(world, name, rng)
        self._lanes = [_Lane(topic, index) for topic, index in targets]
        self._idempotent = idempotent
        self._pace_s = pace_s
        self._producer_id, self._epoch = -1, -1
        self._version = rng.choice((3, 7, 8, 9, 12, 13))
        self._wake = asyncio.Event()
        self._failed: BaseException | None = None

    async def run(self) -> None:
        if self._idempotent:
            await self._begin()
        while True:
            if self._failed is not None:
                raise self._failed
            if self.stopping and not any(lane.pending for lane in self._lanes):
                return
            connection = await self.connected()
            await connection.writable()
            if self._send(connection):
                continue
            self._wake.clear()
            try:
                async with asyncio.timeout(self.rng.expovariate(1 / self._pace_s)):
                    await self._wake.wait()
            except TimeoutError:
                if not self.stopping and self.world.busy.is_set():
                    self._make()

    async def _begin(self) -> None:
        while True:
            request = m.InitProducerIdRequest(
                transactional_id=None,
                transaction_timeout_ms=60_000,
                producer_id=-1,
                producer_epoch=-1,
            )
            try:
                answer = await self.call(request, self.rng.choice((0, 3, 5)))
            except Disconnected:
                continue
            if not self.retry(answer.error_code, "InitProducerId"):
                self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch
                return
            await self.rest(0.2)

    def _make(self) -> None:
        """New batches on some lanes, all for one request."""
        free = [lane for lane in self._lanes if lane.is_free]
        if not free:
            return
        for lane in self.rng.sample(free, self.rng.randrange(1, len(free) + 1)):
            count = self.rng.randrange(1, 4)
            base_sequence = lane.next_sequence if self._idempotent else -1
            batch = encode_batch(
                self.values(lane.made, count),
                producer_id=self._producer_id,
                producer_epoch=self._epoch,
                base_sequence=base_sequence,
            )
            lane.made += count
            lane.next_sequence += count
            place = lane.topic.place(lane.index)
            sent = self.history.sending(self.name, place, batch)
            lane.pending.append(_Pending(sent, batch, lane.batches))
            lane.batches += 1

    def _send(self, connection: Connection) -> bool:
        """One request with the next batch of every lane that has one to send."""
        request: list[tuple[_Lane, _Pending]] = []
        for lane in self._lanes:
            if lane.broken:
                if any(one.in_flight for one in lane.pending):
                    continue
                lane.broken = False
            due = next((one for one in lane.pending if not one.in_flight), None)
            if due is not None:
                request.append((lane, due))
        if not request:
            return False
        for _, one in request:
            one.in_flight += 1
        message = produce_request(
            [(lane.topic, lane.index, one.batch) for lane, one in request], -1
        )
        answer = connection.send(message, self._version)
        timer = self.loop.call_later(REQUEST_TIMEOUT_S, connection.close)
        host = self.host
        answer.add_done_callback(lambda told: self._answered(request, told, timer, host))
        return True

    def _answered(
        self,
        request: list[tuple[_Lane, _Pending]],
        told: asyncio.Future[Any],
        timer: asyncio.TimerHandle,
        host: str,
    ) -> None:
        timer.cancel()
        self._wake.set()
        for _, one in request:
            one.in_flight -= 1
        try:
            if told.exception() is not None:
                for lane, _ in request:
                    lane.broken = True
                return
            partitions = {
                ((t.name if self._version < 13 else t.topic_id), p.index): p
                for t in told.result().responses
                for p in t.partition_responses
            }
            for lane, one in request:
                by = lane.topic.name if self._version < 13 else lane.topic.id
                self._judge(lane, one, partitions[by, lane.index], host)
        except BaseException as error:
            self._failed = error

    def _judge(self, lane: _Lane, one: _Pending, told: Any, host: str) -> None:
        if told.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER and self._idempotent:
            if lane.pending[0] is one:
                replaced = self.world.cluster.process_at(host).replaced_at
                raise Violation(
                    f"{one.sent}: out of order at {host} (replaced {replaced}), but it is next"
                )
            lane.broken = True
        elif self.retry(told.error_code, f"{one.sent}"):
            lane.broken = True
        else:
            if one not in lane.pending:
                raise Violation(f"{one.sent} acknowledged twice")
            lane.pending.remove(one)
            one.sent.acknowledged_by = host
            start = told.log_start_offset if self._version >= 5 else -1
            self.history.acknowledged(one.sent, told.base_offset, start)


class CarelessProducer(Client):
    """acks=0: no answer, no retry; what it sends may be there or not."""

    def __init__(self, world: World, name: str, rng: Random, topic: Topic) -> None:
        super().__init__(world, name, rng)
        self._topic = topic

    async def run(self) -> None:
        made = 0
        while not self.stopping:
            await self.rest(1.5)
            await self.world.busy.wait()
            connection = await self.connected()
            index = self.rng.randrange(self._topic.partitions)
            batch = encode_batch(self.values(made, 1))
            made += 1
            self.history.sending(self.name, self._topic.place(index), batch)
            connection.send_without_answer(produce_request([(self._topic, index, batch)], 0), 9)
            self.history.counted["acks=0"] += 1


def produce_request(batches: list[tuple[Topic, int, bytearray]], acks: int) -> Any:
    topics: dict[str, Any] = {}
    for topic, index, batch in batches:
        found = topics.get(topic.name)
        if found is None:
            found = topics[topic.name] = m.ProduceRequest.TopicProduceData(
                name=topic.name, topic_id=topic.id, partition_data=[]
            )
        found.partition_data.append(
            m.ProduceRequest.TopicProduceData.PartitionProduceData(
                index=index, records=bytes(batch)
            )
        )
    return m.ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout_ms=PRODUCE_TIMEOUT_MS,
        topic_data=list(topics.values()),
    )
