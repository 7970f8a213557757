"""One log with everybody who touches it: writer, trimming collector, two sealers, a reader.

The writer appends numbered batches and, now and then, a checkpoint that repeats all numbers so
far, so that a trimmed log still tells its whole contents. The checkers run throughout: `World`
sees each acknowledgement and each landing at the instant it happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import msgspec

from objectstore.errors import StoreError
from wal import (
    BatchEntry,
    DurableObject,
    Fenced,
    HoleInLog,
    LogClosed,
    LogEnd,
    LogName,
    LogObject,
    LogWriter,
    WalConfig,
    end_log,
    read_end,
    read_tail,
    wal_log,
)
from wal.format import Kind, decode_header, read_header

from .loop import SimulatedLoop
from .store import SimulatedStore, Weather

WINDOW = 3


class Checkpoint(msgspec.Struct):
    """numbers: all that objects with seq <= up_to_seq hold, from the beginning of the log."""

    up_to_seq: int
    numbers: list[int]


def batch(number: int) -> BatchEntry:
    data = b"batch %d" % number
    return BatchEntry(
        stream_id=1,
        base_offset=number,
        last_offset=number,
        leader_epoch=0,
        record_count=1,
        max_timestamp=number,
        size_bytes=len(data),
        crc=number,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        is_transactional=False,
        marker=None,
        buffer=memoryview(data),
        timestamp_ms=number,
    )


def numbers_of(tail: list[LogObject]) -> list[int]:
    """All that a log ever held: its last checkpoint, and what came after."""
    numbers: list[int] = []
    up_to = -1
    for one in tail:
        for control in one.index.controls:
            checkpoint = msgspec.msgpack.decode(control, type=Checkpoint)
            if checkpoint.up_to_seq > up_to:
                numbers, up_to = list(checkpoint.numbers), checkpoint.up_to_seq
    for one in tail:
        if one.seq > up_to:
            for span in one.index.ranges:
                numbers.extend(range(span.base_offset, span.end_offset))
    return numbers


@dataclass
class World:
    """The bucket, the log, and what the checkers saw. counted: what the run went through."""

    loop: SimulatedLoop
    rng: Random
    weather: Weather
    log: LogName = field(default_factory=lambda: wal_log(1))
    config: WalConfig = field(default_factory=lambda: WalConfig(latency_target_s=0.05))
    counted: Counter[str] = field(default_factory=Counter)
    acked: list[int] = field(default_factory=list)
    acked_seqs: list[int] = field(default_factory=list)
    final: LogEnd | None = None
    ended_at: float | None = None
    taken_over: list[int] | None = None

    def __post_init__(self) -> None:
        self.store = SimulatedStore(self.loop, Random(self.rng.random()), self.weather)
        self.store.on_landed = self._landed
        self._bytes: dict[tuple[str, bytes], bytes] = {}
        self._trimmed: set[str] = set()
        self._next_number = 0
        self._seen: list[tuple[int, int]] = []  # (seq, number), durable
        self.writer = self.new_writer()

    def new_writer(self) -> LogWriter:
        return LogWriter(
            self.store,
            self.log,
            WINDOW,
            self.config,
            rng=Random(self.rng.random()),
            on_durable=self._durable,
        )

    # Checkers.

    def _durable(self, durable: DurableObject) -> None:
        assert durable.seq == (self.acked_seqs[-1] + 1 if self.acked_seqs else 0)
        if self.final is not None:
            assert durable.seq < self.final.end, f"{durable.seq} acknowledged, end {self.final}"
        self.acked_seqs.append(durable.seq)
        for entry in durable.entries:
            self.acked.append(entry.base_offset)
            self._seen.append((durable.seq, entry.base_offset))

    def _landed(self, op: str, key: str, by: str) -> None:
        if op == "delete":
            self._trimmed.update(key.split(","))
            return
        data = self.store.inner._objects[key][0]
        if key == self.log.end_key:
            self.ended_at = self.loop.time()
            return
        header = decode_header(data, key)
        if header.kind is Kind.SEAL:
            self.counted["seals"] += 1
            if key in self._trimmed:
                self.counted["seals at a trimmed key"] += 1
            return
        first = self._bytes.setdefault((key, header.write_id), data)
        assert first == data, f"{key}: other bytes in a later attempt"
        assert len([1 for k, _ in self._bytes if k == key]) == 1, f"{key}: composed twice"
        if key in self._trimmed:
            self.counted["data landed again at a trimmed key"] += 1

    def note_end(self, end: LogEnd) -> None:
        if self.final is None:
            self.final = end
            late = [seq for seq in self.acked_seqs if seq >= end.end]
            assert not late, f"ended at {end.end}, but {late} are acknowledged"
        else:
            assert (self.final.end, self.final.maker) == (end.end, end.maker), "two ends"

    def check_confirmation(self) -> None:
        if self.ended_at is not None:
            at = self.writer.last_confirmed_at
            assert at <= self.ended_at, f"confirmed as of {at}, log ended at {self.ended_at}"

    def check_contents(self, numbers: list[int]) -> None:
        """At least what was acknowledged, and no more than was appended, in order."""
        assert numbers == list(range(len(numbers))), f"gaps, repeats or disorder: {numbers}"
        assert numbers[: len(self.acked)] == self.acked, "an acknowledged batch is missing"
        assert len(numbers) <= self._next_number

    # Actors.

    async def run_writer(self) -> str:
        try:
            await self.writer.run()
        except Fenced as fenced:
            self.counted["fenced"] += 1
            assert self.counted["seals"] > 0, f"fenced by nobody: {fenced}"
            assert self.acked_seqs == [] or fenced.seq > self.acked_seqs[-1]
            return "fenced"
        return "closed"

    async def produce(self, rng: Random, count: int, pause_s: float) -> None:
        """Appends, waits for some, is cancelled at others; writes checkpoints; then stops."""
        waiting: list[asyncio.Task[int]] = []
        checkpointing: asyncio.Task[None] | None = None
        try:
            for _ in range(count):
                future = self.writer.append(batch(self._next_number))
                self._next_number += 1
                if rng.random() < 0.3:
                    task = asyncio.create_task(_wait(future))
                    waiting.append(task)
                    if rng.random() < 0.3:
                        asyncio.get_running_loop().call_later(rng.random() * 0.02, task.cancel)
                done = checkpointing is None or checkpointing.done()
                if done and len(self.acked_seqs) - self.writer.trim > 4 and rng.random() < 0.3:
                    checkpointing = asyncio.create_task(self._checkpoint())
                await asyncio.sleep(rng.expovariate(1 / pause_s))
        except (Fenced, LogClosed):
            pass
        for task in waiting:
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is not None:
                assert isinstance(task.exception(), Fenced | LogClosed), task.exception()
        if checkpointing is not None:
            await checkpointing

    async def _checkpoint(self) -> None:
        up_to = self.writer.durable_seq - 1
        numbers = [number for seq, number in self._seen if seq <= up_to]
        record = msgspec.msgpack.encode(Checkpoint(up_to, numbers))
        try:
            seq = await self.writer.append_control(record)
        except (Fenced, LogClosed):
            return
        self.writer.set_trim(up_to + 1, seq)
        self.counted["trims"] += 1

    async def confirm_now_and_then(self, rng: Random) -> None:
        while True:
            await asyncio.sleep(rng.expovariate(1))
            try:
                await self.writer.confirm()
                self.counted["confirmed"] += 1
            except StoreError:
                continue
            except (Fenced, LogClosed):
                self.counted["confirm met the end"] += 1
                return
            self.check_confirmation()

    async def seal(self, rng: Random, maker: bytes) -> LogEnd:
        end = await end_log(self.store, self.log, WINDOW, maker, rng)
        self.note_end(end)
        if end.ours:
            tail = await self.patiently_read(end.end)
            numbers = numbers_of(tail)
            self.check_contents(numbers)
            assert self.taken_over is None, "two owners"
            self.taken_over = numbers
        return end

    async def patiently_read(self, end: int | None) -> list[LogObject]:
        while True:
            try:
                return await read_tail(self.store, self.log, end)
            except HoleInLog:
                raise
            except StoreError:
                await asyncio.sleep(0.1)

    async def collect(self, rng: Random, pause_s: float) -> None:
        """Deletes below the trim of a durable object, or after the takeover all data; with a
        sleep between deciding and deleting."""
        while True:
            await asyncio.sleep(rng.expovariate(1 / pause_s))
            if self.taken_over is not None:
                pause_s = 60.0  # now only for what lands late
            try:
                end = await read_end(self.store, self.log)
                if end is None:
                    tail = await read_tail(self.store, self.log, None)
                    below = tail[-1].header.trim if tail else 0
                elif self.taken_over is None:
                    continue
                else:
                    below = 1 << 62
                keys = []
                async for row in self.store.list(self.log.prefix):
                    seq = self.log.seq_of(row.key)
                    if seq is None or seq >= below:
                        continue
                    if (await read_header(self.store, row.key)).kind is Kind.LOG:
                        keys.append(row.key)
                await asyncio.sleep(rng.choice((0, 0, rng.expovariate(1))))
                rng.shuffle(keys)
                for start in range(0, len(keys), 3):
                    await self.store.delete(keys[start : start + 3])
                    self.counted["deleted"] += len(keys[start : start + 3])
            except StoreError:
                continue


async def _wait(future: asyncio.Future[int]) -> int:
    return await future
