"""Whole brokers on one bucket in memory, under virtual time, which all die at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from broker.config.load import load
from broker.controller import NewTopic
from broker.environment import Environment
from broker.node import Node
from broker.partition.partition import Partition
from objectstore.drivers.memory import MemoryStore
from protocol import record_batch
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import SimulatedNetwork
from tests.unit.broker.node_rig import Client, batch
from wal.errors import LogError

SETTINGS = {
    "wal.window": "4",
    "offsets.topic.num.partitions": "3",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
}

Key = tuple[str, int]


class Seat:
    """What a `Client` needs of a rig."""

    def __init__(self, node: Node) -> None:
        self.node = node


class Brokers:
    """nodes: by node id. acknowledged: values of each partition, in order; committed: by group."""

    def __init__(self, loop: SimulatedLoop, seed: int = 1) -> None:
        self.loop = loop
        self.store = MemoryStore(loop.now_ms)
        self.network = SimulatedNetwork(loop, Random(seed))
        self.nodes: dict[int, Node] = {}
        self.acknowledged: dict[Key, list[bytes]] = {}
        self.acknowledged_ms: dict[Key, list[int]] = {}
        self.committed: dict[str, dict[Key, int]] = {}
        self.ever_committed: dict[tuple[str, str, int], set[int]] = {}
        self.deleted = 0
        self.rng = Random(seed)
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._started = 0

    async def start(
        self,
        node_id: int,
        store: MemoryStore | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Node:
        """On a host of its own, which nobody had before."""
        self._started += 1
        host = f"h{self._started}"
        rows = {"listeners": f"PLAINTEXT://{host}:9092", "node.id": str(node_id)}
        sets = [f"{k}={v}" for k, v in {**SETTINGS, **rows, **(settings or {})}.items()]
        environment = Environment(
            store=self.store if store is None else store,
            store_name="memory",
            network=self.network.at(host),
            now_ms=self.loop.now_ms,
            rng=Random(self.rng.random()),
        )
        node = Node(load(sets=sets).config, environment)
        async with asyncio.timeout(120):
            await node.start()
        self.nodes[node_id] = node
        self._runs[node_id] = asyncio.create_task(node.run())
        return node

    async def kill(self, node_id: int) -> None:
        run = self._runs.pop(node_id)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await self.nodes.pop(node_id).abort()

    async def kill_all(self) -> None:
        for node_id in list(self.nodes):
            await self.kill(node_id)

    # What clients do

    async def topic(self, name: str, partitions: int) -> None:
        node = next(iter(self.nodes.values()))
        made = await node.controller.create_topics(
            [NewTopic(name, partitions=partitions, replication_factor=1)]
        )
        assert not isinstance(made[0], KafkaError), made[0]

    async def leader(self, topic: str, index: int) -> Partition:
        async with asyncio.timeout(120):
            while True:
                for node in self.nodes.values():
                    found = node.partitions.get(topic, index)
                    if found is not None and not found.closed:
                        return found
                await asyncio.sleep(0.05)

    async def produce(self, topic: str, index: int, count: int = 1) -> None:
        """Batches of one record each, one after the other, until each is acknowledged."""
        values = self.acknowledged.setdefault((topic, index), [])
        for _ in range(count):
            value = b"%s-%d-%d" % (topic.encode(), index, len(values))
            while True:
                partition = await self.leader(topic, index)
                data = memoryview(batch(1, value, producer=(index, 0, len(values))))
                try:
                    header = record_batch.check_produced(data, 9)
                    durable = partition.append_as_leader(data, header).durable
                    if durable is not None:
                        await durable
                    break
                except (KafkaError, LogError):
                    await asyncio.sleep(0.05)
            values.append(value)
            self.acknowledged_ms.setdefault((topic, index), []).append(self.loop.now_ms())
            await asyncio.sleep(0.002)  # so that no two objects are equally new

    async def commit(self, group: str, topic: str, index: int, offset: int) -> None:
        kind = OffsetCommitRequest.OffsetCommitRequestTopic
        row = kind.OffsetCommitRequestPartition(
            partition_index=index,
            committed_offset=offset,
            committed_leader_epoch=-1,
            committed_metadata="",
        )
        request = OffsetCommitRequest(
            group_id=group,
            generation_id_or_member_epoch=-1,
            member_id="",
            group_instance_id=None,
            topics=[kind(name=topic, partitions=[row])],
        )

        async def done(client: Client) -> bool:
            answer = await client.ask(request, 8)
            return {p.error_code for t in answer.topics for p in t.partitions} == {0}

        await self._of_coordinator(done)
        self.committed.setdefault(group, {})[topic, index] = offset
        self.ever_committed.setdefault((group, topic, index), {-1}).add(offset)

    async def offsets_of(self, group: str) -> dict[Key, int]:
        found: dict[Key, int] = {}

        async def done(client: Client) -> bool:
            request = OffsetFetchRequest(group_id=group, topics=None, require_stable=False)
            answer = await client.ask(request, 7)
            if answer.error_code != ErrorCode.NONE:
                return False
            for topic in answer.topics:
                for row in topic.partitions:
                    found[topic.name, row.partition_index] = row.committed_offset
            return True

        await self._of_coordinator(done)
        return found

    async def _of_coordinator(self, ask: Callable[[Client], Awaitable[bool]]) -> None:
        """Ask one broker after the other until the one that coordinates has answered."""
        async with asyncio.timeout(120):
            while True:
                for node in list(self.nodes.values()):
                    client = Client(Seat(node), "10.0.0.1", "PLAINTEXT")  # type: ignore[arg-type]
                    # Makes the topic of the groups, where nobody has asked yet.
                    await client.ask(FindCoordinatorRequest(key="g", key_type=0), 3)
                    if await ask(client):
                        return
                await asyncio.sleep(0.2)

    async def served(self, topic: str, index: int) -> tuple[int, list[bytes | None]]:
        """(start of the log, every value from there on)."""
        partition = await self.leader(topic, index)
        return partition.log_start_offset, await self.contents(topic, index)

    async def contents(self, topic: str, index: int) -> list[bytes | None]:
        """Every value that is served, from the start of the log."""
        partition = await self.leader(topic, index)
        found: list[bytes | None] = []
        offset = partition.log_start_offset
        while offset < partition.high_watermark:
            records, offset = await partition.read_records(offset, 1 << 20)
            found += [one.value for one in records]
        return found


def run(body: Callable[[Brokers], Awaitable[None]], seed: int = 1) -> None:
    loop = SimulatedLoop(seed)

    async def main() -> None:
        brokers = Brokers(loop, seed)
        try:
            await body(brokers)
        finally:
            await brokers.kill_all()

    loop.run(main())


async def busy_cluster(
    brokers: Brokers, count: int = 6, settings: Mapping[str, str] | None = None
) -> None:
    """Three brokers with two topics and two groups; uploaded, in tails, and moved about."""
    for node_id in (1, 2, 3):
        await brokers.start(node_id, settings=settings)
    await brokers.topic("t", 3)
    await brokers.topic("u", 2)
    places = [("t", 0), ("t", 1), ("t", 2), ("u", 0), ("u", 1)]
    for place in places:
        await brokers.produce(*place, count)
    for n, place in enumerate(places):
        await brokers.commit(f"g{n % 2}", *place, n + 1)
    for node in brokers.nodes.values():
        await node.storage.uploader.upload()
    for place in places:
        await brokers.produce(*place, count)
    for n, place in enumerate(places):
        await brokers.commit(f"g{n % 2}", *place, n + 3)


async def deaths(brokers: Brokers) -> None:
    """After `busy_cluster`: two of the three die, one of them the one that decides."""
    for node_id in (2, 1):
        await brokers.kill(node_id)
        for place in list(brokers.acknowledged):
            await brokers.produce(*place, 2)
        await brokers.commit("g0", "t", 0, 11 - node_id)
    await brokers.kill_all()


async def lively(brokers: Brokers) -> None:
    """After `busy_cluster`: moves to a broker that joins, trims, uploads, rounds of deletion; then
    deaths.
    """
    places = list(brokers.acknowledged)
    joined = await brokers.start(4, settings={"collector.round.interval.ms": "1000"})
    async with asyncio.timeout(60):
        while not joined.partitions.all():  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    for turn in range(3):
        for place in places:
            await brokers.produce(*place, 2)
        partition = await brokers.leader("t", turn)
        await partition.delete_records(3 * turn + 2)
        for node in brokers.nodes.values():
            await node.storage.uploader.upload()
            await node.storage.checkpointer.write()
            node.upkeep.rounds.wanted()
        await brokers.commit("g1", "t", 1, 12 + turn)
        await asyncio.sleep(2)
    brokers.deleted = sum(one.upkeep.collector.deleted_objects for one in brokers.nodes.values())
    for place in places:
        await brokers.produce(*place)
    await deaths(brokers)
