"""Broker processes on one simulated bucket: started, crashed, paused, replaced.

A process is a `Node` under a node name of its own (`p1`, `p2`, ...) and on a host of its own; all
have the same node id, so each start takes over from the one before, dead or alive. Clients ask
`address` where the newest is, as they would ask DNS.

Settings are so small that uploads, checkpoints, merges of pages and snapshots happen every few
seconds.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import broker.cluster.member
import broker.maintenance
import broker.node
import broker.upkeep
import s3stream.compaction.worker
import s3stream.disk_cache
from broker.config import BrokerConfig
from broker.config.load import load
from broker.controller import Controller
from broker.environment import Environment
from broker.node import Node
from broker.storage_config import stream_config
from broker.upkeep import compaction_config
from objectstore.errors import AccessDenied
from objectstore.settings import StoreSettings
from objectstore.store import ObjectStore
from objectstore.wrappers.retry import RetryStore
from s3stream.compaction import CompactionConfig
from s3stream.config import S3StreamConfig
from wal.errors import Fenced

from .constants import small_constants
from .loop import SimulatedLoop, start_on
from .network import SimulatedNetwork
from .processes import Child, ChildProcesses, Directory, Pipe
from .store import SimulatedStore

PORT = 9092
SESSION_TIMEOUT_S = 4.0

SETTINGS = {
    "node.id": "1",
    "take.over": "true",
    "wal.window": "4",
    "wal.object.max.bytes": str(64 << 10),
    "broker.session.timeout.ms": str(round(SESSION_TIMEOUT_S * 1000)),
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.num.partitions": "2",
    "log.retention.check.interval.ms": "2000",
    "auto.create.topics.enable": "false",
    "num.partitions": "2",
    "collector.round.interval.ms": "2000",
}


@dataclass(eq=False)
class Process:
    """One incarnation-to-be. replaced_at: when its log was ended, and by that it was replaced."""

    number: int
    host: str
    started_at: float
    node: Node | None = None
    incarnation: int = -1
    ready: bool = False
    ended: bool = False
    ended_at: float = math.inf
    replaced_at: float | None = None

    @property
    def name(self) -> str:
        return f"p{self.number}"


class Cluster:
    """counted: starts, crashes and the like. bugs: what a process ended with and should not."""

    def __init__(
        self, loop: SimulatedLoop, store: SimulatedStore, network: SimulatedNetwork, rng: Random
    ) -> None:
        self.loop = loop
        self.store = store
        self.network = network
        self.counted: Counter[str] = Counter()
        self.bugs: list[BaseException] = []
        self.processes: list[Process] = []
        self._rng = rng
        self._shape = draw_shape(rng)
        own_bytes = rng.choice((8, 30)) << 10
        self._merges: dict[str, Any] = {
            "fan_in": rng.choice((2, 4)),
            "base_tier_bytes": rng.choice((1, 8)) << 10,
            "max_object_bytes": 200 << 10,
            "own_object_bytes": own_bytes,
            "own_object_max_bytes": 4 * own_bytes,
            "idle_exit_s": rng.choice((0.5, 5.0)),
        }
        if rng.random() < 0.3:
            loop.executor_delay_s = (0.0, 0.1)  # a disk that is busy
        # As `objectstore.open` wraps a real store; without it errors reach every layer.
        self._retries = rng.random() < 0.6
        self.large_batches = rng.random() < 0.5
        if self.large_batches:
            self._shape["log_cache_bytes"] = 1 << 20
        self._disk = Directory(loop, self._random()) if rng.random() < 0.5 else None
        # A block is kept when it is offered again, which a run is too short to do often.
        self._keeps_first = rng.random() < 0.7
        if self._disk is not None and rng.random() < 0.5:
            loop.executor_delay_s = (0.0, rng.choice((0.1, 0.5)))
        self._merges_apart = rng.random() < 0.5
        self._children = ChildProcesses(loop, self._random(), self._serve_merges)
        self._constants = small_constants(rng)
        self._by_incarnation: dict[int, Process] = {}
        self._log_ended_at: dict[int, float] = {}
        self._tasks: dict[Process, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def _random(self) -> Random:
        return Random(self._rng.random())

    # What clients know.

    @property
    def current(self) -> Process:
        """The newest process, whatever has become of it."""
        return self.processes[-1]

    @property
    def address(self) -> tuple[str, int]:
        """Of the newest that serves; of the newest, where none does."""
        serving = [one for one in self.processes if one.ready and not one.ended]
        awake = [one for one in serving if not self.loop.is_paused(one.name)]
        return (awake or serving or self.processes)[-1].host, PORT

    def process_at(self, host: str) -> Process:
        return self.processes[int(host.removeprefix("h")) - 1]

    def named(self, node: str) -> Process | None:
        """By node name; None for what is no process."""
        number = node.removeprefix("p")
        return self.processes[int(number) - 1] if number.isdigit() else None

    @property
    def every_bug(self) -> list[BaseException]:
        """Those of child processes too."""
        return [*self.bugs, *self._children.bugs]

    def child(self, node: str) -> Child | None:
        """By node name, as `named`."""
        return self._children.children.get(node)

    def may_be_stale(self, host: str, asked_at: float) -> bool:
        """Whether an answer from there, to a request sent then, may tell of the past: its process
        was replaced, and its last confirmation (a PUT sent before) has not run out."""
        replaced_at = self.process_at(host).replaced_at
        return replaced_at is not None and asked_at <= replaced_at + SESSION_TIMEOUT_S

    async def ready(self, within_s: float) -> None:
        """Until the newest process serves, or the time is over."""
        try:
            async with asyncio.timeout(within_s):
                while not self.current.ready or self.current.ended:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    # Life and death.

    def start(self) -> Process:
        """A new process; it takes over from the others, if there are any."""
        number = len(self.processes) + 1
        process = Process(number, f"h{number}", self.loop.time())
        self.processes.append(process)
        self.counted["start"] += 1
        self._tasks[process] = start_on(process.name, self._live(process))
        return process

    async def _live(self, process: Process) -> None:
        rng = self._random()
        node = Node(
            self._config(process.host),
            Environment(
                store=self._store_for(rng),
                store_name="simulated",
                network=self.network.at(process.host),
                now_ms=self.loop.now_ms,
                rng=rng,
                cache_dir=Path("/cache") if self._disk is not None else None,
                merge_uri="simulated:" if self._merges_apart else None,
                merge_settings=StoreSettings(),
            ),
        )
        process.node = node
        try:
            await node.start()
            process.incarnation = node.controller.incarnation
            self._by_incarnation[process.incarnation] = process
            # Replaced already, where it was paused in its start.
            process.replaced_at = self._log_ended_at.get(process.incarnation)
            process.ready = True
            self._changed.set()
            self.loop.record(f"{process.name} serves as {process.incarnation}")
            await node.run()
        except Fenced as error:
            self.counted["fenced"] += 1
            self.loop.record(f"{process.name} is fenced: {error}")
            if not any(self._met(process, other) for other in self.processes):
                self.bugs.append(error)
        except AccessDenied as error:
            if self.store.missing_at < process.started_at:
                self.bugs.append(error)
        except Exception as error:
            self.bugs.append(error)
        except asyncio.CancelledError:
            return  # `stop`, which closes the node
        self._end(process)
        await node.abort()

    def _store_for(self, rng: Random) -> ObjectStore:
        return RetryStore(self.store, rng) if self._retries else self.store

    async def _serve_merges(self, asked: Pipe, answered: Pipe) -> None:
        """The main of a child process."""
        rng = self._random()
        serve: Any = s3stream.compaction.worker.serve
        await serve(asked, answered, rng, self.loop.now_ms)
        await asyncio.sleep(rng.uniform(0.0, 2.0))  # the interpreter takes its time to end

    async def _open_store(self, _uri: str, *, rng: Random, **_options: Any) -> ObjectStore:
        await asyncio.sleep(0.01)
        return self._store_for(rng)

    def _end(self, process: Process) -> None:
        if not process.ended:
            process.ended = True
            process.ended_at = self.loop.time()
            # One that was fenced may be joining anew, without a log of its own yet.
            storage = None if process.node is None else process.node._storage
            if process.ready and storage is not None:
                self.counted["adopted"] += storage.uploader.adopted_objects
            self._changed.set()

    @staticmethod
    def _met(process: Process, other: Process) -> bool:
        """Whether `other` was alive in the life of `process`, and so may have fenced it."""
        return other is not process and other.ended_at >= process.started_at

    def crash(self, process: Process) -> None:
        """As `kill -9`, also of one that is about to end. What it had sent is under way still."""
        if self.loop.is_crashed(process.name):
            return
        self._end(process)
        self.counted["crash"] += 1
        self.loop.crash(process.name)
        self.network.kill(process.name)
        self._children.parent_died(process.name)

    def pause(self, process: Process, for_s: float) -> None:
        if self.loop.is_crashed(process.name) or self.loop.is_paused(process.name):
            return
        self.counted["pause"] += 1
        self.loop.pause(process.name, for_s)

    async def stop(self, process: Process) -> None:
        """As SIGTERM."""
        if process.ended or process.node is None or not process.ready:
            return
        self.counted["stop"] += 1
        process.ready = False
        task = self._tasks[process]
        task.cancel()
        closing = start_on(process.name, process.node.close(6.0))
        try:
            while not process.ended and not (closing.done() and task.done()):
                await asyncio.wait([one for one in (closing, task) if not one.done()], timeout=0.5)
            if closing.done():
                closing.result()
        finally:
            self._end(process)

    def log_ended(self, incarnation: int) -> None:
        """`wal/<incarnation>/end` has landed."""
        self._log_ended_at[incarnation] = self.loop.time()
        process = self._by_incarnation.get(incarnation)
        if process is not None:
            process.replaced_at = self.loop.time()

    # Settings.

    def _config(self, host: str) -> BrokerConfig:
        given = {**SETTINGS, "listeners": f"{host}:{PORT}"}
        if self.large_batches:
            given["large.batch.bytes"] = str(64 << 10)
        return load(sets=[f"{key}={value}" for key, value in given.items()]).config

    @contextmanager
    def small(self) -> Iterator[None]:
        """Inside, every node has the small settings that no configuration file may ask for."""

        def shrunk(config: BrokerConfig, *, billed: bool) -> S3StreamConfig:
            return replace(stream_config(config, billed=billed), **self._shape)

        def merged_early(config: BrokerConfig) -> CompactionConfig:
            return replace(compaction_config(config), **self._merges)

        snapshots = self._rng.choice((3, 8, 20))
        worker = s3stream.compaction.worker
        with ExitStack() as stack:

            def put(where: Any, name: str, value: Any) -> None:
                stack.enter_context(patch.object(where, name, value))

            put(broker.node, "stream_config", shrunk)
            put(broker.upkeep, "compaction_config", merged_early)
            put(
                broker.cluster.member, "Controller", partial(Controller, snapshot_records=snapshots)
            )
            put(broker.maintenance, "COMPACT_FROM_BYTES", 8 << 10)
            put(worker, "open_store", self._open_store)
            put(asyncio, "create_subprocess_exec", self._children.create)
            if self._disk is not None:
                put(s3stream.disk_cache, "_Files", self._disk)
                if self._keeps_first:
                    disk_cache = s3stream.disk_cache.DiskCache
                    put(disk_cache, "offer", disk_cache.put)
            stack.enter_context(self._constants)
            yield


def draw_shape(rng: Random) -> dict[str, Any]:
    """Of S3StreamConfig."""
    return {
        "log_cache_bytes": rng.choice((48, 128, 512)) << 10,
        "upload_trigger_bytes": rng.choice((6, 12, 24)) << 10,
        "upload_max_objects": rng.choice((5, 10, 20)),
        "upload_max_age_s": rng.choice((1.0, 3.0)),
        "adopt_share_bytes": rng.choice((100, 300, 1000, 1 << 20)),
        "idle_after_s": 1.0,
        "housekeeping_s": rng.choice((1.0, 5.0)),
        "data_object_bytes": rng.choice((4, 16, 64)) << 10,
        "checkpoint_objects": rng.choice((3, 7, 15)),
        "page_streams": rng.choice((1, 3, 50)),
        "page_bytes": rng.choice((1, 4)) << 10,
        "delta_bytes": rng.choice((300, 2000, 20_000)),
        "inline_delta_bytes": rng.choice((100, 1000, 10_000)),
        "block_cache_bytes": rng.choice((16, 256)) << 10,
        "history_ranges": rng.choice((2, 4, 512)),
        "history_keep": rng.choice((0, 2)),
    }
