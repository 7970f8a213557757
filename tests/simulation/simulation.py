"""One seed: a broker, its bucket, its clients, and what goes wrong between them.

    build      topics, producers, readers, a group, an admin
    chaos      at least 30 simulated seconds and 300 acknowledged batches; faults all the while
    heal       the weather clears, everybody gets what he waits for
    prove      a fresh process reads everything, the checkers compare, `verify` agrees

A run is a function of its seed (and of `strike`, which names one more fault): `trace` is a hash
over all that happened.
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
from wal.keys import parse_log

from .admin import Admin, Churn, Trimmer
from .checkers import History, Violation
from .cluster import Cluster, Process
from .loop import NODE, SimulatedLoop
from .network import SimulatedNetwork
from .processes import Child
from .readers import Committer, Reader, WholeReader
from .search import Searcher
from .store import FAIR, ROUGH, SimulatedStore
from .strike import ONE_BROKER, ROUGH_FOR_S, Outcome, Strike, Striker
from .workload import CarelessProducer, Doing, Producer, Topic, World

# From the end of all faults to the answer that every client waits for.
HEALED_WITHIN_S = 60.0


class Simulation:
    def __init__(self, seed: int, strike: Strike | None = None) -> None:
        self.seed = seed
        self.rng = Random(f"simulation {seed}")
        self.loop = SimulatedLoop(seed, on_step=self._on_step)
        weather = self.rng.choice((FAIR, ROUGH, ROUGH))
        self.weather = replace(weather, hang_s=3.0, slow_s=1.0, late_max_s=60.0, late_soon=0.6)
        self.store = SimulatedStore(self.loop, self._random(), self.weather)
        self.store.on_landed = self._landed
        self.store.about_to_send = self._about_to_send
        self.network = SimulatedNetwork(self.loop, self._random())
        self.cluster = Cluster(self.loop, self.store, self.network, self._random())
        self.history = History(self.loop)
        self.fired: Counter[str] = Counter()
        self.world = World(self.loop, self.cluster, self.history, asyncio.Event())
        self._dice = self._random()
        self._stops: list[asyncio.Task[None]] = []
        # Once it has found no metadata, and looks for what others left, until they have left it.
        self._second_dozes = False
        self.striker = Striker(seed, self._random(), strike, self.loop.time)

    def run(self) -> Outcome:
        with self.cluster.small():
            self.loop.run(self._main())
        self.fired.update(self.store.fired)
        self.fired.update(self.network.fired)
        return Outcome(
            self.seed,
            self.loop.trace,
            self.loop.time() - 1000.0,
            self.history.counted + self.cluster.counted,
            self.fired,
            self.striker.places,
            self.striker.struck,
        )

    def _random(self) -> Random:
        return Random(self.rng.random())

    # The story.

    async def _main(self) -> None:
        self.cluster.start()
        if self.rng.random() < 0.3:  # two are born at about the same time
            self._second_dozes = self.rng.random() < 0.5
            await asyncio.sleep(self.rng.uniform(0.0, 0.1))
            self.cluster.start()
        building = asyncio.create_task(self._build())
        while not building.done():
            await asyncio.wait([building], timeout=1.0)
            self._raise_failures([])
        steady, doing = building.result()
        clients = [asyncio.create_task(one) for one in doing]
        chaos = asyncio.create_task(self._chaos())
        begun = self.loop.time()
        while self.loop.time() < begun + ONE_BROKER.seconds or not self._enough():
            if self.loop.time() > begun + 4 * ROUGH_FOR_S:
                raise Violation(f"too little happens: {dict(self.history.counted)}")
            if self.loop.time() > begun + ROUGH_FOR_S and not self.striker.calm:
                # It is to do enough, however rough it was until here.
                chaos.cancel()
                self._heal()
            await asyncio.sleep(0.5)
            if self.striker.calm and self.cluster.current.ended:
                self.cluster.start()
            self._raise_failures([*clients, chaos])
        chaos.cancel()
        await asyncio.wait([chaos])
        self._heal()
        self.world.stopping.set()
        if self._stops:
            await asyncio.wait(self._stops)
            self._raise_failures(self._stops)
        await self._finish(clients)
        await self._prove(steady)

    def _enough(self) -> bool:
        fired = sum(self.store.fired.values()) + sum(self.fired.values())
        acknowledged = self.history.counted["acknowledged"]
        return acknowledged >= ONE_BROKER.acknowledged and fired >= ONE_BROKER.faults

    async def _build(self) -> tuple[list[Topic], list[Coroutine[Any, Any, None]]]:
        rng, world = self.rng, self.world
        admin = Admin(world, "admin", self._random())
        orders = await admin.create("orders", 2)
        events = await admin.create("events", 2)
        trimmed = await admin.create("trimmed", 2)
        kept = await admin.create("kept", 1, {"retention.bytes": "6000"})
        for index in range(kept.partitions):
            self.history.at(kept.place(index)).retention = True
        every = [(t, i) for t in (orders, events, trimmed, kept) for i in range(t.partitions)]
        safe = [(orders, 0), (orders, 1), (events, 0)]
        pace_s = rng.choice((0.3, 0.6))
        clients: list[Doing] = [
            Producer(world, "one", self._random(), every, idempotent=True, pace_s=pace_s),
            Producer(world, "two", self._random(), safe, idempotent=True, pace_s=pace_s / 2),
            Producer(world, "plain", self._random(), every, idempotent=False, pace_s=2 * pace_s),
            CarelessProducer(world, "careless", self._random(), events),
            Reader(world, "reader", self._random(), every),
            Reader(world, "second", self._random(), every, rewinds=0.2, pace_s=0.3),
            Committer(world, "member", self._random(), safe, member=True),
            Committer(world, "alone", self._random(), safe, member=False),
            Churn(world, "churn", self._random()),
            Trimmer(world, "trimmer", self._random(), [trimmed]),
            Searcher(world, "searcher", self._random(), every),
        ]
        return [orders, events, trimmed, kept], [client.run() for client in clients]

    async def _chaos(self) -> None:
        rng, cluster = self.rng, self.cluster
        calm_at = self.loop.time() + 2 * ONE_BROKER.seconds
        while True:
            mean_s = 2.5 if self.loop.time() < calm_at else 10.0
            await asyncio.sleep(rng.expovariate(1 / mean_s))
            what = rng.choice(FAULTS)
            process = cluster.current
            if what == "crash":
                self._fire(what)
                cluster.crash(process)
            elif what == "strike":
                self.striker.armed = True
            elif what == "short_pause":
                self._fire(what)
                cluster.pause(process, rng.uniform(0.05, 3.0))
            elif what == "replace_paused":
                # The old one wakes up when the new one serves, or in the middle of its start.
                self._fire(what)
                cluster.pause(process, rng.choice((0.2, 1.0, 5.0, 15.0)))
                await asyncio.sleep(rng.uniform(0.0, 1.0))
                cluster.start()
            elif what == "replace_live":
                self._fire(what)
                cluster.start()
            elif what == "race":
                # Two successors at about the same time.
                self._fire(what)
                cluster.start()
                await asyncio.sleep(rng.choice((0.0, rng.uniform(0.0, 0.3))))
                cluster.start()
            elif what == "stop":
                self._fire(what)
                if rng.random() < 0.4:
                    self.store.outage(rng.choice((0.5, 10.0)))
                await cluster.stop(process)
            elif what == "lull":
                self._fire(what)
                self.world.busy.clear()
                await asyncio.sleep(rng.uniform(5.0, 20.0))
                self.world.busy.set()
            elif what == "clock_jump":
                self._fire(what)
                skew = self.loop.skew_ms
                skew[process.name] = skew.get(process.name, 0) + rng.randint(-5_000, 5_000)
            elif what == "cut":
                self.network.cut_one()
            elif what == "cut_all":
                self.network.cut_all()
            elif what == "outage":
                self._fire(what)
                self.store.outage(rng.uniform(0.2, 4.0))
            elif what == "bucket_missing":
                self._fire(what)
                for _ in range(rng.randrange(1, 6)):
                    self.store.outage(rng.uniform(0.02, 0.5), rng.choice(("missing", "before")))
                    await asyncio.sleep(rng.uniform(0.05, 0.5))
                self.store.outage(rng.uniform(0.2, 2.0), "missing")
            await asyncio.sleep(rng.uniform(0.0, 1.0))
            if cluster.current.ended:
                cluster.start()
            if rng.random() < 0.8:
                await cluster.ready(10.0)

    def _fire(self, what: str) -> None:
        self.fired[what] += 1
        self.loop.record(f"chaos {what}")

    def _heal(self) -> None:
        self.store.weather = FAIR
        self.loop.executor_delay_s = (0.0, 0.002)
        self.store.recover()
        self.world.busy.set()
        self.striker.calm = True
        if self.cluster.current.ended:
            self.cluster.start()

    async def _finish(self, clients: list[asyncio.Task[None]]) -> None:
        """Every client gets what it waits for."""
        end_at = self.loop.time() + HEALED_WITHIN_S
        while any(not client.done() for client in clients):
            if self.loop.time() > end_at:
                raise Violation(f"clients wait for ever:\n{self.loop.describe_waiting()}")
            if self.cluster.current.ended:
                self.cluster.start()
            await asyncio.wait(clients, timeout=1.0)
            self._raise_failures(clients)

    async def _prove(self, steady: list[Topic]) -> None:
        """Two fresh processes, one after a stop or crash of the other, tell the same."""
        for name in ("first", "again"):
            process = self.cluster.current
            if self.rng.random() < 0.5:
                self.cluster.crash(process)
            else:
                await self.cluster.stop(process)
                self.cluster.crash(process)
            self.store.land_late()
            self.cluster.start()
            targets = [(t, i) for t in steady for i in range(t.partitions)]
            reader = WholeReader(self.world, f"proof-{name}", self._random(), targets)
            await asyncio.wait_for(reader.read_all(), HEALED_WITHIN_S)
            await Admin(self.world, "proof", self._random()).check_topics()
            self._raise_failures([])
        # With the last process alive, and once more when it has left its last checkpoint.
        await verify(self.store.inner)
        await self.cluster.stop(self.cluster.current)
        await verify(self.store.inner)
        self._raise_failures([])

    def _raise_failures(self, tasks: list[asyncio.Task[None]]) -> None:
        for bug in self.cluster.every_bug:
            raise bug
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    # What the loop and the store tell.

    def _on_step(self, node: str, places: tuple[str, ...]) -> None:
        process = self.cluster.named(node)
        child = self.cluster.child(node)
        if process is None and child is None:
            return
        if self.loop.is_crashed(node) or self.loop.is_paused(node):
            return
        of = self.cluster.named(child.parent) if child is not None else process
        dozes = self._second_dozes and node == "p2"
        if dozes and any("_refuse_remains" in place for place in places):
            self._second_dozes = False
            self.loop.pause(node, 6.0)
            return
        fault = self.striker.passes(places, may_be_hit=of is self.cluster.current)
        if fault == "stop" and (process is None or not process.ready):
            return
        if fault is not None:
            self._fire(f"{fault}_at_await")
            if process is not None:
                self._hit(process, fault)
            elif child is not None:
                self._hit_child(child, fault)

    def _hit(self, process: Process, fault: str) -> None:
        newest = process is self.cluster.current
        if fault == "stop":
            self._stops.append(self.loop.create_task(self.cluster.stop(process)))
            delay_s = self._dice.uniform(0.0, 1.0)
        elif fault == "crash":
            self.cluster.crash(process)
            delay_s = self._dice.uniform(0.0, 1.0)
        elif fault == "pause":
            self.cluster.pause(process, self._dice.choice((0.5, 2.0)))
            return
        else:
            # It wakes up when another has taken its place, or in the middle of that.
            self.cluster.pause(process, self._dice.choice((1.0, 4.0, 12.0)))
            delay_s = self._dice.uniform(0.0, 0.5)
        if newest:
            context = contextvars.Context()
            self.loop.call_later(delay_s, self._follow, process, context=context)

    def _hit_child(self, child: Child, fault: str) -> None:
        """The worker that merges; its parent goes on."""
        if fault == "crash":
            child.kill()
        else:
            self.loop.pause(child.name, self._dice.choice((0.5, 2.0, 20.0)))

    def _follow(self, process: Process) -> None:
        if process is self.cluster.current:
            self.cluster.start()

    def _about_to_send(self, op: str, key: str) -> bool:
        """Now and then a broker sleeps between composing an object of its log and sending it."""
        process = self.cluster.named(NODE.get())
        if process is not self.cluster.current or self.striker.calm:
            return False
        if op != "create" or not key.startswith("wal/") or self._dice.random() > 0.004:
            return False
        if process is None or self.loop.is_paused(process.name):
            return False
        self._hit(process, self._dice.choice(("pause", "replace")))
        return True

    def _landed(self, op: str, key: str, by: str) -> None:
        self.history.counted[f"{op} {key.split('/')[0]}"] += 1
        if op == "create" and key.startswith("wal/") and key.endswith("/end"):
            log = parse_log(key)
            assert log is not None
            self.cluster.log_ended(log.log_id)


FAULTS = (  # what `_chaos` draws from
    "crash",
    "strike",
    "strike",
    "strike",
    "short_pause",
    "replace_paused",
    "replace_live",
    "stop",
    "clock_jump",
    "cut",
    "cut_all",
    "outage",
    "bucket_missing",
    "race",
    "lull",
)


def run_seed(seed: int, strike: Strike | None = None) -> Outcome:
    """Raises what broke, with the seed in a note."""
    simulation = Simulation(seed, strike)
    try:
        return simulation.run()
    except BaseException as error:
        error.add_note(f"seed {seed} {strike or ''}, at {simulation.loop.time() - 1000:.3f} s")
        raise


# Every run has some of these; a batch of runs in which one never fired tests less than it says.
KINDS = (
    "crash",
    "short_pause",
    "replace_paused",
    "replace_live",
    "stop",
    "clock_jump",
    "outage",
    "bucket_missing",
    "race",
    "lull",
    "pause_before_sending",
    "late_after_trim",
    "stop_at_await",
    "crash_at_await",
    "pause_at_await",
    "replace_at_await",
    "cut",
    "cut_all",
    "back_pressure",
    "before",
    "throttled",
    "lost_reply",
    "late",
    "hang",
    "slow",
    "conflict",
)

# What clients and broker did in a batch of runs, or it proves nothing about them.
DEEDS = (
    "acknowledged",
    "read",
    "rewound",
    "in session",
    "searched",
    "out of range",
    "trimmed",
    "committed",
    "commits read",
    "topics created",
    "topics deleted",
    "fenced",
    "adopted",
    "delete wal",
    "delete data",
    "delete meta",
)
