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
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from random import Random
from typing import Any

from broker.verify import verify
from wal.format.header import Kind, decode_header
from wal.keys import parse_log

from .checkers import History, Violation
from .fleet import Fleet
from .fleet_chaos import FleetChaos
from .loop import SimulatedLoop
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
from .strike import ROUGH_FOR_S, SEVERAL_BROKERS, Outcome, Strike, Striker
from .workload import Topic, World

HEALED_WITHIN_S = 90.0


class FleetSimulation(FleetChaos):
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
        self.count = self.rng.choice((3, 3, 3, 4, 5))
        self._meanwhile: list[asyncio.Task[None]] = []
        self._writers: dict[str, str] = {}  # of logs, by prefix
        self._broken: list[Violation] = []

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
            SEVERAL_BROKERS,
        )

    def _random(self) -> Random:
        return Random(self.rng.random())

    # The story.

    async def _main(self) -> None:
        count = self.count
        for node_id in range(1, count + 1):
            self.fleet.start_node(node_id)
            if self.rng.random() < 0.5:
                await asyncio.sleep(self.rng.uniform(0.0, 2.0))
        if not await self.fleet.until_serving(count, 60.0):
            self._raise_failures([])
            raise Violation(f"{len(self.fleet.awake)} of {count} brokers serve after a minute")
        steady, doing = await self._build()
        clients = [asyncio.create_task(one) for one in doing]
        chaos = asyncio.create_task(self._chaos())
        begun = self.loop.time()
        while self.loop.time() < begun + SEVERAL_BROKERS.seconds or not self._enough():
            if self.loop.time() > begun + 4 * ROUGH_FOR_S:
                raise Violation(f"too little happens: {dict(self.history.counted)}")
            if self.loop.time() > begun + ROUGH_FOR_S and not self.striker.calm:
                # It is to do enough, however rough it was until here.
                chaos.cancel()
                await self._heal(count)
            await asyncio.sleep(0.5)
            self._raise_failures([*clients, chaos, *self._meanwhile])
        for task in (chaos, *self._meanwhile):
            task.cancel()
        await asyncio.wait([chaos, *self._meanwhile])
        self._raise_failures([chaos, *self._meanwhile])
        await self._heal(count)
        self.world.stopping.set()
        await self._finish(clients)
        await self._prove(steady, count)

    def _enough(self) -> bool:
        acknowledged = self.history.counted["acknowledged"]
        return acknowledged >= SEVERAL_BROKERS.acknowledged and (
            sum(self.fired.values()) >= SEVERAL_BROKERS.faults
        )

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
        for bug in (*self._broken, *self.fleet.bugs):
            raise bug
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    def _landed(self, op: str, key: str, by: str) -> None:
        self.history.counted[f"{op} {key.split('/')[0]}"] += 1
        if op == "create":
            self._check_writer(key, by)
        if op == "create" and key.startswith("wal/") and key.endswith("/end"):
            log = parse_log(key)
            assert log is not None
            self.fleet.log_ended(log.log_id)

    def _check_writer(self, key: str, by: str) -> None:
        """One process at most decides in a term, and writes in a log; others put only seals."""
        log = parse_log(key)
        if log is None or log.seq_of(key) is None:
            return
        data = self.store.inner._objects[key][0]
        if decode_header(data, key).kind != Kind.LOG:
            return
        writer = self._writers.setdefault(log.prefix, by)
        if writer != by:
            self._broken.append(Violation(f"{key}: of {by}, in a log of {writer}"))
