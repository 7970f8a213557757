"""A move is cancelled, and the leader dies before it has opened again what it had closed."""

from __future__ import annotations

import asyncio

import pytest

from objectstore.store import Chunks, ObjectStore
from objectstore.wrappers.passing import PassingStore
from tests.simulation.loop import start_on

from .fleet import Fleet, run


class Slow(PassingStore):
    """Writes of one process take so long."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.takes_s = 0.0

    async def create(self, key: str, chunks: Chunks) -> None:
        await asyncio.sleep(self.takes_s)
        await self.inner.create(key, chunks)


async def append(fleet: Fleet, number: int, index: int) -> None:
    partition = fleet.node(number).partitions.get("t", index)
    assert partition is not None
    await partition.append_internal([(b"k", b"v")])[1]


@pytest.mark.parametrize("dies", [True, False], ids=["dies", "lives"])
def test_its_log_is_the_source_until_it_has_opened_them_anew(dies: bool) -> None:
    async def body(fleet: Fleet) -> None:
        seen = {number: Slow(fleet.store) for number in (1, 2, 3)}
        fleet.seen_by = lambda number: seen[number]
        for number in (1, 2, 3):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=3)
        controller = fleet.node(1).controller
        await fleet.until(lambda: not any(p.is_new for _, p in controller.image.partitions()))
        index = fleet.leaders(1).index(3)
        await start_on(fleet.names[3], append(fleet, 3, index))
        stream_id = controller.image.topics["t"].partitions[index].stream_id
        source = fleet.node(3).controller.incarnation
        seen[3].takes_s = 1.0
        target = fleet.node(2).controller.incarnation
        (move,) = await start_on(fleet.names[1], controller.move_leaders({stream_id: target}))
        await asyncio.sleep(0.1)
        assert fleet.node(3).partitions.get("t", index) is None, "closed as soon as it knows"
        await start_on(fleet.names[1], controller.cancel_moves([move]))
        cancelled = controller.image.topics["t"].partitions[index]
        assert (cancelled.leader, cancelled.source, cancelled.leader_epoch) == (source, source, 1)
        if dies:
            fleet.crash(3)
        seen[3].takes_s = 0.0

        def leads_on() -> bool:
            now = controller.image.topics["t"].partitions[index]
            node_id = controller.image.incarnations[now.leader].node_id
            if now.source is not None or node_id not in fleet.lives or dies == (node_id == 3):
                return False
            return fleet.node(node_id).partitions.get("t", index) is not None

        await fleet.until(leads_on, 10)
        now = controller.image.topics["t"].partitions[index]
        node_id = controller.image.incarnations[now.leader].node_id
        await start_on(fleet.names[node_id], append(fleet, node_id, index))
        partition = fleet.node(node_id).partitions.get("t", index)
        assert partition is not None
        assert partition.high_watermark == 2, "the record of before is there, and the next one"

    run(body)
