"""One seed: three brokers and more on one bucket, their clients, and what goes wrong in between.

    build      brokers join, topics, clients
    chaos      at least 30 simulated seconds and 300 acknowledged batches; faults all the while
    heal       the weather clears, all ways are free, everybody gets what he waits for
    prove      every partition is read from its leader; all brokers are stopped and new ones read
               the same; `verify` agrees

A run is a function of its seed: `trace` is a hash over all that happened.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from random import Random
from typing import Any

from broker.verify import verify
from objectstore.errors import StoreError
from protocol.errors import KafkaError
from wal.errors import LogError
from wal.keys import parse_log

from .checkers import History, Violation
from .fleet import Fleet, Member
from .loop import SimulatedLoop, start_on
from .network import SimulatedNetwork
from .routing import (
    RoutedAdmin,
    RoutedCareless,
    RoutedChurn,
    RoutedCommitter,
    RoutedProducer,
    RoutedReader,
    RoutedTrimmer,
    RoutedWholeReader,
)
from .store import FAIR, ROUGH, SimulatedStore
from .strike import Outcome, Strike, Striker
from .workload import Topic, World

LEAST_S = 30.0
LEAST_ACKNOWLEDGED = 300
HEALED_WITHIN_S = 90.0
MOST_BROKERS = 7

FLEET_FAULTS = (
    "kill",
    "kill",
    "kill_two",
    "kill_controller",
    "pause",
    "pause",
    "long_pause",
    "block",
    "block",
    "isolate",
    "lossy",
    "store_cut",
    "store_mute",
    "cut",
    "cut_all",
    "clock_jump",
    "outage",
    "stop",
    "join",
    "move",
    "move",
    "move",
    "move_and_kill",
    "rolling_restart",
)

# Every batch of runs has all of these, or it tests less than it says.
FLEET_KINDS = (*dict.fromkeys(FLEET_FAULTS), "before", "throttled", "lost_reply", "late", "hang")

FLEET_DEEDS = (
    "acknowledged",
    "read",
    "in session",
    "trimmed",
    "committed",
    "commits read",
    "topics created",
    "topics deleted",
    "moves",
    "rejoined",
    "delete wal",
    "delete data",
)


class FleetSimulation:
    def __init__(self, seed: int, strike: Strike | None = None) -> None:
        self.seed = seed
        self.rng = Random(f"fleet {seed}")
        self.loop = SimulatedLoop(seed, on_step=self._on_step)
        self.striker = Striker(seed, Random(f"strikes {seed}"), strike, self.loop.time)
        weather = self.rng.choice((FAIR, FAIR, ROUGH))
        self.weather = replace(weather, hang_s=3.0, slow_s=1.0, late_max_s=60.0, late_soon=0.6)
        self.store = SimulatedStore(self.loop, self._random(), self.weather)
        self.store.on_landed = self._landed
        self.network = SimulatedNetwork(self.loop, self._random())
        self.fleet = Fleet(self.loop, self.store, self.network, self._random())
        self.history = History(self.loop)
        self.fired: Counter[str] = Counter()
        self.world = World(self.loop, self.fleet, self.history, asyncio.Event())
        self.clients: list[str] = []

    def run(self) -> Outcome:
        with self.fleet.small():
            self.loop.run(self._main())
        self.fired.update(self.store.fired)
        self.fired.update(self.network.fired)
        return Outcome(
            self.seed,
            self.loop.trace,
            self.loop.time() - 1000.0,
            self.history.counted + self.fleet.counted,
            self.fired,
            self.striker.places,
            self.striker.struck,
        )

    def _random(self) -> Random:
        return Random(self.rng.random())

    # The story.

    async def _main(self) -> None:
        count = self.rng.choice((3, 3, 3, 4, 5))
        for node_id in range(1, count + 1):
            self.fleet.start_node(node_id)
            if self.rng.random() < 0.5:
                await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        if not await self.fleet.until_serving(count, 60.0):
            self._raise_failures([])
            raise Violation(f"{len(self.fleet.awake)} of {count} brokers serve after a minute")
        steady, doing = await self._build()
        clients = [asyncio.create_task(one) for one in doing]
        chaos = asyncio.create_task(self._chaos(count))
        end_at = self.loop.time() + LEAST_S
        while self.loop.time() < end_at or not self._enough():
            if self.loop.time() > end_at + 300:
                raise Violation(f"too little happens: {dict(self.history.counted)}")
            await asyncio.sleep(0.5)
            self._raise_failures([*clients, chaos])
        chaos.cancel()
        await asyncio.wait([chaos])
        await self._heal(count)
        self.world.stopping.set()
        await self._finish(clients)
        await self._prove(steady, count)

    def _enough(self) -> bool:
        return self.history.counted["acknowledged"] >= LEAST_ACKNOWLEDGED

    async def _build(self) -> tuple[list[Topic], list[Coroutine[Any, Any, None]]]:
        rng, world = self.rng, self.world
        admin = RoutedAdmin(world, "admin", self._random())
        orders = await admin.create("orders", 3)
        trimmed = await admin.create("trimmed", 2)
        kept = await admin.create("kept", 1, {"retention.bytes": "6000"})
        self.history.at(kept.place(0)).retention = True
        every = [(t, i) for t in (orders, trimmed, kept) for i in range(t.partitions)]
        pace_s = rng.choice((0.15, 0.3))
        clients: list[Any] = []
        for topic, index in every:
            name = f"{topic.name}-{index}"
            how: dict[str, Any] = {"idempotent": index < 2, "pace_s": pace_s}
            clients.append(
                RoutedProducer(world, f"one-{name}", self._random(), (topic, index), **how)
            )
            clients.append(
                RoutedReader(
                    world,
                    f"reader-{name}",
                    self._random(),
                    (topic, index),
                    rewinds=0.1,
                    pace_s=0.3,
                )
            )
        safe = [(orders, i) for i in range(3)]
        clients += [
            RoutedCareless(world, "careless", self._random(), orders),
            RoutedCommitter(world, "member", self._random(), safe, member=True),
            RoutedCommitter(world, "alone", self._random(), safe, member=False),
            RoutedChurn(world, "churn", self._random()),
            RoutedTrimmer(world, "trimmer", self._random(), [trimmed]),
        ]
        self.clients = [client.name for client in clients]
        return [orders, trimmed, kept], [client.run() for client in clients]

    # What goes wrong.

    async def _chaos(self, count: int) -> None:
        rng = self.rng
        calm_at = self.loop.time() + 2 * LEAST_S
        while True:
            mean_s = 1.2 if self.loop.time() < calm_at else 10.0
            await asyncio.sleep(rng.expovariate(1 / mean_s))
            what = rng.choice(FLEET_FAULTS)
            await getattr(self, f"_do_{what}")()
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            self._restart(count)

    def _restart(self, count: int) -> None:
        """Who died comes back, at once or in a while; the last `count` always."""
        for node_id, member in list(self.fleet.members.items()):
            if member.ended and (node_id <= count or self.rng.random() < 0.3):
                self.fleet.start_node(node_id)

    def _fire(self, what: str) -> None:
        self.fired[what] += 1
        self.loop.record(f"chaos {what}")

    def _victim(self) -> Member | None:
        alive = [one for one in self.fleet.members.values() if not one.ended]
        return self.rng.choice(alive) if alive else None

    def _crash(self, member: Member | None, what: str) -> None:
        if member is not None and not member.ended:
            self._fire(what)
            self.fleet.crash(member)

    def _on_step(self, node: str, places: tuple[str, ...]) -> None:
        member = self.fleet.named(node)
        if not isinstance(member, Member):
            return
        if self.loop.is_crashed(node) or self.loop.is_paused(node):
            return
        if self.striker.calm:
            self.striker.places.update(places)
            return
        fault = self.striker.passes(places, may_be_hit=True)
        if fault is None:
            return
        self._fire(f"{fault}_at_await")
        if fault == "crash":
            self.fleet.crash(member)
            self.loop.call_later(1.0, self._again, member, context=contextvars.Context())
        else:
            # Long enough, now and then, for others to take over what it leads.
            self.fleet.pause(member, self.striker.choose((0.5, 2.0, 8.0)))

    def _again(self, member: Member) -> None:
        if self.fleet.members[member.node_id] is member and member.ended:
            self.fleet.start_node(member.node_id)

    async def _do_kill(self) -> None:
        self._crash(self._victim(), "kill")

    async def _do_kill_two(self) -> None:
        self._crash(self._victim(), "kill_two")
        self._crash(self._victim(), "kill_two")

    async def _do_kill_controller(self) -> None:
        self._crash(self.fleet.deciding, "kill_controller")

    async def _do_pause(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._fire("pause")
            self.fleet.pause(victim, self.rng.uniform(0.05, 2.5))

    async def _do_long_pause(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._fire("long_pause")
            self.fleet.pause(victim, self.rng.choice((4.0, 8.0, 15.0)))

    def _hosts(self) -> list[str]:
        return [one.host for one in self.fleet.members.values() if not one.ended]

    async def _do_block(self) -> None:
        """Between two brokers, or a client and a broker; one way or both."""
        rng, hosts = self.rng, self._hosts()
        if len(hosts) < 2:
            return
        one, other = rng.sample(hosts, 2)
        if rng.random() < 0.3:
            one = rng.choice(self.clients)
        self._fire("block")
        for_s = rng.choice((0.5, 2.0, 5.0, 12.0))
        self.network.block(one, other, for_s)
        if rng.random() < 0.5:
            self.network.block(other, one, for_s)

    async def _do_isolate(self) -> None:
        """One broker from all the others; clients and store reach it."""
        victim = self._victim()
        if victim is None:
            return
        self._fire("isolate")
        for_s = self.rng.choice((1.0, 4.0, 10.0))
        for host in self._hosts():
            if host != victim.host:
                self.network.block(victim.host, host, for_s)
                if self.rng.random() < 0.8:
                    self.network.block(host, victim.host, for_s)

    async def _do_lossy(self) -> None:
        hosts = self._hosts()
        if len(hosts) >= 2:
            self._fire("lossy")
            one, other = self.rng.sample(hosts, 2)
            self.network.lose(one, other, self.rng.choice((0.0, 0.1, 0.4)))

    async def _do_store_cut(self, what: str = "store_cut") -> None:
        victim = self._victim()
        if victim is not None:
            self._fire(what)
            for_s = self.rng.choice((0.5, 2.0, 6.0))
            self.store.cut_off(victim.name, for_s, answers_only=what == "store_mute")

    async def _do_store_mute(self) -> None:
        await self._do_store_cut("store_mute")

    async def _do_cut(self) -> None:
        self.network.cut_one()

    async def _do_cut_all(self) -> None:
        self.network.cut_all()

    async def _do_clock_jump(self) -> None:
        victim = self._victim()
        if victim is not None:
            self._fire("clock_jump")
            skew = self.loop.skew_ms
            skew[victim.name] = skew.get(victim.name, 0) + self.rng.randint(-5_000, 5_000)

    async def _do_outage(self) -> None:
        self._fire("outage")
        self.store.outage(self.rng.uniform(0.2, 4.0))

    async def _do_stop(self) -> None:
        victim = self._victim()
        if victim is not None and victim.ready:
            self._fire("stop")
            await self.fleet.stop_node(victim)

    async def _do_join(self) -> None:
        if len(self.fleet.members) < MOST_BROKERS:
            self._fire("join")
            self.fleet.start_node(max(self.fleet.members) + 1)

    async def _do_move(self) -> None:
        """An administrator moves some partitions, wherever they are."""
        rng, deciding = self.rng, self.fleet.deciding
        if deciding is None or deciding.node is None or self.loop.is_paused(deciding.name):
            return
        controller = deciding.node.controller
        image = controller.image
        live = [one.incarnation for one in image.live_brokers()]
        if not live:
            return
        chance = rng.choice((0.2, 0.5, 1.0))
        assignment = {
            partition.stream_id: rng.choice(live)
            for _, partition in image.partitions()
            if rng.random() < chance
        }
        self._fire("move")
        moving = start_on(deciding.name, controller.move_leaders(assignment))
        await asyncio.wait([moving], timeout=5.0)
        if not moving.done():
            return
        try:
            numbers = moving.result()
        except (KafkaError, LogError, StoreError, AssertionError):
            return
        self.history.counted["moves"] += len(numbers)

    async def _do_move_and_kill(self) -> None:
        """Somebody dies in the middle of a move."""
        moving = asyncio.create_task(self._do_move())
        await asyncio.sleep(self.rng.uniform(0.0, 0.3))
        victim = self.rng.choice((self._victim(), self.fleet.deciding))
        self._crash(victim, "move_and_kill")
        await moving

    async def _do_rolling_restart(self) -> None:
        self._fire("rolling_restart")
        for node_id in sorted(self.fleet.members):
            member = self.fleet.members[node_id]
            await self.fleet.stop_node(member)
            if not self.fleet.members[node_id].ended:
                continue
            self.fleet.start_node(node_id)
            await self.fleet.until_serving(len(self.fleet.members), 5.0)

    # The end.

    async def _heal(self, count: int) -> None:
        self.striker.calm = True
        self.store.weather = FAIR
        self.store.recover()
        self.network.heal()
        self.loop.record("healed")
        end_at = self.loop.time() + HEALED_WITHIN_S
        while True:
            for node_id in range(1, count + 1):
                if self.fleet.members[node_id].ended:
                    self.fleet.start_node(node_id)
            self._raise_failures([])
            if await self.fleet.until_serving(count, 5.0):
                return
            if self.loop.time() > end_at:
                raise Violation(
                    f"{len(self.fleet.awake)} of {count} brokers serve after all has healed:\n"
                    f"{self.loop.describe_waiting()}"
                )

    async def _finish(self, clients: list[asyncio.Task[None]]) -> None:
        """Every client gets what it waits for."""
        end_at = self.loop.time() + HEALED_WITHIN_S
        while any(not client.done() for client in clients):
            if self.loop.time() > end_at:
                raise Violation(f"clients wait for ever:\n{self.loop.describe_waiting()}")
            await asyncio.wait(clients, timeout=1.0)
            self._raise_failures(clients)

    async def _prove(self, steady: list[Topic], count: int) -> None:
        """The present leaders, and those after another death or two, tell the same."""
        for name in ("first", "again"):
            for topic in steady:
                for index in range(topic.partitions):
                    reader = RoutedWholeReader(
                        self.world,
                        f"proof-{name}-{topic.name}-{index}",
                        self._random(),
                        (topic, index),
                    )
                    await self._within(reader.read_all(), f"{name} reading of {topic.name}")
            admin = RoutedAdmin(self.world, f"proof-{name}", self._random())
            await self._within(admin.check_topics(), "topics")
            self._raise_failures([])
            if name == "first":
                self.store.land_late()
                for member in self.rng.sample(self.fleet.awake, 2):
                    if self.rng.random() < 0.5:
                        self.fleet.crash(member)
                    else:
                        await self.fleet.stop_node(member)
                    self.fleet.start_node(member.node_id)
                await self._heal(count)
        await verify(self.store.inner)
        for member in self.fleet.serving:
            await self.fleet.stop_node(member)
        await verify(self.store.inner)
        self._raise_failures([])

    async def _within(self, what: Coroutine[Any, Any, None], name: str) -> None:
        try:
            async with asyncio.timeout(HEALED_WITHIN_S):
                await what
        except TimeoutError:
            self._raise_failures([])
            raise Violation(f"{name} does not end:\n{self.loop.describe_waiting()}") from None

    def _raise_failures(self, tasks: list[asyncio.Task[None]]) -> None:
        for bug in self.fleet.bugs:
            raise bug
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    def _landed(self, op: str, key: str) -> None:
        self.history.counted[f"{op} {key.split('/')[0]}"] += 1
        if op == "create" and key.startswith("wal/") and key.endswith("/end"):
            log = parse_log(key)
            assert log is not None
            self.fleet.log_ended(log.log_id)


def run_fleet_seed(seed: int, strike: Strike | None = None) -> Outcome:
    """Raises what broke, with the seed in a note."""
    simulation = FleetSimulation(seed, strike)
    try:
        return simulation.run()
    except BaseException as error:
        error.add_note(f"fleet seed {seed}, at {simulation.loop.time() - 1000:.3f} s")
        raise
