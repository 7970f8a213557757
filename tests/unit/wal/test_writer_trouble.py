"""What a log's writer tells of a store in trouble, and the bucket that is not its own any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import BucketMissing, Corrupt, StoreError
from objectstore.store import Chunks
from objectstore.wrappers.passing import PassingStore
from tests.simulation.log_world import batch
from tests.simulation.loop import SimulatedLoop
from wal.config import WalConfig
from wal.errors import LogClosed
from wal.format import Kind, compose_blob
from wal.keys import meta_log, wal_log
from wal.store_trouble import LATE_S
from wal.writer import LogWriter

LOG = wal_log(7)
CLUSTER = meta_log(0).key(0)


class Troubled(PassingStore):
    """delay_s: before each create. error: of every request while it is set."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(lambda: 0))
        self.delay_s = 0.0
        self.error: StoreError | None = None

    async def create(self, key: str, chunks: Chunks) -> None:
        await asyncio.sleep(self.delay_s)
        if self.error is not None:
            raise self.error
        await self.inner.create(key, chunks)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        if self.error is not None:
            raise self.error
        return await self.inner.get_range(key, start, end)


class Rig:
    def __init__(self) -> None:
        self.store = Troubled()
        self.told: list[StoreError | None] = []
        self.writer = LogWriter(
            self.store,
            LOG,
            4,
            WalConfig(),
            rng=Random(1),
            on_durable=lambda _: None,
            on_trouble=self.told.append,
        )


def run(tell: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        rig = Rig()
        chunks, _ = compose_blob(Kind.SNAPSHOT, 0, 0, b"0" * 16, b"the cluster")
        await rig.store.create(CLUSTER, chunks)
        running = asyncio.create_task(rig.writer.run())
        try:
            await tell(rig)
        finally:
            rig.writer.abort()
            await asyncio.wait((running,))
            if running.exception() is not None:
                assert isinstance(running.exception(), Corrupt)

    SimulatedLoop(1).run(main())


def test_a_put_without_an_answer_is_told_before_its_time_out_and_its_success_too() -> None:
    async def tell(rig: Rig) -> None:
        rig.store.delay_s = LATE_S * 3
        future = rig.writer.append(batch(0))
        await asyncio.sleep(LATE_S * 2)
        assert len(rig.told) == 1
        assert "no answer" in str(rig.told[0])
        await future
        assert rig.told[1:] == [None]

    run(tell)


def test_a_bucket_that_comes_back_with_its_cluster_is_written_on() -> None:
    async def tell(rig: Rig) -> None:
        await rig.writer.append(batch(0))
        rig.store.error = BucketMissing("gone")
        future = rig.writer.append(batch(1))
        await asyncio.sleep(10)
        assert not future.done()
        rig.store.error = None
        assert await future == 1
        assert [type(one) for one in rig.told] == [BucketMissing, type(None)]

    run(tell)


def test_nothing_is_acknowledged_into_a_bucket_that_was_made_anew() -> None:
    async def tell(rig: Rig) -> None:
        await rig.writer.append(batch(0))
        rig.store.error = BucketMissing("gone")
        future = rig.writer.append(batch(1))
        await asyncio.sleep(10)
        await rig.store.delete([CLUSTER, LOG.key(0)])
        rig.store.error = None
        with pytest.raises(LogClosed):
            await future

    run(tell)
