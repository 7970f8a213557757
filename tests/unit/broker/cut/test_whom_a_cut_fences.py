"""The old cluster, still alive on the bucket, is fenced; another bucket's goes on undisturbed."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence

import pytest

from broker.coordinator.java_hash import partition_for
from broker.cut import cut, plan
from broker.cut.command import tell
from broker.verify import verify
from objectstore.drivers.memory import MemoryStore
from objectstore.wrappers.passing import PassingStore
from wal.errors import Fenced
from wal.keys import wal_log
from wal.seal import read_end

from .brokers import Brokers, busy_cluster, run


def test_a_cut_ends_the_logs_of_brokers_that_are_alive_on_the_bucket() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        old = dict(brokers.nodes)
        await cut(brokers.store, brokers.rng, brokers.loop.now_ms)
        for node in old.values():
            assert await read_end(brokers.store, wal_log(node.controller.incarnation)) is not None
        # Each finds out when it writes next, or asks who decides.
        partition = await brokers.leader("t", 0)
        with pytest.raises(Fenced):
            await partition.append_internal([(b"k", b"too late")])[1]
        await brokers.kill_all()
        await brokers.start(4)
        assert await brokers.contents("t", 0) == brokers.acknowledged["t", 0]
        await verify(brokers.store)

    run(body)


class Slow(PassingStore):
    """So slow that other brokers miss the controller, and succeed it, during a cut."""

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        await asyncio.sleep(0.2)
        return await self.inner.get_ranges(key, ranges)


def test_whoever_succeeds_the_controller_during_a_cut_is_fenced_too() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        cutting = asyncio.create_task(cut(Slow(brokers.store), brokers.rng, brokers.loop.now_ms))
        await asyncio.sleep(0.2)
        await brokers.kill(1)
        kept = await cutting
        assert kept.image.holder is not None
        assert kept.image.holder.node_id != 1, "another one decided after it, in vain"
        await brokers.kill_all()
        assert (await verify(brokers.store)).unsealed == ()
        await brokers.start(4)
        for place, values in brokers.acknowledged.items():
            assert await brokers.contents(*place) == values

    run(body)


def test_a_start_on_the_bucket_of_a_cluster_that_cannot_be_reached_fences_it() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        old = dict(brokers.nodes)
        # The new broker's host reaches the store and none of the others.
        for n in (1, 2, 3):
            brokers.network.block("h4", f"h{n}", 600)
            brokers.network.block(f"h{n}", "h4", 600)
        partition = await brokers.leader("t", 0)
        await brokers.start(4)
        with pytest.raises(Fenced):
            await partition.append_internal([(b"k", b"too late")])[1]
        for node_id in old:
            await brokers.kill(node_id)
        await brokers.topic("made-later", 1)
        assert await brokers.contents("t", 0) == brokers.acknowledged["t", 0]
        await verify(brokers.store)

    run(body)


def test_a_replica_in_another_bucket_never_asks_the_old_brokers_though_they_answer() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        replica = MemoryStore(brokers.loop.now_ms)
        for key, (data, _) in list(brokers.store._objects.items()):
            replica.put_now(key, [data])
        await cut(replica, brokers.rng, brokers.loop.now_ms)
        before = len(brokers.store._objects)
        new = await brokers.start(9, replica)
        assert new.controller.owns_term
        assert [one.node_id for one in new.controller.image.live_brokers()] == [9]
        # Both go on, each on its own bucket.
        found = new.partitions.get("t", 0)
        assert found is not None
        await found.append_internal([(b"k", b"in the replica")])[1]
        await brokers.kill(9)
        await brokers.produce("t", 0, 2)
        assert await brokers.contents("t", 0) == brokers.acknowledged["t", 0]
        assert len(brokers.store._objects) >= before
        await verify(replica)
        await verify(brokers.store)

    run(body)


def test_groups_that_had_read_further_than_what_is_left_are_named() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        for index in (0, 1, 2):
            await brokers.commit("ahead", "t", index, 12)
        await brokers.kill_all()
        topics = (await plan(brokers.store)).image.topics
        coordinator = topics["__consumer_offsets"].partitions[partition_for("ahead", 3)].leader
        victim = next(one for one in topics["t"].partitions if one.leader != coordinator)
        log = wal_log(victim.leader)
        keys = sorted(key for key in brokers.store._objects if log.seq_of(key) is not None)
        await brokers.store.delete(keys[-16:])
        kept = await cut(brokers.store, brokers.rng, brokers.loop.now_ms)
        lines: list[str] = []
        tell(kept, lines.append)
        behind = [one for one in kept.groups if one.group == "ahead"]
        assert [(one.group, one.topic, one.committed) for one in behind] == [("ahead", "t", 12)]
        assert any(f"committed 12 in t-{victim.index}" in line for line in lines)

    run(body)
