"""Clients of several brokers: each finds the one that leads what it wants, as real clients do.

A client keeps one connection, to the leader of its partition or the coordinator of its group; told
that it is not the one, or told nothing, it asks any broker for the way anew.
"""

from __future__ import annotations

from random import Random
from typing import Any

from protocol import messages as m

from .admin import Admin, Churn, Trimmer
from .checkers import Sent, Violation
from .client import Connection, Disconnected, connect
from .fleet import Fleet
from .readers import Committer, Reader, WholeReader
from .workload import CarelessProducer, Client, Producer, Topic, World

LOOK_UP_S = 1.5


class Routed(Client):
    """target: (topic, partition) that is wanted, a group's name, or None for any broker."""

    target: tuple[Topic, int] | str | None = None
    # Of a host: what is asked of the controller through it is answered by the controller.
    replaced = False

    async def connected(self) -> Connection:
        while self.connection is None or self.connection.lost:
            self.connection = None
            try:
                address = await self._locate()
                if address is not None:
                    network = self.world.cluster.network.at(self.name)
                    self.connection = await connect(network, address, self.name)
                    self.host = address[0]
                    break
            except Disconnected:
                pass
            await self.rest(0.1)
        return self.connection

    async def _locate(self) -> tuple[str, int] | None:
        """None: nobody leads it, as far as the broker that was asked knows."""
        fleet = self.world.cluster
        assert isinstance(fleet, Fleet)
        address = self.rng.choice(fleet.addresses)
        if self.target is None:
            return address
        self.history.counted["looked up"] += 1
        connection = await connect(fleet.network.at(self.name), address, self.name)
        try:
            if isinstance(self.target, str):
                return await self._coordinator(connection, self.target)
            return await self._leader(connection, *self.target)
        finally:
            connection.close()

    async def _leader(
        self, connection: Connection, topic: Topic, index: int
    ) -> tuple[str, int] | None:
        request = m.MetadataRequest(
            topics=[m.MetadataRequest.MetadataRequestTopic(name=topic.name, topic_id=topic.id)],
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        )
        answer = await connection.call(request, 9, LOOK_UP_S)
        for told in answer.topics:
            for one in told.partitions:
                if one.partition_index == index:
                    return _address_of(answer.brokers, one.leader_id)
        return None

    async def _coordinator(self, connection: Connection, group: str) -> tuple[str, int] | None:
        request = m.FindCoordinatorRequest(key=group, key_type=0, coordinator_keys=[group])
        answer = await connection.call(request, 4, 6.0)
        told = answer.coordinators[0]
        if told.error_code:
            self.retry(told.error_code, f"FindCoordinator of {group}")
            return None
        return told.host, told.port


def _address_of(brokers: Any, node_id: int) -> tuple[str, int] | None:
    for one in brokers:
        if one.node_id == node_id:
            return one.host, one.port
    return None


class RoutedProducer(Routed, Producer):
    """Of one partition."""

    def __init__(
        self, world: World, name: str, rng: Random, target: tuple[Topic, int], **how: Any
    ) -> None:
        super().__init__(world, name, rng, [target], **how)
        self.target = target


class RoutedCareless(Routed, CarelessProducer):
    def __init__(self, world: World, name: str, rng: Random, topic: Topic) -> None:
        super().__init__(world, name, rng, Topic(topic.name, topic.id, 1))
        self.target = (topic, 0)


class RoutedReader(Routed, Reader):
    """Of one partition."""

    def __init__(
        self, world: World, name: str, rng: Random, target: tuple[Topic, int], **how: Any
    ) -> None:
        super().__init__(world, name, rng, [target], **how)
        self.target = target

    def leave(self) -> None:
        super().leave()
        self._session = (0, 0)


class RoutedWholeReader(Routed, WholeReader):
    def __init__(self, world: World, name: str, rng: Random, target: tuple[Topic, int]) -> None:
        super().__init__(world, name, rng, [target])
        self.target = target

    def leave(self) -> None:
        super().leave()
        self._session = (0, 0)


class RoutedCommitter(Routed, Committer):
    """Commits numbers that only rise; what it would read lies elsewhere."""

    def __init__(
        self, world: World, name: str, rng: Random, targets: list[tuple[Topic, int]], **how: Any
    ) -> None:
        super().__init__(world, name, rng, targets, **how)
        self.target = self._group

    async def poll(self, max_wait_ms: int = 300) -> None:
        if self._member:
            for key in self.positions:
                self.positions[key] += 1
        await self.rest(max_wait_ms / 1000)


class RoutedAdmin(Routed, Admin):
    """Asks any broker; what only the controller may do is forwarded."""

    async def describe_until(self, wanted: dict[str, Any], within_s: float) -> dict[str, Any]:
        """What a broker tells; the last answer, where it never tells `wanted`."""
        end_at = self.loop.time() + within_s
        while True:
            there = await self.describe()
            if there == wanted or self.loop.time() > end_at:
                return there
            await self.rest(0.2)

    async def check_topics(self) -> None:
        """Each broker tells the same, soon."""
        fleet = self.world.cluster
        assert isinstance(fleet, Fleet)
        for member in fleet.awake:
            self.leave()
            network = fleet.network.at(self.name)
            try:
                self.connection = await connect(network, (member.host, 9092), self.name)
                self.host = member.host
            except Disconnected:
                continue
            there = await self.describe_until(self.history.topics, 10.0)
            if self.host == member.host and there != self.history.topics:
                raise Violation(
                    f"{member.host} tells of {sorted(there)}, there are "
                    f"{sorted(self.history.topics)}"
                )


class RoutedChurn(Routed, Churn):
    async def check_topics(self) -> None:
        """In the middle of faults a broker may lag behind for as long as it hears nothing."""

    async def _produce(self, topic: Topic, index: int, batch: bytearray, sent: Sent) -> None:
        self.leave()
        self.target = (topic, index)
        try:
            await super()._produce(topic, index, batch, sent)
        finally:
            self.target = None
            self.leave()


class RoutedTrimmer(Routed, Trimmer):
    async def trim(self, topic: Topic, index: int, offset: int) -> None:
        if self.target != (topic, index):
            self.leave()
            self.target = (topic, index)
        await super().trim(topic, index, offset)
