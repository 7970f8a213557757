"""Brokers in racks, and consumers that tell theirs: they go where they are sent, as real ones do.

A consumer leaves its rack's broker for the leader when that one does not answer, or answers an
error.
"""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

from broker.config import BrokerConfig
from broker.config.load import load
from protocol import messages as m
from protocol.errors import ErrorCode

from .client import Connection, Disconnected
from .cluster import PORT
from .fleet import FLEET_SETTINGS, Fleet, Member
from .fleet_simulation import FleetSimulation
from .routing import LOOK_UP_S, RoutedReader, RoutedWholeReader, _address_of
from .strike import Strike
from .workload import Topic, World

RACKS = ("a", "b", "c")


class RackFleet(Fleet):
    """Node 1 in rack a, 2 in b, 3 in c, 4 in a again …"""

    def _config_of(self, member: Member) -> BrokerConfig:
        given = {
            **FLEET_SETTINGS,
            "node.id": str(member.node_id),
            "listeners": f"{member.host}:{PORT}",
            "broker.rack": RACKS[(member.node_id - 1) % len(RACKS)],
        }
        return load(sets=[f"{key}={value}" for key, value in given.items()]).config


class InRack:
    """Of a reader: where it was sent. Before `Routed` in the order of bases."""

    rack: str = ""
    sent_to: int | None = None

    def leave(self) -> None:
        self.sent_to = None
        super().leave()  # type: ignore[misc]

    async def poll(self, max_wait_ms: int = 300) -> None:
        try:
            await super().poll(max_wait_ms)  # type: ignore[misc]
        except Disconnected:
            self.sent_to = None
            raise

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
                    if self.sent_to not in one.replica_nodes:
                        self.sent_to = None
                    wanted = one.leader_id if self.sent_to is None else self.sent_to
                    return _address_of(answer.brokers, wanted)
        return None

    def _request(self, *args: Any) -> Any:
        request = super()._request(*args)  # type: ignore[misc]
        request.rack_id = self.rack
        return request

    def _judge(
        self,
        key: tuple[str, int],
        one: Any,
        asked: dict[tuple[str, int], int],
        floors: dict[tuple[str, int], tuple[int, int]],
        stale: bool,
    ) -> None:
        history = self.history  # type: ignore[attr-defined]
        in_rack = self.sent_to is not None
        if one.error_code == ErrorCode.OFFSET_NOT_AVAILABLE and in_rack:
            history.counted["told OFFSET_NOT_AVAILABLE"] += 1
            self.leave()
            return
        before = history.counted["read"]
        # Who follows a leader may know less than it told others, and no more. So may who led until
        # a moment ago, and serves this rack now, while some still take it for the leader.
        super()._judge(key, one, asked, floors, True)  # type: ignore[misc]
        if in_rack:
            history.counted["read in rack"] += history.counted["read"] - before
            if one.error_code:
                self.leave()
        if one.preferred_read_replica >= 0:
            assert not one.records and not in_rack, (one.preferred_read_replica, self.sent_to)
            history.counted["sent to a rack"] += 1
            self.leave()
            self.sent_to = one.preferred_read_replica


class RackReader(InRack, RoutedReader):
    def __init__(
        self, world: World, name: str, rng: Random, target: tuple[Topic, int], rack: str
    ) -> None:
        super().__init__(world, name, rng, target, rewinds=0.1, pace_s=0.2)
        self._version = rng.choice((11, 12, 13, 15, 17))
        self.rack = rack


class RackWholeReader(InRack, RoutedWholeReader):
    def __init__(
        self, world: World, name: str, rng: Random, target: tuple[Topic, int], rack: str
    ) -> None:
        super().__init__(world, name, rng, target)
        self.rack = rack


class RackSimulation(FleetSimulation):
    """As the fleet's, in racks; and each partition is read from another rack as well."""

    def __init__(self, seed: int, strike: Strike | None = None) -> None:
        super().__init__(seed, strike)
        self.fleet = RackFleet(self.loop, self.store, self.network, self._random())
        self.world.cluster = self.fleet

    async def _build(self) -> tuple[list[Topic], list[Coroutine[Any, Any, None]]]:
        steady, doing = await super()._build()
        readers = [
            RackReader(
                self.world,
                f"rack-{rack}-{topic.name}-{index}",
                self._random(),
                (topic, index),
                rack,
            )
            for topic in steady
            for index in range(topic.partitions)
            for rack in self.rng.sample(RACKS, 2)
        ]
        self.clients += [reader.name for reader in readers]
        return steady, [*doing, *(reader.run() for reader in readers)]

    async def _prove(self, steady: list[Topic], count: int) -> None:
        for topic in steady:
            for index in range(topic.partitions):
                for rack in RACKS:
                    reader = RackWholeReader(
                        self.world,
                        f"proof-{rack}-{topic.name}-{index}",
                        self._random(),
                        (topic, index),
                        rack,
                    )
                    name = f"reading of {topic.name}-{index} in rack {rack}"
                    await self._within(reader.read_all(), name)
        await super()._prove(steady, count)


def run_rack_seed(seed: int) -> RackSimulation:
    """Raises what broke, with the seed in a note."""
    simulation = RackSimulation(seed)
    try:
        simulation.run()
    except BaseException as error:
        error.add_note(f"rack seed {seed}, at {simulation.loop.time() - 1000:.3f} s")
        raise
    return simulation
