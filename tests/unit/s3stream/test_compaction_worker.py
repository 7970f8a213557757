"""Where merges run, at what pace, and what is recorded of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import Corrupt, NotFound, StoreError, StoreUnavailable
from objectstore.open import open_store
from objectstore.settings import StoreSettings
from s3stream.block_cache import BlockCache
from s3stream.compaction import CompactionConfig, Output
from s3stream.compaction.budget import Budget
from s3stream.compaction.compactor import Compactor
from s3stream.compaction.merge import NewObject
from s3stream.compaction.worker import InProcessRunner, MergeRunner, WorkerProcess
from s3stream.control import Compacted, Opening, Uploaded, decode_control, encode_control
from s3stream.control import OpenedStream as Opened
from s3stream.object_reader import ObjectReader
from s3stream.references import ObjectNumbers
from s3stream.refs import ObjectRef
from s3stream.registry import StreamRegistry
from wal.format import Kind, ObjectIndex

from .counting_store import CountingStore
from .stored_objects import batch, entry, object_range, put_object

CONFIG = CompactionConfig(requests_per_s=1e6, bytes_per_s=1e12, idle_exit_s=0.2)


def two_objects(store: MemoryStore) -> tuple[list[ObjectRef], Output]:
    written = [
        put_object(store, n, [entry(1, batch(n * 2)), entry(1, batch(n * 2 + 1))]) for n in (0, 1)
    ]
    ranges = tuple((1, object_range(ref, index, 1)) for ref, index in written)
    return [ref for ref, _ in written], Output(ranges)


async def on_files(directory: Path) -> tuple[str, list[ObjectRef], Output]:
    """The same two objects in a file store."""
    uri = f"file://{directory}"
    memory = CountingStore()
    refs, output = two_objects(memory)
    store = await open_store(uri, settings=StoreSettings(), rng=Random(1), now_ms=lambda: 0)
    for ref in refs:
        await store.create(ref.key, [await memory.get(ref.key)])
    await store.close()
    return uri, refs, output


async def until_gone(pid: int) -> None:
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.02)


def test_child_process_writes_the_same_bytes_as_this_process(tmp_path: Path) -> None:
    async def run() -> None:
        uri, _, output = await on_files(tmp_path)
        memory = CountingStore()
        two_objects(memory)
        new = NewObject(1, 7, bytes(range(16)))
        here = await InProcessRunner(memory, CONFIG, rng=Random(1)).run([(new, output)])
        worker = WorkerProcess(uri, StoreSettings(), CONFIG)
        assert worker.pid is None
        there = await worker.run([(new, output)])
        assert there == here
        store = await open_store(uri, settings=StoreSettings(), rng=Random(1), now_ms=lambda: 0)
        assert await store.get(new.key) == await memory.get(new.key)
        await store.close()
        await worker.close()

    asyncio.run(run())


def test_child_ends_when_idle_and_a_new_one_starts_on_demand(tmp_path: Path) -> None:
    async def run() -> None:
        uri, _, output = await on_files(tmp_path)
        worker = WorkerProcess(uri, StoreSettings(), CONFIG)
        await worker.run([(NewObject(1, 7, bytes(16)), output)])
        first = worker.pid
        assert first is not None
        await until_gone(first)
        assert worker.pid is None
        await worker.run([(NewObject(1, 8, bytes(16)), output)])
        assert worker.pid not in (None, first)
        await worker.close()

    asyncio.run(run())


def test_child_tells_what_is_wrong_and_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        uri, refs, output = await on_files(tmp_path)
        worker = WorkerProcess(uri, StoreSettings(), CONFIG)
        path = tmp_path / refs[0].key
        whole = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        with pytest.raises(Corrupt, match=refs[0].key):
            await worker.run([(NewObject(1, 7, bytes(16)), output)])
        path.unlink()
        with pytest.raises(NotFound, match=refs[0].key):
            await worker.run([(NewObject(1, 8, bytes(16)), output)])
        path.write_bytes(whole)
        assert len(await worker.run([(NewObject(1, 9, bytes(16)), output)])) == 1
        await worker.close()

    asyncio.run(run())


def test_killed_child_is_a_retriable_error_and_another_one_does_the_work(tmp_path: Path) -> None:
    async def run() -> None:
        uri, _, output = await on_files(tmp_path)
        slow = CompactionConfig(requests_per_s=0.001, idle_exit_s=0.2)
        worker = WorkerProcess(uri, StoreSettings(), slow)
        job = asyncio.create_task(worker.run([(NewObject(1, 7, bytes(16)), output)] * 3))
        while worker.pid is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        os.kill(worker.pid, 9)
        with pytest.raises(StoreUnavailable, match="died"):
            await job
        worker._config = CONFIG
        assert len(await worker.run([(NewObject(1, 8, bytes(16)), output)])) == 1
        await worker.close()

    asyncio.run(run())


def test_child_that_hangs_is_ended_and_another_one_does_the_work(tmp_path: Path) -> None:
    async def run() -> None:
        uri, _, output = await on_files(tmp_path)
        worker = WorkerProcess(uri, StoreSettings(), CONFIG, patience_s=0.5)
        with (
            patch(
                "s3stream.compaction.worker._START", "import time; main = lambda: time.sleep(99)"
            ),
            pytest.raises(StoreUnavailable, match="no answer"),
        ):
            await worker.run([(NewObject(1, 7, bytes(16)), output)])
        assert worker.pid is None
        worker._patience_s = 60.0
        assert len(await worker.run([(NewObject(1, 8, bytes(16)), output)])) == 1
        await worker.close()

    asyncio.run(run())


def test_cancelled_merge_takes_the_child_with_it(tmp_path: Path) -> None:
    async def run() -> None:
        uri, _, output = await on_files(tmp_path)
        slow = CompactionConfig(requests_per_s=0.001)
        worker = WorkerProcess(uri, StoreSettings(), slow)
        job = asyncio.create_task(worker.run([(NewObject(1, 7, bytes(16)), output)] * 3))
        while worker.pid is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        pid = worker.pid
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await until_gone(pid)
        await worker.close()

    asyncio.run(run())


def test_budget_holds_on_average_whatever_the_sizes() -> None:
    class Clock:
        now = 100.0

    async def run() -> None:
        clock = Clock()
        loop = asyncio.get_running_loop()
        loop.time = lambda: clock.now  # type: ignore[method-assign]
        slept = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            clock.now += seconds

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("s3stream.compaction.budget.asyncio.sleep", sleep)
            budget = Budget(10, 1000)
            begun = clock.now
            for size in (5000, 10, 3000, 1, 1, 2000) * 5:
                await budget.take(1, size)
            taken_s = clock.now - begun
        total = 5 * 10_012
        assert total / 1000 - 6 <= taken_s <= total / 1000

    asyncio.run(run())


# The compactor


class Log:
    """A log of one incarnation whose records are durable, and folded, at once."""

    def __init__(self, store: CountingStore) -> None:
        self.store = store
        self.registry = StreamRegistry(1)
        self.controls: list[bytes] = []
        self.hold = False
        self._seq = -1

    async def append(self, record: bytes) -> int:
        if self.hold:
            await asyncio.Event().wait()
        self.controls.append(record)
        self.fold([record], [])
        return self._seq

    def fold(self, controls: Sequence[bytes], ranges: list) -> None:  # type: ignore[type-arg]
        self._seq += 1
        ref = ObjectRef(f"wal/{self._seq}", bytes(16), 1000, 500, 400)
        index = ObjectIndex([], ranges, list(controls))
        self.registry.fold(self._seq, ref, index)

    def upload(self, n: int, streams: Sequence[int], base: int) -> None:
        """One batch of each stream, appended and uploaded as object n."""
        entries = [entry(s, batch(base, seed=s)) for s in streams]
        _, logged = put_object(self.store, 10_000 + n, entries, kind=Kind.LOG, key=f"wal/x{n}")
        self.fold([], logged.ranges)
        ref, index = put_object(self.store, n, entries)
        self.registry.learn_index(ref, index)
        self.fold([encode_control(Uploaded([ref], self._seq))], [])


def compactor_of(log: Log, runner: MergeRunner | None = None) -> tuple[Compactor, ObjectNumbers]:
    numbers = ObjectNumbers(100)
    runner = runner or InProcessRunner(log.store, CONFIG, rng=Random(3))
    reader = ObjectReader(log.store, BlockCache(1 << 20))
    compactor = Compactor(
        log.registry, numbers, reader, runner, CONFIG, append=log.append, rng=Random(4)
    )
    return compactor, numbers


def eight_uploads() -> Log:
    log = Log(CountingStore())
    opened = [Opened(s, 0, (0, 0, s)) for s in (1, 2, 3)]
    log.fold([encode_control(Opening(opened))], [])
    for n in range(8):
        log.upload(n, (1, 2, 3), n)
    return log


def test_uploads_become_one_object_and_the_streams_refer_to_it_alone() -> None:
    async def run() -> None:
        log = eight_uploads()
        compactor, numbers = compactor_of(log)
        assert await compactor.compact_once()
        assert not await compactor.compact_once()
        held = {one.object.key for e in log.registry.entries.values() for one in e.ranges}
        assert len(held) == 1
        assert log.registry.references.held() >= held
        assert numbers.lowest_unsettled == 101
        record = decode_control(log.controls[-1], "test")
        assert isinstance(record, Compacted) and len(record.removed) == 8
        reader = ObjectReader(log.store, BlockCache(1 << 20))
        entry_of_2 = log.registry.entry(2)
        got = b"".join(await reader.read_stream(2, entry_of_2.ranges, 0, 8, 1 << 20))
        assert got == b"".join(batch(n, seed=2) for n in range(8))

    asyncio.run(run())


def test_stream_trimmed_while_it_is_merged_stays_trimmed() -> None:
    async def run() -> None:
        from s3stream.control import Trimmed

        log = eight_uploads()

        class TrimsMeanwhile(InProcessRunner):
            async def run(self, work: Sequence[tuple[NewObject, Output]]) -> list[ObjectRef]:
                refs = await super().run(work)
                log.fold([encode_control(Trimmed([(1, 8), (2, 3)]))], [])
                return refs

        compactor, _ = compactor_of(log, TrimsMeanwhile(log.store, CONFIG, rng=Random(3)))
        await compactor.compact_once()
        assert log.registry.entry(1).ranges == []
        assert log.registry.entry(2).start_offset == 3
        assert len(log.registry.entry(2).ranges) == 1

    asyncio.run(run())


def test_name_is_not_settled_while_its_record_may_still_become_durable() -> None:
    async def run() -> None:
        log = eight_uploads()
        compactor, numbers = compactor_of(log)
        log.hold = True
        task = asyncio.create_task(compactor.compact_once())
        for _ in range(50):
            await asyncio.sleep(0)
        assert numbers.lowest_unsettled == 100
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert numbers.lowest_unsettled == 100

    asyncio.run(run())


def test_failed_merge_gives_its_names_up() -> None:
    class Fails(MergeRunner):
        async def run(self, work: Sequence[tuple[NewObject, Output]]) -> list[ObjectRef]:
            raise StoreUnavailable("away")

        async def close(self) -> None:
            pass

    async def run() -> None:
        compactor, numbers = compactor_of(eight_uploads(), Fails())
        with pytest.raises(StoreError):
            await compactor.compact_once()
        assert numbers.lowest_unsettled == 101

    asyncio.run(run())


@pytest.mark.parametrize("missing", [False, True])
def test_damaged_object_is_left_alone_and_the_others_are_merged(missing: bool) -> None:
    async def run() -> None:
        log = eight_uploads()
        log.upload(8, (1, 2), 8)
        damaged = log.registry.entry(1).ranges[2].object
        if missing:
            await log.store.delete([damaged.key])
        else:
            log.store.flip(damaged.key, 200)
        compactor, _ = compactor_of(log)
        while await compactor.compact_once():
            pass
        held = [one.object.key for one in log.registry.entry(1).ranges]
        assert held[1] == damaged.key
        assert held[0] == held[2] and len(held) == 3

    asyncio.run(run())


def test_nothing_is_done_until_there_is_something_new() -> None:
    async def run() -> None:
        log = eight_uploads()
        compactor, _ = compactor_of(log)
        task = asyncio.create_task(compactor.run())
        await asyncio.sleep(0)
        assert log.controls == []
        compactor.notice()
        while not log.controls:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
