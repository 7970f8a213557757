"""Several brokers on one simulated bucket: each a node id of its own, on a host of its own.

A process that dies is followed by another of the same node id on another host, as a container is.
A process whose incarnation was fenced rejoins by itself under a new one. Clients ask any of the
addresses for the way to the rest.

It stands in for `Cluster` towards clients: what they know of a host is asked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from broker.cluster.lifetime import Lifetime
from broker.config import BrokerConfig
from broker.config.load import load
from broker.controller.membership import StartRefused
from broker.environment import Environment
from broker.node import Node
from objectstore.wrappers.retry import RetryStore
from wal.errors import Fenced

from .cluster import PORT, SETTINGS, Cluster, Process
from .loop import SimulatedLoop, start_on
from .network import SimulatedNetwork
from .store import SimulatedStore

SESSION_TIMEOUT_S = 3.0
# Of machines' clocks from each other's.
SKEW_MS = 30_000

FLEET_SETTINGS = {
    **SETTINGS,
    "take.over": "false",
    "broker.session.timeout.ms": str(round(SESSION_TIMEOUT_S * 1000)),
    "broker.heartbeat.interval.ms": "500",
}


@dataclass(eq=False)
class Member(Process):
    """A process of the node id `node_id`. incarnations: all that it had, in order."""

    node_id: int = 0
    incarnations: list[int] = field(default_factory=list)
    lifetime: Lifetime | None = None
    may_be_replaced: bool = False


class Fleet(Cluster):
    """See the module."""

    def __init__(
        self, loop: SimulatedLoop, store: SimulatedStore, network: SimulatedNetwork, rng: Random
    ) -> None:
        super().__init__(loop, store, network, rng)
        self.members: dict[int, Member] = {}
        self.on_incarnation: Callable[[Member], None] | None = None

    # What clients know.

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Of all node ids' newest processes, whatever has become of them."""
        return [(one.host, PORT) for one in self.members.values()]

    def may_be_stale(self, host: str, asked_at: float) -> bool:
        replaced_at = self.process_at(host).replaced_at
        return replaced_at is not None and asked_at <= replaced_at + SESSION_TIMEOUT_S

    @property
    def serving(self) -> list[Member]:
        return [one for one in self.members.values() if one.ready and not one.ended]

    @property
    def awake(self) -> list[Member]:
        return [one for one in self.serving if not self.loop.is_paused(one.name)]

    @property
    def deciding(self) -> Member | None:
        """Who decides, as far as it knows itself; the newest of several."""
        found = None
        term = -1
        for one in self.serving:
            member = None if one.node is None else one.node._controller
            if member is not None and member.owns_term and member.image.term > term:
                found, term = one, member.image.term
        return found

    # Life and death.

    def start_node(self, node_id: int) -> Member:
        """A new process of that node id; the one before must have ended."""
        older = self.members.get(node_id)
        assert older is None or older.ended, older
        number = len(self.processes) + 1
        member = Member(number, f"h{number}", self.loop.time(), node_id=node_id)
        self.processes.append(member)
        self.members[node_id] = member
        self.counted["start"] += 1
        self.loop.skew_ms[member.name] = self._rng.randint(-SKEW_MS, SKEW_MS)
        self._tasks[member] = start_on(member.name, self._live_on(member))
        return member

    async def _live_on(self, member: Member) -> None:
        rng = Random(self._rng.random())
        store = RetryStore(self.store, rng) if self._retries else self.store
        environment = Environment(
            store=store,
            store_name="simulated",
            network=self.network.at(member.host),
            now_ms=self.loop.now_ms,
            rng=rng,
        )

        def new_node(config: BrokerConfig) -> Node:
            if member.node is not None:
                self.counted["rejoined"] += 1
            member.node = Node(config, environment)
            return member.node

        member.lifetime = lifetime = Lifetime(self._config_of(member), new_node, store, rng)
        try:
            await lifetime.start()
            member.ready = True
            self._changed.set()
            self.loop.record(f"{member.name} serves as node {member.node_id}")
            await lifetime.run()
        except Exception as error:
            self.counted[f"ended by {type(error).__name__}"] += 1
            if not isinstance(error, Fenced | StartRefused) or not member.may_be_replaced:
                self.bugs.append(error)
        except asyncio.CancelledError:
            return  # `stop_node`, which closes the node
        self._end(member)
        await lifetime.node.abort()

    def note_incarnations(self) -> None:
        """Who is what by now: incarnations are given out by the metadata log."""
        for member in self.members.values():
            node = member.node
            if member.ended or node is None or node._controller is None:
                continue
            if not node._controller.is_registered:
                continue
            incarnation = node._controller.incarnation
            if incarnation not in self._by_incarnation:
                self._by_incarnation[incarnation] = member
                member.incarnations.append(incarnation)
                member.incarnation = incarnation

    def log_ended(self, incarnation: int) -> None:
        self.note_incarnations()
        process = self._by_incarnation.get(incarnation)
        if process is not None:
            process.replaced_at = self.loop.time()

    async def stop_node(self, member: Member, deadline_s: float = 6.0) -> None:
        """As SIGTERM."""
        if member.ended or member.lifetime is None or not member.ready:
            return
        self.counted["stop"] += 1
        member.ready = False
        task = self._tasks[member]
        task.cancel()
        closing = start_on(member.name, member.lifetime.node.close(deadline_s))
        try:
            while not member.ended and not (closing.done() and task.done()):
                await asyncio.wait([one for one in (closing, task) if not one.done()], timeout=0.5)
            if closing.done():
                closing.result()
        finally:
            self._end(member)
            # What is left of the process goes with it.
            self.loop.crash(member.name)
            self.network.kill(member.name)

    async def until_serving(self, count: int, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while len(self.awake) < count:
                    self._changed.clear()
                    try:
                        async with asyncio.timeout(0.5):
                            await self._changed.wait()
                    except TimeoutError:
                        pass
        except TimeoutError:
            return False
        return True

    def _config_of(self, member: Member) -> BrokerConfig:
        given = {
            **FLEET_SETTINGS,
            "node.id": str(member.node_id),
            "listeners": f"{member.host}:{PORT}",
        }
        return load(sets=[f"{key}={value}" for key, value in given.items()]).config
