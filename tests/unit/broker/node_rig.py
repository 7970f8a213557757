"""A whole broker on a store in memory that can be held up, under virtual time, without sockets."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from broker.config.load import load
from broker.controller import NewTopic
from broker.environment import Environment
from broker.node import Node
from broker.partition.partition import Partition
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import AccessDenied
from objectstore.store import Chunks
from protocol.codec import response_class
from protocol.errors import KafkaError
from protocol.records import Record, encode_batch
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import SimulatedNetwork

from .fake_transport import FakeTransport

SETTINGS = {
    "node.id": "1",
    "wal.window": "4",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "2",
    "num.partitions": "1",
    "listeners": "PLAINTEXT://h1:9092",
}


class HeldStore(MemoryStore):
    """Writes of the prefixes in `held` wait until they are let go; of those in `denied`, fail."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.held: list[str] = []
        self.denied: list[str] = []
        self._changed = asyncio.Event()

    async def create(self, key: str, chunks: Chunks) -> None:
        while key.startswith(tuple(self.held)):
            self._changed.clear()
            await self._changed.wait()
        if key.startswith(tuple(self.denied)):
            raise AccessDenied(f"{key}: denied by the test")
        await super().create(key, chunks)

    def let_go(self) -> None:
        self.held.clear()
        self._changed.set()


class Rig:
    """node: started, ready. store: see there."""

    def __init__(self, loop: SimulatedLoop, settings: dict[str, str]) -> None:
        self.loop = loop
        self.store = HeldStore(loop.now_ms)
        sets = [f"{key}={value}" for key, value in {**SETTINGS, **settings}.items()]
        self.node = Node(
            load(sets=sets).config,
            Environment(
                store=self.store,
                store_name="memory",
                network=SimulatedNetwork(loop, Random(1)).at("h1"),
                now_ms=loop.now_ms,
                rng=Random(2),
            ),
        )

    async def topic(self, name: str = "t", partitions: int = 1, **configs: str) -> Partition:
        """A new topic; its first partition. configs: underscores for dots."""
        named = {key.replace("_", "."): value for key, value in configs.items()}
        made = await self.node.controller.create_topics(
            [NewTopic(name, partitions=partitions, replication_factor=1, configs=named)]
        )
        assert not isinstance(made[0], KafkaError), made[0]
        await self.node.services.settled()
        found = self.node.partitions.get(name, 0)
        assert found is not None
        return found

    def client(self, host: str = "10.0.0.1", listener: str = "PLAINTEXT") -> Client:
        return Client(self, host, listener)


class Client:
    """One connection, its answers decoded by kafka-python."""

    def __init__(self, rig: Rig, host: str, listener: str) -> None:
        self.transport = FakeTransport(host)
        self.connection = rig.node.server._new_connection(listener)
        self.transport.open(self.connection)
        self.backlog = b""
        self._correlation = 0

    def send(self, request: Any, version: int) -> int:
        """Its correlation id. What the broker does not read stays in `backlog`."""
        self._correlation += 1
        request.API_VERSION = version
        request.with_header(correlation_id=self._correlation, client_id="test")
        self.backlog += request.encode(version=version, header=True, framed=True)
        self.push()
        return self._correlation

    def push(self) -> None:
        """Give the broker of the backlog what it reads."""
        self.backlog = self.backlog[self.transport.receive(self.backlog) :]

    def answers(self, api_key: int, version: int) -> list[Any]:
        """Those that have come by now, of one API and version."""
        found = []
        response = response_class(api_key)
        sent = self.transport.sent
        while len(sent) >= 4:
            (size,) = struct.unpack_from(">i", sent)
            frame = bytes(sent[4 : 4 + size])
            del sent[: 4 + size]
            flexible = api_key != 18 and response.flexible_version_q(version)
            found.append(response.decode(frame[5 if flexible else 4 :], version=version))
        return found

    async def ask(self, request: Any, version: int, within_s: float = 60.0) -> Any:
        self.send(request, version)
        for _ in range(round(within_s * 100)):
            await asyncio.sleep(0.01)
            found = self.answers(request.API_KEY, version)
            if found:
                return found[0]
            assert not self.transport.closing, "closed by the broker"
        raise AssertionError("no answer")


def run(body: Callable[[Rig], Awaitable[None]], **settings: str) -> None:
    """settings: the broker's, underscores for dots."""
    loop = SimulatedLoop(1)

    async def main() -> None:
        rig = Rig(loop, {key.replace("_", "."): value for key, value in settings.items()})
        await rig.node.start()
        try:
            await body(rig)
        finally:
            rig.store.let_go()
            await rig.node.abort()

    loop.run(main())


def batch(
    count: int = 1,
    value: bytes = b"v",
    *,
    timestamp: int | None = None,
    producer: tuple[int, int, int] | None = None,
    timestamp_type: int = 0,
) -> bytearray:
    """A client's batch. producer: id, epoch, first sequence."""
    stamp = 1_750_000_000_000 if timestamp is None else timestamp
    producer_id, epoch, sequence = producer or (-1, -1, -1)
    return encode_batch(
        [Record(i, stamp + i, b"k", value) for i in range(count)],
        0,
        producer_id,
        epoch,
        sequence,
        timestamp_type=timestamp_type,
    )


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)
