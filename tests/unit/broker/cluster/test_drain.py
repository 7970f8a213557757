"""Who leaves hands over what it leads; who comes gets its share."""

from __future__ import annotations

import asyncio

import pytest

from tests.simulation.loop import start_on

from .fleet import Fleet, run


def led(fleet: Fleet, asked: int) -> dict[int, int]:
    """Partitions of the topic, by node id."""
    leaders = fleet.leaders(asked)
    return {number: leaders.count(number) for number in sorted(set(leaders))}


def settled(fleet: Fleet, asked: int) -> bool:
    image = fleet.node(asked).controller.image
    return not image.moves and all(p.source is None and not p.is_new for _, p in image.partitions())


@pytest.mark.parametrize("leaver", [1, 2])
def test_what_a_leaving_broker_led_is_open_elsewhere_before_it_ends(leaver: int) -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2, 3):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=9)
        asked = 3
        await fleet.until(lambda: settled(fleet, asked), 5)
        ended_logs: list[int] = []

        def watch(old: object, new: object) -> None:
            image = fleet.node(asked).controller.image
            ended_logs[:] = [one.incarnation for one in image.unended()]

        fleet.node(asked).controller.subscribe(watch)
        await fleet.stop(leaver)
        assert leaver not in fleet.leaders(asked)
        for number in {1, 2, 3} - {leaver}:
            image = fleet.node(asked).controller.image
            ours = fleet.node(number).controller.incarnation
            for topic, partition in image.led_by(ours):
                assert fleet.node(number).partitions.get(topic.name, partition.index) is not None
        image = fleet.node(asked).controller.image
        assert all(partition.leader_epoch <= 1 for _, partition in image.partitions())

    run(body)


def test_a_broker_that_comes_gets_its_share() -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.start(1)
        await fleet.topic(through=1, partitions=8)
        await fleet.start(2)
        await fleet.until(lambda: led(fleet, 1) == {1: 4, 2: 4}, 10)
        await fleet.start(3)
        await fleet.until(lambda: sorted(led(fleet, 1).values()) == [2, 3, 3], 10)
        await fleet.until(lambda: settled(fleet, 1), 10)
        for number, count in led(fleet, 1).items():
            open_here = [p for p in fleet.node(number).partitions.all() if p.topic == "t"]
            assert len(open_here) == count

    run(body)


def test_partitions_that_are_made_while_a_broker_leaves_go_to_the_others() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(number)
        leaving = fleet.node(2).controller
        await leaving.set_draining(leaving.incarnation, True)
        await fleet.topic(through=1, partitions=6)
        assert led(fleet, 1) == {1: 6}
        await leaving.set_draining(leaving.incarnation, False)
        await fleet.topic(through=1, name="u", partitions=6)
        assert 2 in fleet.leaders(1, "u")

    run(body)


def test_the_last_broker_leaves_with_what_it_leads() -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.start(1)
        await fleet.topic(through=1)
        began = fleet.loop.time()
        await fleet.stop(1)
        assert fleet.loop.time() - began < 1
        await fleet.start(2)
        await fleet.until(lambda: led(fleet, 2) == {2: 6}, 20)

    run(body)


def test_an_idle_cluster_that_is_balanced_sets_no_timer() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=4)
        await asyncio.sleep(10)
        deciding = fleet.node(1).controller.deciding
        assert deciding is not None
        assert not deciding._balance._wanted.is_set()
        assert not deciding._moves._due_at

    run(body)


def mark(fleet: Fleet, through: int, number: int, draining: bool) -> asyncio.Task[None]:
    incarnation = fleet.node(number).controller.incarnation
    controller = fleet.node(through).controller
    return start_on(fleet.names[through], controller.set_draining(incarnation, draining))


@pytest.mark.parametrize("drained", [1, 2], ids=["the controller", "another"])
def test_a_drained_broker_goes_on_and_leads_nothing_until_it_is_undrained(drained: int) -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2, 3):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=9)
        await mark(fleet, 3, drained, True)
        await fleet.until(lambda: drained not in led(fleet, 3) and settled(fleet, 3), 10)
        await fleet.topic(through=drained, name="later", partitions=6)
        assert drained not in fleet.leaders(3, "later"), "it serves, and is given nothing"
        assert [b.node_id for b in fleet.node(3).controller.image.live_brokers()] == [1, 2, 3]
        await mark(fleet, 3, drained, False)
        await fleet.until(lambda: led(fleet, 3).get(drained, 0) > 0 and settled(fleet, 3), 10)
        counts = [len(fleet.node(3).controller.image.led_by(one)) for one in range(3)]
        assert counts == [5, 5, 5]

    run(body)


def test_a_drained_broker_that_is_lost_leaves_nothing_to_take_over() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=4)
        await mark(fleet, 1, 2, True)
        await fleet.until(lambda: led(fleet, 1) == {1: 4} and settled(fleet, 1), 10)
        fleet.crash(2)
        await fleet.until(lambda: len(fleet.node(1).controller.image.live_brokers()) == 1, 15)
        epochs = [p.leader_epoch for _, p in fleet.node(1).controller.image.partitions()]
        assert max(epochs) <= 1, "moved once, never taken over"
        node = await fleet.start(2)
        assert node.controller.incarnation not in node.controller.image.draining
        await fleet.until(lambda: led(fleet, 1) == {1: 2, 2: 2}, 10)

    run(body)


def test_the_mark_outlives_a_pause() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=4)
        await mark(fleet, 1, 2, True)
        await fleet.until(lambda: led(fleet, 1) == {1: 4} and settled(fleet, 1), 10)
        fleet.loop.pause(fleet.names[2])
        await fleet.until(lambda: len(fleet.node(1).controller.image.live_brokers()) == 1, 15)
        fleet.loop.resume(fleet.names[2])
        await fleet.until(lambda: fleet.lives[2].rejoined == 1, 15)
        image = fleet.node(1).controller.image
        await fleet.until(lambda: bool(fleet.node(1).controller.image.draining), 15)
        await fleet.until(lambda: led(fleet, 1) == {1: 4} and settled(fleet, 1), 10)
        image = fleet.node(1).controller.image
        assert list(image.draining) == [fleet.node(2).controller.incarnation]

    run(body)


def test_where_all_are_drained_everything_stays_where_it_is() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=4)
        for number in (1, 2):
            await mark(fleet, 1, number, True)
        await asyncio.sleep(30)
        assert set(fleet.leaders(1)) <= {1, 2} and settled(fleet, 1)
        image = fleet.node(1).controller.image
        assert max(p.leader_epoch for _, p in image.partitions()) <= 1

    run(body)


def test_brokers_that_all_stop_at_once_pass_nothing_around() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2, 3):
            await fleet.start(number)
        await fleet.topic(through=1, partitions=9)
        began = fleet.loop.time()
        await asyncio.gather(*[fleet.stop(number) for number in (1, 2, 3)])
        assert fleet.loop.time() - began < 9, "nobody waits for one that leaves, too"
        node = await fleet.start(1)
        await fleet.until(lambda: fleet.is_open("t"), 30)
        assert fleet.leaders(1) == [1] * 9
        assert not node.trouble.reasons

    run(body)
