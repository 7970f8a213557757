"""Several whole brokers on one store in memory, under virtual time, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from broker.cluster.lifetime import Lifetime
from broker.config import BrokerConfig
from broker.config.load import load
from broker.controller import NewTopic
from broker.environment import Environment
from broker.node import Node
from objectstore.drivers.memory import MemoryStore
from objectstore.store import ObjectStore
from protocol.errors import KafkaError
from s3stream.metadata.image import TopicImage
from tests.simulation.loop import SimulatedLoop, start_on
from tests.simulation.network import SimulatedNetwork
from wal.errors import Fenced

SESSION_TIMEOUT_S = 3.0
SETTINGS = {
    "wal.window": "4",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "3",
    "auto.create.topics.enable": "false",
}


class Fleet:
    """Processes by node id, on hosts `h1`, `h2` …; each has a life, and a name for the loop."""

    def __init__(self, loop: SimulatedLoop, store: ObjectStore | None = None) -> None:
        self.loop = loop
        self.store = store or MemoryStore(loop.now_ms)
        # The store as a node sees it.
        self.seen_by: Callable[[int], ObjectStore] = lambda number: self.store
        self.network = SimulatedNetwork(loop, Random(1))
        self.lives: dict[int, Lifetime] = {}
        self.ended: dict[int, BaseException] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._started = 0
        self.names: dict[int, str] = {}

    def node(self, number: int) -> Node:
        return self.lives[number].node

    def nodes(self) -> list[Node]:
        return [life.node for life in self.lives.values()]

    async def start(self, number: int, **settings: str) -> Node:
        """Returns when it serves. settings: underscores for dots."""
        self._started += 1
        host, rng = f"h{number}", Random(self._started)
        name = f"n{number}.{self._started}"
        given = {
            **SETTINGS,
            "node.id": str(number),
            "listeners": f"PLAINTEXT://{host}:9092",
            **{key.replace("_", "."): value for key, value in settings.items()},
        }
        environment = Environment(
            self.seen_by(number), "memory", self.network.at(host), self.loop.now_ms, rng
        )

        def new_node(config: BrokerConfig) -> Node:
            return Node(config, environment)

        config = load(sets=[f"{key}={value}" for key, value in given.items()]).config
        life = Lifetime(config, new_node, self.store, rng)
        await start_on(name, life.start())
        self.lives[number], self.names[number] = life, name
        self._tasks[number] = start_on(name, self._run(number, life))
        return life.node

    async def _run(self, number: int, life: Lifetime) -> None:
        try:
            await life.run()
        except (Fenced, Exception) as error:
            self.ended[number] = error

    def crash(self, number: int) -> None:
        """As kill -9."""
        self.loop.crash(self.names[number])
        self.network.kill(self.names[number])
        del self.lives[number]

    async def stop(self, number: int) -> None:
        """As SIGTERM."""
        life = self.lives.pop(number)
        self._tasks.pop(number).cancel()
        await start_on(self.names[number], life.node.close())

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        for number, life in list(self.lives.items()):
            await start_on(self.names[number], life.node.abort())

    async def topic(self, through: int, name: str = "t", partitions: int = 6) -> TopicImage:
        created = start_on(
            self.names[through],
            self.node(through).controller.create_topics([NewTopic(name, partitions)]),
        )
        (topic,) = await created
        assert not isinstance(topic, KafkaError), topic
        await self.until(lambda: self.is_open(name), 5)
        return topic

    def is_open(self, name: str) -> bool:
        """By each node what it leads."""
        return all(self._is_open(node, name) for node in self.nodes())

    @staticmethod
    def _is_open(node: Node, name: str) -> bool:
        """What the node leads of that topic."""
        topic = node.controller.image.topics.get(name)
        if topic is None:
            return False
        mine = [p for p in topic.partitions if p.leader == node.controller.incarnation]
        return all(node.partitions.get(name, p.index) is not None for p in mine)

    def leaders(self, asked: int, name: str = "t") -> list[int]:
        """Node ids, as that broker tells them."""
        image = self.node(asked).controller.image
        told = []
        topic = image.topics.get(name)
        for partition in () if topic is None else topic.partitions:
            broker = image.broker_of(partition.leader)
            told.append(-1 if broker is None or broker.fenced else broker.node_id)
        return told

    async def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> float:
        """How long it took."""
        began = self.loop.time()
        while not condition():
            assert self.loop.time() - began < within_s, "it never came to be"
            await asyncio.sleep(0.01)
        return self.loop.time() - began


def run(
    body: Callable[[Fleet], Awaitable[None]],
    seed: int = 1,
    store: Callable[[SimulatedLoop], ObjectStore] | None = None,
) -> None:
    loop = SimulatedLoop(seed)

    async def main() -> None:
        fleet = Fleet(loop, None if store is None else store(loop))
        try:
            await body(fleet)
        finally:
            await fleet.close()

    loop.run(main())
