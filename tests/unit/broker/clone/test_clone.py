"""A copy of a bucket that brokers write to: one that a broker starts on, whole up to a point."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

import broker.clone.copying
from broker.cli.clone import main
from broker.clone import clone
from broker.verify import main as verify_main
from broker.verify import verify
from broker.verify.fault import Fault
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import NotFound, StoreUnavailable
from objectstore.store import Chunks, ObjectInfo
from objectstore.wrappers.passing import PassingStore
from tests.unit.broker.cut.brokers import Brokers, Key, busy_cluster, run


class SlowReads(PassingStore):
    """Each read takes a while, in which brokers go on; `fails` creates may go wrong."""

    def __init__(self, inner: MemoryStore, rng: Random, slow_s: float = 0.004) -> None:
        super().__init__(inner)
        self._rng = rng
        self._slow_s = slow_s
        self.creates_left: int | None = None

    async def _wait(self) -> None:
        await asyncio.sleep(self._rng.random() * self._slow_s)

    async def get(self, key: str) -> bytes:
        await self._wait()
        return await self.inner.get(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        await self._wait()
        return await self.inner.get_ranges(key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        async for info in self.inner.list(prefix, start_after):
            if self._rng.random() < 0.1:
                await self._wait()
            yield info

    async def create(self, key: str, chunks: Chunks) -> None:
        if self.creates_left is not None:
            if self.creates_left == 0:
                raise Interrupted
            self.creates_left -= 1
        await self.inner.create(key, chunks)


class Interrupted(Exception):
    """Not an error of a store: those are waited out."""


async def load(brokers: Brokers, places: list[Key]) -> None:
    """Until cancelled: records, commits, uploads, and rounds of deletion."""
    turn = 0
    while True:
        turn += 1
        place = places[turn % len(places)]
        await brokers.produce(*place)
        if turn % 5 == 0:
            await brokers.commit("g0", *place, len(brokers.acknowledged[place]))
        if turn % 9 == 0:
            node = brokers.nodes[1 + turn % 3]
            await node.storage.uploader.upload()
            await node.storage.checkpointer.write()
            brokers.nodes[1].upkeep.rounds.wanted()


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_clone_of_a_live_store_has_all_that_was_acknowledged_before(seed: int) -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers, settings={"collector.round.interval.ms": "1000"})
        places = list(brokers.acknowledged)
        busy = asyncio.create_task(load(brokers, places))
        await asyncio.sleep(3)
        before = {place: len(values) for place, values in brokers.acknowledged.items()}
        committed = dict(brokers.committed["g1"])
        target = MemoryStore(brokers.loop.now_ms)
        source = SlowReads(brokers.store, Random(seed))
        cloned = await clone(source, target, Random(seed), brokers.loop.now_ms)
        written_meanwhile = sum(map(len, brokers.acknowledged.values())) - sum(before.values())
        assert written_meanwhile > 20
        await asyncio.sleep(0.5)
        busy.cancel()
        await asyncio.gather(busy, return_exceptions=True)
        await verify(brokers.store)
        assert (await verify(target)).unsealed == ()
        assert cloned.kept.metadata.fault is None
        copy = Brokers(brokers.loop, seed + 100)
        copy.store = target
        copy.network = brokers.network
        copy._started = 50
        try:
            await copy.start(8)
            for place in places:
                served = await copy.contents(*place)
                assert served == brokers.acknowledged[place][: len(served)]
                assert len(served) >= before[place], place
            assert await copy.offsets_of("g1") == committed
            copy.acknowledged = {("t", 0): list(await copy.contents("t", 0))}  # type: ignore[arg-type]
            await copy.produce("t", 0, 3)
            await verify(target)
        finally:
            await copy.kill_all()
        # The original never noticed.
        await brokers.produce("t", 0, 2)
        assert await brokers.contents("t", 0) == brokers.acknowledged["t", 0]

    run(body, seed)


def test_a_clone_that_was_interrupted_goes_on_where_it_was_at_any_point() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        await brokers.kill_all()
        whole = len(brokers.store._objects)
        for creates in (0, 1, whole // 2, whole - 2, whole, whole + 1, whole + 8, whole + 17):
            target = MemoryStore(brokers.loop.now_ms)
            slow = SlowReads(target, Random(creates), 0.0)
            slow.creates_left = creates
            with pytest.raises(Interrupted):
                await clone(brokers.store, slow, Random(1), brokers.loop.now_ms)
            there = set(target._objects)
            # Without the object that begins a cluster nobody takes it for one.
            assert "meta/00000000000000000000/00000000000000000000" not in there
            slow.creates_left = None
            cloned = await clone(brokers.store, slow, Random(2), brokers.loop.now_ms)
            assert not cloned.kept.is_lossy
            assert cloned.objects <= whole - min(creates, whole - 1)
            await verify(target)
            copied = await contents_of(brokers, target)
            assert copied == brokers.acknowledged

    run(body)


async def contents_of(brokers: Brokers, store: MemoryStore) -> dict[Key, list[bytes]]:
    copy = Brokers(brokers.loop, 9)
    copy.store = store
    try:
        await copy.start(1)
        return {
            place: [one for one in await copy.contents(*place) if one is not None]
            for place in brokers.acknowledged
        }
    finally:
        await copy.kill_all()


def test_a_target_with_anything_else_in_it_is_refused_and_left_as_it_is() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers, count=2)
        other = Brokers(brokers.loop, 5)
        await busy_cluster(other, count=2)
        await other.kill_all()
        before = dict(other.store._objects)
        with pytest.raises(Fault, match="holds a cluster already"):
            await clone(brokers.store, other.store, Random(1), brokers.loop.now_ms)
        assert other.store._objects == before
        # Another cluster's objects, without its beginning.
        await other.store.delete(["meta/00000000000000000000/00000000000000000000"])
        before = dict(other.store._objects)
        with pytest.raises(Fault, match="another object of that name"):
            await clone(brokers.store, other.store, Random(1), brokers.loop.now_ms)
        assert {key: other.store._objects[key] for key in before} == before
        with pytest.raises(Fault, match="no cluster"):
            await clone(
                MemoryStore(brokers.loop.now_ms), other.store, Random(1), brokers.loop.now_ms
            )

    run(body)


class Flaky(SlowReads):
    """Every few writes fail, before or after they happened."""

    async def create(self, key: str, chunks: Chunks) -> None:
        luck = self._rng.random()
        if luck < 0.1:
            raise StoreUnavailable(f"{key}: before")
        await self.inner.create(key, chunks)
        if luck < 0.2:
            raise StoreUnavailable(f"{key}: after")


def test_trouble_of_the_target_is_waited_out() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        await brokers.kill_all()
        target = MemoryStore(brokers.loop.now_ms)
        await clone(brokers.store, Flaky(target, Random(3)), Random(1), brokers.loop.now_ms)
        await verify(target)
        assert await contents_of(brokers, target) == brokers.acknowledged

    run(body)


def test_large_objects_go_in_parts() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        await brokers.kill_all()
        target = MemoryStore(brokers.loop.now_ms)
        with patch.object(broker.clone.copying, "PART_BYTES", 300):
            cloned = await clone(brokers.store, target, Random(1), brokers.loop.now_ms)
        assert target._uploads_begun > 30
        assert not cloned.kept.is_lossy
        assert await contents_of(brokers, target) == brokers.acknowledged

    run(body)


def test_the_command_says_how_far_the_copy_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers, count=3)
        await brokers.kill_all()
        for key, (data, _) in brokers.store._objects.items():
            path = tmp_path / "a" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    run(body)
    source, target = f"file://{tmp_path}/a", f"file://{tmp_path}/b"
    assert main(["--from", source, "--to", target]) == 0
    out = capsys.readouterr().out
    assert "all that was acknowledged before" in out
    assert "  t-2: offsets 0 to 6\n" in out
    assert f"headwater verify --store {target}" in out
    assert verify_main(["--store", target]) == 0
    assert main(["--from", source, "--to", target]) == 1
    assert "holds a cluster already" in capsys.readouterr().err
    assert main(["--from", f"file://{tmp_path}/none", "--to", f"{target}-2"]) == 1
    assert "there is no such directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--from", source, "--to", source])


class AlwaysLate(SlowReads):
    """What is listed is gone by the time that it is read."""

    async def get(self, key: str) -> bytes:
        if key.startswith("wal/"):
            raise NotFound(f"{key}: deleted meanwhile")
        return await super().get(key)


def test_a_source_that_deletes_faster_than_it_is_copied_gives_no_cluster() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers, count=2)
        await brokers.kill_all()
        target = MemoryStore(brokers.loop.now_ms)
        source = AlwaysLate(brokers.store, Random(1), 0.0)
        with pytest.raises(Fault, match="faster than"):
            await clone(source, target, Random(1), brokers.loop.now_ms)
        assert "meta/00000000000000000000/00000000000000000000" not in target._objects
        assert not any(key.endswith("/end") for key in target._objects)
        await clone(brokers.store, target, Random(1), brokers.loop.now_ms)
        assert await contents_of(brokers, target) == brokers.acknowledged

    run(body)
