"""What an operator asks of a running cluster, over the same network as its brokers."""

from __future__ import annotations

from random import Random

import pytest

from broker.cli.cluster import look
from broker.cli.cluster_checks import cluster_findings
from broker.cli.door import Door, NoCluster, NoController
from broker.cluster import messages as m
from broker.cluster.picture import Unreached
from objectstore.doctor import Severity
from tests.simulation.loop import start_on

from .fleet import Fleet, run


def door_of(fleet: Fleet) -> Door:
    return Door(fleet.store, fleet.network.at("desk"), Random(5), None)


def test_the_controller_shows_every_broker_and_its_load() -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.start(1, broker_rack="a")
        await fleet.start(2, broker_rack="b")
        await fleet.topic(through=2, partitions=4)
        door = door_of(fleet)
        for _ in range(200):
            view = await look(door)
            if all(one.load is not None and one.load.partitions == 2 for one in view.brokers):
                break
        assert view.is_live and view.controller == 1 and view.unreached == []
        assert (view.topics, view.partitions, view.without_leader) == (1, 4, 0)
        one, two = view.brokers
        assert (one.node_id, one.rack, one.state, one.leads) == (1, "a", "live", 2)
        assert (two.node_id, two.rack, two.address, two.leads) == (2, "b", "h2:9092", 2)
        assert one.is_controller and not two.is_controller
        assert one.silent_ms is None and two.silent_ms is not None
        door.close()

    run(body)


def test_the_hottest_partition_is_named() -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.start(1)
        await fleet.start(2)
        await fleet.topic(through=1, partitions=4)
        door = door_of(fleet)
        index = fleet.leaders(1).index(2)
        node = fleet.node(2)
        partition = node.partitions.get("t", index)
        assert partition is not None

        def busy() -> bool:
            partition.bytes_in += 100
            node.metrics.request_received(0, 100)
            load = node.controller._around.own_load()
            return bool(load.hottest)

        await fleet.until(busy, 10)
        for _ in range(200):
            busy()
            view = await look(door)
            if view.hottest:
                break
        assert [(one.topic, one.partition, one.node_id) for one in view.hottest] == [
            ("t", index, 2)
        ]
        assert view.hottest[0].share == 1.0
        door.close()

    run(body)


def test_a_question_follows_the_controller_to_its_successor() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2, 3):
            await fleet.start(number)
        door = door_of(fleet)
        assert (await look(door)).controller == 1
        fleet.crash(1)
        shown = await door.ask(m.ShowCluster(), m.ClusterShown, patience_s=60.0)
        assert shown.view.controller in (2, 3)
        assert [one.node_id for one in shown.view.brokers if one.is_controller] == [
            shown.view.controller
        ]
        door.close()

    run(body)


def test_without_a_controller_the_bucket_is_shown() -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.start(1)
        await fleet.topic(through=1, partitions=3)
        fleet.crash(1)
        door = door_of(fleet)
        view = await look(door)
        assert not view.is_live
        assert [(one.state, one.leads, one.load) for one in view.brokers] == [
            ("registered", 3, None)
        ]
        with pytest.raises(NoController, match="node 1 at h1:9092 does not answer"):
            await door.ask(m.ShowCluster(), m.ClusterShown, patience_s=1.0)
        findings = await cluster_findings(door)
        assert {one.severity for one in findings} == {Severity.WARNING}

    run(body)


def test_a_store_without_a_cluster_is_told_apart() -> None:
    async def body(fleet: Fleet) -> None:
        with pytest.raises(NoCluster):
            await door_of(fleet).read()
        assert await cluster_findings(door_of(fleet)) == []

    run(body)


def test_brokers_that_do_not_reach_each_other_are_named() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(number)
        for host in ("h2", "h3"):
            fleet.network.block(host, "h3" if host == "h2" else "h2", 1000.0)
        await fleet.start(3)
        door = door_of(fleet)

        def told(number: int) -> tuple[int, ...]:
            return fleet.node(number).controller._around.own_load.reach.unreachable

        await fleet.until(lambda: told(2) == (3,) and told(3) == (2,), 60)
        assert told(1) == ()
        for _ in range(200):
            view = await look(door)
            if len(view.unreached) == 2:
                break
        assert view.unreached == [Unreached(2, 3), Unreached(3, 2)]
        findings = [one.what for one in await cluster_findings(door)]
        assert "node 2 does not reach node 3 at h3:9092" in findings
        fleet.network.heal()
        await fleet.until(lambda: told(2) == told(3) == (), 60)
        door.close()

    run(body)


def test_a_broker_alone_asks_nobody() -> None:
    async def body(fleet: Fleet) -> None:
        node = await fleet.start(1)
        assert node.controller._around.own_load.reach.unreachable == ()
        await start_on(fleet.names[1], fleet.until(lambda: fleet.loop.time() > 1100.0, 1000))
        assert not node.controller._around.own_load.is_measured

    run(body)
