"""One broker takes the place of another: busy, unreachable, crashing again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

import broker.failovers
from objectstore.errors import AccessDenied
from objectstore.store import Chunks
from s3stream.metadata.tail import load
from s3stream.takeover import RecoveredLog
from s3stream.takeover import recover as recover_really
from wal.errors import HoleInLog
from wal.keys import meta_log, wal_log
from wal.seal import end_log

from .admin import Admin
from .checkers import History
from .cluster import Cluster, Process
from .loop import SimulatedLoop
from .network import SimulatedNetwork
from .readers import WholeReader
from .store import FAIR, ROUGH, SimulatedStore, Weather
from .workload import Producer, Topic, World

SEEDS = range(4)
# A store that fails every tenth request holds one broker up for minutes; a demand that things go
# on is met sooner or later, or not at all.
PATIENCE_S = 1800


async def until(condition: Callable[[], bool], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until_ended(process: Process, within_s: float) -> None:
    await until(lambda: process.ended, within_s)


class Scene:
    """A bucket, brokers, one topic, producers that never rest. body: what happens to them."""

    def __init__(self, seed: int, weather: Weather = FAIR) -> None:
        self.rng = Random(f"take over {seed}")
        self.loop = SimulatedLoop(seed)
        self.store = SimulatedStore(self.loop, self._random(), weather)
        self.network = SimulatedNetwork(self.loop, self._random())
        self.cluster = Cluster(self.loop, self.store, self.network, self._random())
        self.history = History(self.loop)
        self.world = World(self.loop, self.cluster, self.history, asyncio.Event())
        self.admin = Admin(self.world, "admin", self._random())
        self.orders: Topic
        self._clients: list[asyncio.Task[None]] = []

    def _random(self) -> Random:
        return Random(self.rng.random())

    def play(self, body: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            self.cluster.start()
            self.orders = await self.admin.create("orders", 4)
            await body()
            for bug in self.cluster.bugs:
                raise bug

        with self.cluster.small():
            self.loop.run(main())

    def produce(self, pace_s: float = 0.01) -> None:
        targets = [(self.orders, i) for i in range(4)]
        for name in ("one", "two", "three"):
            producer = Producer(
                self.world, name, self._random(), targets, idempotent=True, pace_s=pace_s
            )
            self._clients.append(asyncio.create_task(producer.run()))

    @property
    def acknowledged(self) -> int:
        return self.history.counted["acknowledged"]

    async def until_acknowledged(self, more: int) -> None:
        goal = self.acknowledged + more
        await until(lambda: self.acknowledged >= goal, PATIENCE_S)

    async def check_everything(self) -> None:
        """Whatever was acknowledged is there: from the newest process, and from a fresh one."""
        self.world.stopping.set()
        async with asyncio.timeout(PATIENCE_S):
            for client in self._clients:
                await client
        for last in (False, True):
            targets = [(self.orders, i) for i in range(4)]
            async with asyncio.timeout(PATIENCE_S):
                await WholeReader(self.world, f"all {last}", self._random(), targets).read_all()
                await self.admin.check_topics()
            if not last:
                self.cluster.crash(self.cluster.current)
                self.cluster.start()
                await self.cluster.ready(PATIENCE_S)


@pytest.mark.parametrize("weather", [FAIR, ROUGH], ids=["fair", "rough"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_busy_broker_is_replaced_and_nothing_acknowledged_is_lost(
    seed: int, weather: Weather
) -> None:
    scene = Scene(seed, weather)

    async def body() -> None:
        scene.produce()
        for _ in range(3):
            await scene.until_acknowledged(100)
            old = scene.cluster.current
            scene.cluster.start()
            await scene.cluster.ready(PATIENCE_S)
            assert scene.cluster.current.ready
            await until_ended(old, PATIENCE_S)
        assert scene.cluster.counted["fenced"] == 3
        await scene.until_acknowledged(100)
        await scene.check_everything()

    scene.play(body)


@contextmanager
def unreachable(network: SimulatedNetwork, source: str, host: str) -> Iterator[None]:
    """Clients reach both, and the two not each other."""
    connect = network.connect

    async def refuse(asking: str, asked: str, *rest: Any) -> Any:
        if (asking, asked) == (source, host):
            raise ConnectionRefusedError(111, "cut off")
        return await connect(asking, asked, *rest)

    with patch.object(network, "connect", refuse):
        yield


@pytest.mark.parametrize("seed", SEEDS)
def test_a_busy_broker_that_nobody_can_tell_finds_out_by_its_log(seed: int) -> None:
    scene = Scene(seed)

    async def body() -> None:
        scene.produce(pace_s=0.002)
        await scene.until_acknowledged(300)
        old = scene.cluster.current
        with unreachable(scene.network, "h2", "h1"):
            scene.cluster.start()
            await scene.cluster.ready(PATIENCE_S)
            assert scene.cluster.current.ready
        await until_ended(old, PATIENCE_S)
        assert scene.cluster.counted["fenced"] == 1
        await scene.until_acknowledged(100)
        await scene.check_everything()

    scene.play(body)


@pytest.mark.parametrize("weather", [FAIR, ROUGH], ids=["fair", "rough"])
@pytest.mark.parametrize("seed", range(6))
def test_starts_that_crash_again_and_again_lose_nothing(seed: int, weather: Weather) -> None:
    """At any point of the start, five times in a row, with topics deleted before the first."""
    scene = Scene(seed, weather)

    async def body() -> None:
        gone = await scene.admin.create("gone", 3)
        scene.produce()
        await scene.until_acknowledged(100)
        await scene.admin.delete(gone)
        for _ in range(2):
            scene.cluster.crash(scene.cluster.current)
            for _ in range(5):
                # How long a start takes is unknown: up to twice as long as a short one.
                process = scene.cluster.start()
                await asyncio.sleep(scene.rng.uniform(0.0, 1.0) ** 2 * 1.5)
                scene.cluster.crash(process)
            scene.cluster.start()
            await scene.cluster.ready(PATIENCE_S)
            assert scene.cluster.current.ready
            await scene.until_acknowledged(50)
        await scene.check_everything()

    scene.play(body)


def test_a_node_whose_term_was_ended_decides_nothing_until_it_owns_another() -> None:
    """Whoever ended it writes nothing: the node goes on serving, and ends that term in its turn."""
    scene = Scene(1)

    async def body() -> None:
        scene.produce()
        await scene.until_acknowledged(50)
        process = scene.cluster.current
        assert process.node is not None
        member = process.node.controller
        first, count = await member.allocate_producer_ids()
        loaded = await load(scene.store.inner)
        assert loaded is not None
        await end_log(
            scene.store.inner, meta_log(loaded.term), loaded.image.window, b"other", Random(3)
        )
        with pytest.raises(Exception, match="NOT_CONTROLLER"):
            await member.allocate_producer_ids()
        await until(lambda: member.owns_term and member.image.term == loaded.term + 2, PATIENCE_S)
        again, _ = await member.allocate_producer_ids()
        assert again >= first + count
        assert not process.ended and not scene.cluster.counted["fenced"]
        await scene.until_acknowledged(50)
        await scene.check_everything()

    scene.play(body)


def test_start_requests_do_not_grow_with_the_number_of_starts() -> None:
    scene = Scene(2)
    needed: list[int] = []

    async def body() -> None:
        for _ in range(60):
            before = sum(scene.store.requests.values())
            scene.cluster.crash(scene.cluster.current)
            scene.cluster.start()
            await scene.cluster.ready(PATIENCE_S)
            needed.append(sum(scene.store.requests.values()) - before)
            await asyncio.sleep(1.0)
        assert max(needed[40:]) <= max(needed[:20]) + 10, needed

    scene.play(body)


@pytest.mark.parametrize("prefix", ["wal/", "data/"])
def test_a_start_without_a_permission_ends_instead_of_waiting_for_ever(prefix: str) -> None:
    scene = Scene(3)

    async def body() -> None:
        scene.produce()
        await scene.until_acknowledged(20)
        scene.cluster.crash(scene.cluster.current)
        create = scene.store.create

        async def refuse(key: str, chunks: Chunks) -> None:
            if key.startswith(prefix):
                raise AccessDenied(f"{key}: 403 Forbidden")
            await create(key, chunks)

        with patch.object(scene.store, "create", refuse):
            process = scene.cluster.start()
            await asyncio.sleep(30)
        assert process.ended and not process.ready
        (bug,) = scene.cluster.bugs
        assert isinstance(bug, AccessDenied) and prefix in str(bug)
        scene.cluster.bugs.clear()
        scene.cluster.start()
        await scene.cluster.ready(PATIENCE_S)
        await scene.check_everything()

    scene.play(body)


def test_a_start_that_slept_tells_that_it_was_replaced_and_not_of_gaps() -> None:
    """What it was reading is garbage once its successor has opened everything."""
    scene = Scene(4)

    async def body() -> None:
        scene.produce(pace_s=0.1)
        await scene.until_acknowledged(50)
        scene.cluster.crash(scene.cluster.current)
        slept = False

        async def recover(store: Any, incarnation: int, end: int) -> RecoveredLog:
            nonlocal slept
            if not slept:
                slept = True
                await asyncio.sleep(20)
                raise HoleInLog(wal_log(incarnation), 3, "the log runs from 0 to 9")
            return await recover_really(store, incarnation, end)

        with patch.object(broker.failovers, "recover", recover):
            first = scene.cluster.start()
            await until(lambda: slept, 20)
            scene.cluster.start()
            await scene.cluster.ready(15.0)
            assert scene.cluster.current.ready and not first.ended
            await until_ended(first, 60)
        assert scene.cluster.counted["fenced"] == 1
        await scene.check_everything()

    scene.play(body)


def test_a_long_log_is_read_from_a_store_of_which_every_fifth_answer_is_an_error() -> None:
    """Each of its objects is asked for until it comes: beginning again each time would not end."""
    scene = Scene(5)
    scene.cluster._shape.update(
        log_cache_bytes=8 << 20,
        upload_trigger_bytes=4 << 20,
        upload_max_objects=10_000,
        upload_max_age_s=10_000.0,
        checkpoint_objects=10_000,
    )

    async def body() -> None:
        scene.produce()
        await scene.until_acknowledged(1000)
        scene.cluster.crash(scene.cluster.current)
        scene.store.weather = replace(FAIR, before=0.2)
        scene.cluster.start()
        await scene.cluster.ready(PATIENCE_S)
        assert scene.cluster.current.ready
        scene.store.weather = FAIR
        await scene.check_everything()

    scene.play(body)
