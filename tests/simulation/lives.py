"""Streams without a broker around them: what only clusters and operators do to them.

A node leads streams, closes, reopens and drops them, merges, and dies or is closed under load; the
next one takes over. Beside it a log that a stranger writes into, and rounds of deletion while
streams still wait to be opened. After each take-over everything acknowledged must be there, byte
for byte (`test_storage_model.World` checks it); a run is a function of its seed and `strike`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from importlib import import_module
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

from objectstore.errors import Corrupt, StoreError, StoreUnavailable
from protocol.record_batch import parse_header
from s3stream.errors import OffsetOutOfRange, StreamClosed
from s3stream.stream import Stream
from s3stream.told_stream import ToldStream
from tests.unit.s3stream.log_rig import WINDOW, Life, make_entry
from tests.unit.s3stream.test_storage_model import TINY, World, Written
from wal import Fenced, LogClosed, LogWriter, WalConfig, wal_log

from .constants import small_constants
from .log_world import batch
from .loop import SimulatedLoop, start_on
from .rounds import Round
from .store import FAIR, SimulatedStore
from .strike import ONE_BROKER, ROUGH_FOR_S, Outcome, Strike, Striker

T = TypeVar("T")
LIVES = 5


class Lives(World):
    """See the module. fired: faults that happened, by kind."""

    def __init__(self, loop: SimulatedLoop, seed: int, striker: Striker) -> None:
        super().__init__(loop, seed, rough=seed % 3 != 0)
        self.striker = striker
        self.fired: Counter[str] = Counter()
        self.closing = False
        # Of another cluster: rounds of this one would delete a log that no image knows.
        self._other = SimulatedStore(loop, Random(seed + 3), self.bucket.weather)

    @property
    def node(self) -> str:
        return f"n{self.incarnation}"

    @property
    def acknowledged(self) -> int:
        return sum(
            one[1] < written.acknowledged
            for written in self.streams.values()
            for one in written.batches
        )

    def enough(self) -> bool:
        fired = sum(self.fired.values()) + sum(self.bucket.fired.values())
        seconds = self.loop.time() - 1000.0
        return (
            seconds >= ONE_BROKER.seconds
            and self.acknowledged >= ONE_BROKER.acknowledged
            and fired >= ONE_BROKER.faults
        )

    async def play(self) -> None:
        lived = 0
        while lived < LIVES or not self.enough():
            await self.live(self.rng.choice((1.0, 10.0, 30.0)))
            lived += 1
            assert lived < 400, "too little happens"
            if self.loop.time() - 1000.0 > ROUGH_FOR_S:
                self.striker.calm = True
                self.bucket.weather = FAIR
        # Nobody dies any more: whatever was acknowledged is there.
        self.closing = False
        self.striker.calm = True
        self.bucket.weather = FAIR
        self.bucket.recover()
        self.incarnation += 1
        life = start_on(self.node, self.life(self.incarnation))
        await asyncio.wait([life], timeout=3000)
        if not self.loop.is_crashed(self.node):
            assert life.done(), self.loop.describe_waiting()
            life.result()
            losing = start_on(self.node, self.lose_objects(self.storages[-1]))
            await asyncio.wait([losing], timeout=600)
            if not self.loop.is_crashed(self.node):
                losing.result()

    async def live(self, for_s: float) -> None:
        self.incarnation += 1
        self.closing = False
        self.striker.armed = self.rng.random() < 0.5
        life = start_on(self.node, self.life(self.incarnation))
        await asyncio.wait([life], timeout=for_s)
        if not life.done() and not self.loop.is_crashed(self.node) and self.rng.random() < 0.5:
            self.fired["close"] += 1
            if self.rng.random() < 0.4:
                self.bucket.outage(self.rng.choice((0.3, 30.0)))
            self.closing = True
            storage = self.storages[-1]
            deadline_s = self.rng.choice((0.0, 0.05, 1.0, 20.0))
            closing = start_on(self.node, storage.close(deadline_s))
            await asyncio.wait([closing], timeout=40.0)
            if closing.done():
                closing.result()
        error = life.exception() if life.done() else None
        if error is not None and not (self.closing and all(map(_is_of_closing, _leaves(error)))):
            raise error
        if not self.loop.is_crashed(self.node):
            self.fired["crash"] += 1
            self.loop.crash(self.node)
        self.dead.append(self.incarnation)

    # What the storage's own model does not do.

    async def patiently(self, what: Callable[[], Awaitable[T]]) -> T:
        async def tried() -> T:
            try:
                return await what()
            except StoreError as error:
                if self.closing:
                    raise LogClosed("closed under whoever reads") from error
                raise

        return await super().patiently(tried)

    async def open_all(self, life: Life, mine: int) -> dict[int, Stream]:
        if self.rng.random() < 0.7:
            await self.patiently(lambda: Round(self, life, mine).hold())
        return await super().open_all(life, mine)

    async def create(self, life: Life, streams: dict[int, Stream]) -> None:
        if len(streams) >= 9:
            return
        stream_id = 10 + len(self.streams)
        self.streams[stream_id] = Written()
        for one in await life.storage.open_streams([(stream_id, 0, (0, 0, stream_id))]):
            streams[stream_id] = one

    async def read(self, streams: dict[int, Stream]) -> None:
        storage = self.storages[-1]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(super().read(streams))
            tasks.create_task(self.flush_now_and_then(storage))
            tasks.create_task(self.reopen(storage, streams))
            tasks.create_task(self.meet_a_stranger())
            tasks.create_task(self.produce_wide(storage, streams))
            tasks.create_task(self.search(streams))

    async def flush_now_and_then(self, storage: Any) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(self.rng.uniform(0.0, 1.0))
            await storage.flush()

    async def produce_wide(self, storage: Any, streams: dict[int, Stream]) -> None:
        """Batches of several records, with timestamps in no order."""
        for _ in range(self.rng.randrange(10, 60)):
            await asyncio.sleep(self.rng.uniform(0.0, 0.2))
            if not streams:
                return
            stream = self.rng.choice(list(streams.values()))
            with await storage.admit(900):
                if stream.closing or streams.get(stream.stream_id) is not stream:
                    continue
                time_ms = self.loop.now_ms() + self.rng.randrange(-50_000, 50_000)
                entry = make_entry(stream, records=3, value=bytes(200), timestamp=time_ms)
                future = stream.append(entry)
                written = self.streams[stream.stream_id]
                written.batches.append(
                    (entry.base_offset, entry.last_offset, bytes(entry.buffer), -1)
                )
            if self.rng.random() < 0.5:
                await future
                written.acknowledged = max(written.acknowledged, entry.last_offset + 1)

    async def search(self, streams: dict[int, Stream]) -> None:
        """By time, and for offsets in the middle of a batch."""
        for _ in range(self.rng.randrange(10, 40)):
            await asyncio.sleep(self.rng.uniform(0.0, 0.3))
            if not streams:
                return
            stream = self.rng.choice(list(streams.values()))
            written = self.streams[stream.stream_id]
            known = [one for one in written.batches if one[1] < stream.high_watermark]
            time_ms = self.loop.now_ms() + self.rng.randrange(-60_000, 60_000)
            try:
                best = await self.patiently(stream.max_timestamp)
                found = await self.patiently(
                    lambda: stream.find_batch_by_timestamp(time_ms)  # noqa: B023
                )
                if known:
                    # Mostly in the middle of a batch: few have one.
                    wide = [one for one in known if one[0] < one[1]] or known
                    base, last = self.rng.choice(self.rng.choice((wide, wide, known)))[:2]
                    within = self.rng.randint(base, last)
                    await self.patiently(
                        lambda: self.look_within(stream, within)  # noqa: B023
                    )
                    await self.look_as_told(stream, within)
            except OffsetOutOfRange:
                continue
            except AssertionError:
                # Deleted behind it, once it was dropped.
                if stream.stream_id in streams and not stream.closing:
                    raise
                continue
            first = 1 << 62 if found is None else parse_header(found).base_offset
            for base, _, data, _ in known:
                if base < max(written.trim_asked, stream.start_offset):
                    continue
                header = parse_header(memoryview(data))
                assert best is not None and best[0] >= header.max_timestamp
                assert base >= first or header.max_timestamp < time_ms

    async def lose_objects(self, storage: Any) -> None:
        """What is missing is said to be missing; what comes back is read again."""
        bucket = self.bucket.inner
        for stream in storage.streams():
            stored = [*stream.entry.history, *stream.entry.ranges]
            for one in stored[:4]:
                ranges = [one]
                if one in stream.entry.history:
                    ranges = await self.patiently(lambda: stream.history_of(one))  # noqa: B023
                lost = ranges[-1]
                if lost.end_offset <= stream.start_offset or lost.object.key not in bucket._objects:
                    continue
                data = await bucket.get(lost.object.key)
                await bucket.delete([lost.object.key])
                offset = max(stream.start_offset, lost.base_offset)
                try:
                    await self.patiently(lambda: stream.fetch(offset, offset + 1, 1))  # noqa: B023
                except AssertionError as error:
                    assert lost.object.key in str(error), error
                    self.fired["lost object"] += 1
                finally:
                    await bucket.create(lost.object.key, (data,))
                await self.patiently(lambda: self.look_within(stream, offset))  # noqa: B023

    async def look_within(self, stream: Stream, offset: int) -> None:
        found = await stream.fetch(offset, offset + 1, self.rng.choice((1, 10_000)))
        header = parse_header(found[0])
        assert header.base_offset <= offset <= header.last_offset

    async def look_as_told(self, stream: Stream, offset: int) -> None:
        """As one who does not lead the stream: what it was told of may be deleted meanwhile."""
        storage, entry = self.storages[-1], stream.entry
        told = ToldStream(stream.stream_id, storage.reader, storage.read_ahead, lambda _: None)
        told.tell_whole(entry.start_offset, entry.next_offset, entry.history, entry.ranges)
        if not told.log_start_offset <= offset < told.high_watermark:
            return
        max_bytes = self.rng.choice((1, 10_000))
        await asyncio.sleep(self.rng.choice((0.0, 2.0)))
        try:
            found = await told.fetch(offset, offset + 1, max_bytes)
        except (StoreError, Corrupt):
            return  # it is to be told anew
        header = parse_header(found[0])
        assert header.base_offset <= offset <= header.last_offset

    async def reopen(self, storage: Any, streams: dict[int, Stream]) -> None:
        """At a higher epoch, with batches of the one before still on their way."""
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(self.rng.uniform(0.0, 2.0))
            if not streams:
                return
            stream_id = self.rng.choice(list(streams))
            written = self.streams[stream_id]
            written.epoch += 1
            wanted = [(stream_id, written.epoch, (2, self.incarnation, stream_id))]
            del streams[stream_id]
            (streams[stream_id],) = await storage.open_streams(wanted)
            self.fired["reopened"] += 1

    async def meet_a_stranger(self) -> None:
        """A log whose next place holds something that is not of our making: it is ours no more."""
        durable: list[int] = []
        log = wal_log(self.incarnation)
        writer = LogWriter(
            self._other,
            log,
            WINDOW,
            WalConfig(latency_target_s=0.01, object_max_batches=2),
            rng=Random(self.rng.random()),
            on_durable=lambda one: durable.append(one.seq),
        )

        async def write() -> None:
            for number in range(6):
                await writer.append(batch(number))
            await self._other.inner.create(log.key(writer.next_seq), (b"nothing of ours",))
            while True:
                try:
                    await self.patiently(writer.confirm)
                except Fenced:
                    self.fired["stranger"] += 1
                    return

        running = asyncio.create_task(writer.run())
        try:
            await write()
        finally:
            if not running.done():
                writer.abort()
            await asyncio.wait([running])
        assert isinstance(running.exception(), Fenced), "a stranger's object was not noticed"
        for seq in durable:
            assert log.key(seq) in self._other.inner._objects


def run_lives(seed: int, strike: Strike | None = None) -> Outcome:
    """Raises what broke."""
    made: list[Lives] = []

    def on_step(node: str, places: tuple[str, ...]) -> None:
        lives = made[0]
        if node != lives.node or loop.is_crashed(node) or loop.is_paused(node):
            return
        fault = striker.passes(places, may_be_hit=True)
        if fault is not None:
            lives.fired[f"{fault}_at_await"] += 1
            if fault in ("crash", "stop"):
                loop.crash(node)
            else:
                loop.pause(node, lives.rng.choice((0.5, 3.0)))

    loop = SimulatedLoop(seed, on_step=on_step)
    striker = Striker(seed, Random(f"strikes {seed}"), strike, loop.time)
    made.append(Lives(loop, seed, striker))

    async def main() -> None:
        await made[0].play()

    rng = Random(f"constants {seed}")
    config = replace(
        TINY,
        block_cache_bytes=rng.choice((1 << 10, 16 << 10, 1 << 20)),
        history_keep=rng.choice((0, 2)),
        history_ranges=rng.choice((2, 3)),
    )
    model = import_module(World.__module__)
    index_bytes = rng.choice((1, 1, 5000, 64 << 20))
    with small_constants(rng, index_cache_bytes=index_bytes), patch.object(model, "TINY", config):
        loop.run(main())
    lives = made[0]
    counted = Counter({"acknowledged": lives.acknowledged, "lives": lives.incarnation})
    return Outcome(
        seed,
        loop.trace,
        loop.time() - 1000.0,
        counted,
        lives.fired + lives.bucket.fired,
        striker.places,
        striker.struck,
    )


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _is_of_closing(error: BaseException) -> bool:
    return isinstance(error, LogClosed | StreamClosed | StoreUnavailable)
