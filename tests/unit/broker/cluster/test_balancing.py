"""Brokers that have too much to do are relieved; an idle cluster is left alone."""

from __future__ import annotations

import asyncio

import pytest

from broker.cli.balance import lines_of
from broker.cli.door import Door
from broker.cluster import messages as m
from broker.cluster.load import Load, PartitionLoad
from broker.controller.levelling import inputs_of
from broker.controller.loads import matters
from tests.simulation.loop import start_on

from .fleet import Fleet, run
from .test_drain import led, mark, settled
from .test_operating import door_of

MIB = 1 << 20


class Traffic:
    """Steady, into some partitions of `t`, whoever leads them: counted as produce would."""

    def __init__(self, fleet: Fleet, rates: dict[int, int]) -> None:
        self.fleet = fleet
        self.rates = rates

    async def run(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            for node in self.fleet.nodes():
                for index, rate in self.rates.items():
                    partition = node.partitions.get("t", index)
                    if partition is not None:
                        partition.bytes_in += rate // 2
                        node.metrics.request_received(0, rate // 2)

    def led(self, asked: int) -> dict[int, int]:
        """Bytes a second by node id."""
        found: dict[int, int] = {}
        for index, leader in enumerate(self.fleet.leaders(asked)):
            found[leader] = found.get(leader, 0) + self.rates.get(index, 0)
        return found


async def busy(fleet: Fleet, rates: dict[int, int], **settings: str) -> Traffic:
    """Two brokers; all of the rates are of partitions that the second leads."""
    for number in (1, 2):
        await fleet.start(number, **settings)
    await fleet.topic(through=1, partitions=8)
    await fleet.until(lambda: led(fleet, 1) == {1: 4, 2: 4} and settled(fleet, 1), 10)
    of_two = [index for index, leader in enumerate(fleet.leaders(1)) if leader == 2]
    return Traffic(fleet, dict(zip(of_two, rates.values(), strict=False)))


QUICK = {"leader_imbalance_check_interval_seconds": "5"}


def test_hot_partitions_are_shared_out_and_then_stay() -> None:
    async def body(fleet: Fleet) -> None:
        traffic = await busy(fleet, dict.fromkeys(range(4), MIB), **QUICK)
        running = asyncio.create_task(traffic.run())
        await fleet.until(lambda: traffic.led(1) == {1: 2 * MIB, 2: 2 * MIB}, 120)
        await fleet.until(lambda: settled(fleet, 1), 10)
        epochs = [p.leader_epoch for _, p in fleet.node(1).controller.image.partitions()]
        await asyncio.sleep(120)
        assert epochs == [p.leader_epoch for _, p in fleet.node(1).controller.image.partitions()]
        running.cancel()

    run(body)


def test_nothing_is_moved_where_it_is_switched_off_until_an_operator_asks() -> None:
    async def body(fleet: Fleet) -> None:
        traffic = await busy(
            fleet,
            dict.fromkeys(range(4), MIB),
            auto_leader_rebalance_enable="false",
            **QUICK,
        )
        running = asyncio.create_task(traffic.run())
        before = fleet.leaders(1)
        await asyncio.sleep(60)
        assert fleet.leaders(1) == before
        door = door_of(fleet)
        plan = await planned(door)
        assert plan.plan.steps and plan.moves == []
        assert fleet.leaders(1) == before, "a plan moves nothing"
        text = "\n".join(lines_of(plan.plan))
        assert "node 2 -> node 1" in text and "above the mean in bytes in" in text
        done = await door.ask(m.BalanceNow(False), m.Balanced)
        assert done.moves and done.plan.steps == plan.plan.steps
        await fleet.until(lambda: traffic.led(1) == {1: 2 * MIB, 2: 2 * MIB}, 20)
        running.cancel()
        door.close()

    run(body)


async def planned(door: Door) -> m.Balanced:
    return await door.ask(m.BalanceNow(True), m.Balanced)


def test_one_partition_that_is_all_the_load_is_named() -> None:
    async def body(fleet: Fleet) -> None:
        traffic = await busy(fleet, {0: 8 * MIB}, **QUICK)
        (hot,) = traffic.rates
        running = asyncio.create_task(traffic.run())
        await asyncio.sleep(60)
        door = door_of(fleet)
        plan = await planned(door)
        assert plan.plan.steps == []
        stuck = {(one.node_id, one.goal, one.partition) for one in plan.plan.stuck}
        leader = fleet.leaders(1)[hot]
        assert (leader, "bytes in", f"t/{hot}") in stuck
        assert f"t/{hot} makes 100% of its bytes" in "\n".join(lines_of(plan.plan))
        running.cancel()
        door.close()

    run(body)


def test_an_idle_cluster_is_left_alone_and_has_no_timer() -> None:
    async def body(fleet: Fleet) -> None:
        await busy(fleet, {}, **QUICK)
        controller = fleet.node(1).controller.deciding
        assert controller is not None and controller.levelling is not None
        position = controller.image.position
        await asyncio.sleep(300)
        assert not controller.levelling._loads.busy.is_set()
        assert controller.image.position == position

    run(body)


def test_nothing_is_planned_while_partitions_are_on_their_way() -> None:
    async def body(fleet: Fleet) -> None:
        await busy(fleet, {}, **QUICK)
        door = door_of(fleet)
        await planned(door)  # the door is open, and loads are measured
        image = fleet.node(1).controller.image
        move = {p.stream_id: 0 for _, p in image.led_by(fleet.node(2).controller.incarnation)}
        fleet.loop.pause(fleet.names[2])  # so that it cannot hand over yet
        moving = start_on(fleet.names[1], fleet.node(1).controller.move_leaders(move))
        await fleet.until(lambda: bool(fleet.node(1).controller.image.moves), 5)
        assert (await planned(door)).why_not == "partitions are on their way already"
        fleet.loop.resume(fleet.names[2])
        await moving
        door.close()

    run(body)


def test_a_drained_broker_is_given_nothing_by_load_either() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2, 3):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=6)
        await mark(fleet, 1, 3, True)
        await fleet.until(lambda: set(led(fleet, 1)) == {1, 2} and settled(fleet, 1), 10)
        image = fleet.node(1).controller.image
        loads = {one.incarnation: Load() for one in image.live_brokers()}
        brokers, movable = inputs_of(image, loads)
        assert [one.incarnation for one in brokers] == [0, 1]
        assert sorted(one.leader for one in movable) == [0, 0, 0, 1, 1, 1]

    run(body)


def test_a_broker_that_told_nothing_yet_makes_partitions_alone_count() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=4)
        image = fleet.node(1).controller.image
        hot = Load(bytes_in=9 * MIB, hottest=(PartitionLoad(0, 9 * MIB, 0),))
        brokers, movable = inputs_of(image, {0: hot})
        assert all(one.amounts.bytes_in == 0 for one in brokers)
        assert all(one.share == 0 for one in movable)
        brokers, movable = inputs_of(image, {0: hot, 1: Load()})
        assert [one.amounts.bytes_in for one in brokers] == [9 * MIB, 0]

    run(body)


@pytest.mark.parametrize(
    ("load", "does"),
    [
        (Load(), False),
        (Load(bytes_in=1000, requests=50, processor=30, partitions=9000), False),
        (Load(bytes_in=MIB), True),
        (Load(bytes_out=MIB), True),
        (Load(requests=1000), True),
        (Load(processor=900), True),
    ],
)
def test_only_a_load_that_matters_is_an_occasion(load: Load, does: bool) -> None:
    assert matters(load) == does
