"""Random lives of a broker's streams: appends (large ones too), uploads, merges, trims, drops,
closings, rounds of deletion, crashes anywhere.

After every take-over each stream holds exactly a prefix of what was appended to it, byte for byte,
that covers all that was acknowledged; its sums and producer state are those of its batches.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
from msgspec.structs import replace as msgspec_replace

import s3stream.fold
from objectstore.errors import StoreError
from objectstore.wrappers.retry import RetryConfig, RetryStore
from protocol.record_batch import assign, parse_header
from s3stream.batches import entry_of
from s3stream.compaction import CompactionConfig
from s3stream.compaction.compactor import Compactor
from s3stream.compaction.worker import InProcessRunner
from s3stream.config import S3StreamConfig
from s3stream.control import Report, decode_control
from s3stream.entries import ZERO_SUM, StreamEntry
from s3stream.errors import OffsetOutOfRange
from s3stream.fold import compact
from s3stream.node_log import StreamStorage
from s3stream.object_writer import ObjectWriter
from s3stream.refs import add_sums
from s3stream.report import Reporter, held_keys
from s3stream.stream import Stream
from s3stream.takeover import SourceRef, recover, write_recovery_object
from tests.simulation.loop import SimulatedLoop, start_on
from tests.simulation.store import FAIR, ROUGH, SimulatedStore
from wal import end_log, wal_log
from wal.config import WalConfig
from wal.format import batch_sum, sum_bytes
from wal.keys import parse_data_key, parse_log

from .log_rig import WINDOW, Life, begin, make_entry, offsets, read_all, run

T = TypeVar("T")

POOR = replace(ROUGH, slow_s=0.3, hang_s=0.7, late_max_s=30.0)

TINY = S3StreamConfig(
    log_cache_bytes=48 << 10,
    upload_trigger_bytes=6 << 10,
    upload_max_objects=40,
    upload_max_age_s=3.0,
    idle_after_s=1.0,
    housekeeping_s=5.0,
    data_object_bytes=3 << 10,
    checkpoint_objects=12,
    page_streams=2,
    delta_bytes=1500,
    inline_delta_bytes=800,
    history_ranges=3,
    history_keep=2,
    block_cache_bytes=1 << 20,
    adopt_share_bytes=600,
    wal=WalConfig(object_max_bytes=1500, latency_target_s=0.01),
)
TINY_MERGES = CompactionConfig(
    fan_in=3,
    base_tier_bytes=4 << 10,
    max_object_bytes=64 << 10,
    own_object_bytes=8 << 10,
    own_object_max_bytes=16 << 10,
    least_alive=0.8,
    least_trimmed=0.02,
    requests_per_s=1000.0,
)


@dataclass
class Written:
    """What was done to one stream, in order."""

    batches: list[tuple[int, int, bytes, int]] = field(default_factory=list)
    """(base offset, last offset, bytes, sequence or -1)"""
    acknowledged: int = 0
    trimmed: int = 0
    trim_asked: int = 0
    acknowledged_drop: bool = False
    drop_asked: bool = False
    source: SourceRef | None = None
    epoch: int = 0
    sequence: int = 0


class World:
    def __init__(self, loop: SimulatedLoop, seed: int, rough: bool) -> None:
        self.loop = loop
        # What is archived is merged no more, and what is adopted waits for merging: half of the
        # worlds keep their histories in line, and half adopt nothing.
        self.config = replace(
            TINY,
            history_ranges=TINY.history_ranges if seed % 2 else 512,
            adopt_share_bytes=TINY.adopt_share_bytes if seed % 4 in (0, 3) else 1 << 20,
        )
        self.rng = Random(seed)
        self.bucket = SimulatedStore(loop, Random(seed + 1), POOR if rough else FAIR)
        self.store = RetryStore(self.bucket, Random(seed + 2), RetryConfig(budget=1e9))
        self.streams: dict[int, Written] = {}
        self.incarnation = 0
        self.dead: list[int] = []
        self.checks = 0
        self.deleted = 0
        self.storages: list[StreamStorage] = []
        self.largest_pinned = 0
        self.merges = 0
        self.cuts = 0
        self.large = 0
        self.closings = 0

    async def live(self, for_s: float) -> None:
        """One incarnation: take over, work, die."""
        self.incarnation += 1
        node = f"n{self.incarnation}"
        task = start_on(node, self.life(self.incarnation))
        done, _ = await asyncio.wait([task], timeout=for_s)
        if done:
            task.result()
        self.loop.crash(node)
        self.dead.append(self.incarnation)

    async def life(self, mine: int) -> None:
        life = begin(self.store, mine, self.loop, self.config)
        self.storages.append(life.storage)
        for dead in list(self.dead):
            await self.take_over(life, dead, mine)
        for stream_id, written in self.streams.items():
            if written.source is None:
                assert written.drop_asked or not written.acknowledged, stream_id
                written.acknowledged_drop |= written.drop_asked
        streams = await self.open_all(life, mine)
        for stream in streams.values():
            await self.check(stream)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.collect(life, mine))
            tasks.create_task(self.trim_and_drop(life, streams))
            tasks.create_task(self.compact(life))
            tasks.create_task(self.produce_large(life, streams))
            tasks.create_task(self.close_and_open(life, mine, streams))
            for _ in range(3):
                tasks.create_task(self.produce(life, streams))
            tasks.create_task(self.read(streams))

    async def take_over(self, life: Life, dead: int, mine: int) -> None:
        rng = Random(mine)
        end = await end_log(self.store, wal_log(dead), WINDOW, b"%d" % mine, rng)
        recovered = await self.patiently(lambda: recover(self.store, dead, end.end))
        if not recovered.entries:
            self.dead.remove(dead)
            return
        writer = ObjectWriter(self.store, mine, life.storage.numbers, rng=rng)
        blobs = await write_recovery_object(recovered, writer)
        # This stands for the metadata record: at once, or not at all.
        for stream_id in recovered.entries:
            self.streams[stream_id].source = SourceRef(dead, blobs[0])
        self.dead.remove(dead)

    async def open_all(self, life: Life, mine: int) -> dict[int, Stream]:
        by_source: dict[SourceRef | None, list[int]] = {}
        for stream_id, written in self.streams.items():
            if not written.acknowledged_drop:
                by_source.setdefault(written.source, []).append(stream_id)
        opened: dict[int, Stream] = {}
        for source, ids in by_source.items():
            wanted = []
            for stream_id in ids:
                self.streams[stream_id].epoch += 1
                wanted.append((stream_id, self.streams[stream_id].epoch, (0, mine, stream_id)))
            streams = await self.patiently(lambda: life.storage.open_streams(wanted, source))  # noqa: B023
            opened.update((one.stream_id, one) for one in streams)
        for stream_id in opened:
            self.streams[stream_id].source = None
        return opened

    async def patiently(self, what: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await what()
            except StoreError as error:
                assert "simulated" in str(error), error
                await asyncio.sleep(0.1)

    async def check(self, stream: Stream) -> None:
        self.checks += 1
        written = self.streams[stream.stream_id]
        entry = stream.entry
        assert stream.high_watermark >= written.acknowledged
        assert written.trimmed <= stream.start_offset <= max(written.trim_asked, written.trimmed)
        kept = [one for one in written.batches if one[1] < stream.high_watermark]
        assert (kept[-1][1] + 1 if kept else 0) == stream.high_watermark
        # What was never acknowledged and is not in the log was never written.
        written.batches = kept
        sequences = [one[3] for one in kept if one[3] >= 0]
        written.sequence = sequences[-1] + 1 if sequences else 0
        written.trimmed = written.trim_asked = stream.start_offset
        expected = b"".join(one[2] for one in kept if one[1] >= stream.start_offset)
        found = await self.patiently(lambda: read_all(stream, self.rng.choice((1, 700, 1 << 30))))
        assert bytes(found) == expected
        self.check_sums(entry, written)
        newest = [(b[3], b[3], b[0], b[1]) for b in kept if b[3] >= 0][-5:]
        if newest:
            assert [one[:4] for one in entry.producers[7].batches] == newest

    def check_sums(self, entry: StreamEntry, written: Written) -> None:
        assert add_sums(entry.live.sum, entry.trimmed.sum) == entry.total.sum
        both = [*entry.history, *entry.ranges]
        first = both[0].base_offset if both else entry.next_offset
        total = live = 0
        for base, last, data, _ in written.batches:
            crc = int.from_bytes(data[17:21], "big")
            epoch = int.from_bytes(data[12:16], "big")
            one = batch_sum(base, last, len(data), crc, epoch)
            total += one
            live += one if base >= first else 0
        assert entry.total.sum == sum_bytes(total)
        assert entry.live.sum == (sum_bytes(live) if live else ZERO_SUM)
        assert entry.live.size_bytes == sum(len(b[2]) for b in written.batches if b[0] >= first)

    async def produce(self, life: Life, streams: dict[int, Stream]) -> None:
        rng = self.rng
        for _ in range(rng.randrange(20, 200)):
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice((0.0, 0.01, 0.2)))
            if rng.random() < 0.05 or not streams:
                await self.create(life, streams)
            if not streams:
                return
            stream = rng.choice(list(streams.values()))
            size = rng.choice((1, 50, 400, 2000, 5000))
            with await life.storage.admit(size):
                if stream.closing or stream.stream_id not in streams:
                    continue
                written = self.streams[stream.stream_id]
                entry = make_entry(
                    stream, records=1, value=bytes(size), producer_id=7, producer_epoch=0,
                    base_sequence=written.sequence, timestamp=self.loop.now_ms(),
                )  # fmt: skip
                future = stream.append(entry)
                written.batches.append(
                    (entry.base_offset, entry.last_offset, bytes(entry.buffer), written.sequence)
                )
                written.sequence += 1
            self.largest_pinned = max(self.largest_pinned, life.storage.cache.pinned_bytes)
            if rng.random() < 0.5:
                await future
                assert stream.high_watermark > entry.last_offset
                written.acknowledged = max(written.acknowledged, entry.last_offset + 1)

    async def produce_large(self, life: Life, streams: dict[int, Stream]) -> None:
        """A batch in an object of its own, which gets its offset once that is written."""
        rng = self.rng
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(rng.choice((0.05, 0.3)))
            if not streams:
                return
            stream = rng.choice(list(streams.values()))
            early = make_entry(stream, records=2, value=bytes(rng.choice((1500, 4000))))
            with await life.storage.admit(early.size_bytes, own=True):
                reference = await life.storage.write_large_batch(early)
                if stream.closing or streams.get(stream.stream_id) is not stream:
                    life.storage.forget_large_batch(reference)
                    continue
                batch = bytearray(early.buffer)
                assign(batch, stream.next_offset, stream.epoch)
                view = memoryview(batch)
                entry = entry_of(stream.stream_id, view, parse_header(view))
                future = stream.append(msgspec_replace(entry, reference=reference))
                self.streams[stream.stream_id].batches.append(
                    (entry.base_offset, entry.last_offset, bytes(view), -1)
                )
            await future
            self.large += 1
            written = self.streams[stream.stream_id]
            written.acknowledged = max(written.acknowledged, entry.last_offset + 1)

    async def compact(self, life: Life) -> None:
        storage, rng = life.storage, Random(self.rng.random())
        runner = InProcessRunner(self.store, TINY_MERGES, rng=rng)
        compactor = Compactor(
            storage.registry, storage.numbers, storage.reader, runner, TINY_MERGES,
            append=storage.append_control, rng=rng,
        )  # fmt: skip
        for _ in range(self.rng.randrange(20)):
            await asyncio.sleep(self.rng.choice((0.1, 1.0)))
            try:
                self.merges += await compactor.compact_once()
            except StoreError as error:
                assert "simulated" in str(error), error

    async def close_and_open(self, life: Life, mine: int, streams: dict[int, Stream]) -> None:
        for _ in range(self.rng.randrange(3)):
            await asyncio.sleep(self.rng.choice((0.2, 2.0)))
            if not streams:
                return
            stream_id = self.rng.choice(list(streams))
            del streams[stream_id]
            await life.storage.close_streams([stream_id])
            written = self.streams[stream_id]
            if written.drop_asked:
                continue
            written.epoch += 1
            wanted = [(stream_id, written.epoch, (1, mine, stream_id))]
            (streams[stream_id],) = await life.storage.open_streams(wanted)
            await self.check_open(streams[stream_id])
            self.closings += 1

    async def check_open(self, stream: Stream) -> None:
        expected = self.streams[stream.stream_id].batches
        assert (expected[-1][1] + 1 if expected else 0) == stream.high_watermark

    async def create(self, life: Life, streams: dict[int, Stream]) -> None:
        if len(self.streams) >= 9:
            return
        stream_id = 10 + len(self.streams)
        written = self.streams[stream_id] = Written()
        for one in await life.storage.open_streams([(stream_id, 0, (0, 0, stream_id))]):
            streams[stream_id] = one
            assert written.source is None

    async def trim_and_drop(self, life: Life, streams: dict[int, Stream]) -> None:
        rng = self.rng
        for _ in range(rng.randrange(30)):
            await asyncio.sleep(rng.choice((0.02, 0.2, 1.0)))
            if not streams:
                continue
            stream = rng.choice(list(streams.values()))
            written = self.streams[stream.stream_id]
            if rng.random() < 0.03:
                del streams[stream.stream_id]
                written.drop_asked = True
                await life.storage.drop_streams([stream.stream_id])
                written.acknowledged_drop = True
                continue
            to = rng.randint(stream.start_offset, stream.high_watermark)
            written.trim_asked = max(written.trim_asked, to)
            await stream.trim(to)
            written.trimmed = max(written.trimmed, to)

    async def read(self, streams: dict[int, Stream]) -> None:
        for _ in range(self.rng.randrange(60)):
            await asyncio.sleep(self.rng.choice((0.0, 0.05)))
            if not streams:
                continue
            stream = self.rng.choice(list(streams.values()))
            written = self.streams[stream.stream_id]
            if stream.start_offset == stream.high_watermark or stream.closing:
                continue
            offset = self.rng.randrange(stream.start_offset, stream.high_watermark)
            end = self.rng.randint(offset, stream.high_watermark)
            try:
                found = await stream.fetch(offset, end, self.rng.choice((1, 1000, 100_000)))
            except OffsetOutOfRange:
                assert stream.start_offset > offset
                continue
            except StoreError as error:
                # Deleted behind it, once it was trimmed or dropped; or the weather.
                gone = stream.start_offset > offset or stream.stream_id not in streams
                assert gone or "simulated" in str(error), error
                continue
            spans = offsets(found)
            assert bool(spans) == (end > offset)
            if spans:
                first = next(i for i, one in enumerate(written.batches) if one[1] >= offset)
                expected = written.batches[first : first + len(spans)]
                assert b"".join(found) == b"".join(one[2] for one in expected)

    async def collect(self, life: Life, mine: int) -> None:
        """Rounds of deletion by what the incarnation reports; no other one is alive."""
        storage = life.storage
        reports: list[Report] = []

        async def append(record: bytes) -> int:
            seq = await storage.append_control(record)
            report = decode_control(record, "a report")
            assert isinstance(report, Report)
            reports.append(report)
            return seq

        reporter = Reporter(
            storage.registry,
            storage.reader,
            storage.object_writer,
            append=append,
            next_seq=lambda: storage.wal.next_seq,
        )
        for number in range(self.rng.randrange(8)):
            await asyncio.sleep(self.rng.choice((0.1, 0.5)))
            candidates = [row.key async for row in self.bucket.inner.list("")]
            trim = storage.wal.trim
            await self.patiently(partial(reporter.answer, number))
            lowest = reports[-1].lowest_unsettled
            held = {*await self.patiently(partial(held_keys, self.store, reports[-1]))}
            garbage = []
            for key in candidates:
                data, log = parse_data_key(key), parse_log(key)
                if key in held:
                    continue
                if data is not None and (data[0] < mine or data[1] < lowest):
                    garbage.append(key)
                elif log is not None and not key.endswith("/end"):
                    own = log.log_id == mine
                    if not own or (log.seq_of(key) or 0) < trim:
                        garbage.append(key)
            self.deleted += len(garbage)
            for key in garbage:
                await self.bucket.inner.delete([key])


def play(seed: int) -> World:
    worlds = []

    async def body(loop: SimulatedLoop) -> None:
        world = World(loop, seed, rough=seed % 3 != 0)
        worlds.append(world)

        def counted(entry: StreamEntry, *args: Any) -> Any:
            before = entry.ranges[0] if entry.ranges and not entry.history else None
            exchanged = compact(entry, *args)
            if before is not None and before in exchanged[0]:
                world.cuts += entry.ranges[0].base_offset > before.base_offset
            return exchanged

        patches.enter_context(patch.object(s3stream.fold, "compact", counted))
        for _ in range(5):
            await world.live(world.rng.choice((1.0, 10.0, 30.0, 90.0)))

    with ExitStack() as patches:
        # Blocks as small as all else here.
        for module in ("wal.format.compose", "s3stream.compaction.merge"):
            patches.enter_context(patch.object(sys.modules[module], "BLOCK_BYTES", 1500))
        run(body, seed)
    return worlds[0]


@pytest.mark.parametrize("seed", range(12))
def test_every_life_finds_what_the_lives_before_were_told(seed: int) -> None:
    play(seed)


def test_the_lives_do_what_they_are_for() -> None:
    wanted = {
        "checks": 40,
        "deleted": 50,
        "uploads": 20,
        "adopted": 20,
        "merges": 10,
        "cuts": 2,
        "archived": 10,
        "shortened": 2,
        "large": 10,
        "closings": 3,
    }
    done = dict.fromkeys(wanted, 0)
    largest_pinned = 0
    # What a life meets changes with every change of the code's pace; a few more meet it all.
    for seed in range(1000, 1030):
        world = play(seed)
        for name in ("checks", "deleted", "merges", "cuts", "large", "closings"):
            done[name] += getattr(world, name)
        for one in world.storages:
            done["uploads"] += one.uploader.uploads
            done["adopted"] += one.uploader.adopted_objects
            done["archived"] += one.archiver.archived
            done["shortened"] += one.archiver.shortened
        largest_pinned = max(largest_pinned, world.largest_pinned)
        missing = [name for name, least in wanted.items() if done[name] <= least]
        if not missing and largest_pinned > TINY.log_cache_bytes / 2:
            return
    raise AssertionError(f"too seldom in 30 lives: {missing} of {done}, {largest_pinned} pinned")
