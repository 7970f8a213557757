"""Kafka's reassignments move leadership, through whichever broker they come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from protocol.errors import ErrorCode
from protocol.messages import (
    AlterPartitionReassignmentsRequest,
    ListPartitionReassignmentsRequest,
    MetadataRequest,
)
from s3stream.metadata.features import HEADWATER_VERSION
from tests.simulation.loop import SimulatedLoop, start_on

from ..cluster import fleet as fleets
from ..cluster.fleet import Fleet
from ..node_rig import HeldStore
from .fleet_client import FleetClient

Nodes = Sequence[int] | None
# (error code, message), by partition.
Answers = dict[int, tuple[int, str | None]]
OK = (0, None)


def run(body: Callable[[Fleet, FleetClient], Awaitable[None]], brokers: int = 3) -> None:
    def held(loop: SimulatedLoop) -> HeldStore:
        return HeldStore(loop.now_ms)

    async def main(fleet: Fleet) -> None:
        try:
            for number in range(1, brokers + 1):
                await fleet.start(number)
            await body(fleet, FleetClient(fleet))
        finally:
            store_of(fleet).let_go()

    fleets.run(main, store=held)


def store_of(fleet: Fleet) -> HeldStore:
    assert isinstance(fleet.store, HeldStore)
    return fleet.store


async def reassign(
    client: FleetClient,
    through: int,
    wanted: Mapping[int, Nodes],
    *,
    topic: str = "t",
    version: int = 1,
    **more: Any,
) -> Answers:
    kind = AlterPartitionReassignmentsRequest.ReassignableTopic
    partitions = [
        kind.ReassignablePartition(
            partition_index=index, replicas=None if nodes is None else list(nodes)
        )
        for index, nodes in wanted.items()
    ]
    request = AlterPartitionReassignmentsRequest(
        timeout_ms=15_000, topics=[kind(name=topic, partitions=partitions)], **more
    )
    answer = await client.ask(through, request, version)
    assert (answer.error_code, answer.error_message) == OK
    (told,) = answer.responses
    assert told.name == topic
    return {p.partition_index: (p.error_code, p.error_message) for p in told.partitions}


async def ongoing(
    client: FleetClient, through: int, topics: Any = None
) -> dict[tuple[str, int], tuple[list[int], list[int], list[int]]]:
    """Replicas, those added, those removed, by topic and partition."""
    request = ListPartitionReassignmentsRequest(timeout_ms=15_000, topics=topics)
    answer = await client.ask(through, request, 0)
    assert (answer.error_code, answer.error_message) == OK
    return {
        (t.name, p.partition_index): (p.replicas, p.adding_replicas, p.removing_replicas)
        for t in answer.topics
        for p in t.partitions
    }


def other(leader: int) -> int:
    return leader % 3 + 1


@pytest.mark.parametrize("through", [1, 2, 3])
def test_a_reassigned_partition_is_led_by_the_first_broker_of_the_list(through: int) -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        before = fleet.leaders(through)
        wanted = {index: [other(leader), leader] for index, leader in enumerate(before)}
        assert await reassign(client, through, wanted) == dict.fromkeys(range(6), OK)
        after = [other(leader) for leader in before]
        await fleet.until(
            lambda: all(fleet.leaders(n) == after for n in (1, 2, 3)) and fleet.is_open("t"), 5
        )
        assert await ongoing(client, through) == {}
        topic = MetadataRequest.MetadataRequestTopic(name="t")
        told = await client.ask(through, MetadataRequest(topics=[topic]), 9)
        (found,) = told.topics
        assert {p.partition_index: p.replica_nodes for p in found.partitions} == {
            index: [leader] for index, leader in enumerate(after)
        }
        # Where it is already nothing is to be done.
        assert (await reassign(client, through, {0: [after[0]]}))[0] == OK
        assert not fleet.node(1).controller.image.moves

    run(body)


def test_each_partition_is_refused_by_itself_in_kafkas_words() -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        leader = fleet.leaders(1)[5]
        bad, missing = ErrorCode.INVALID_REPLICA_ASSIGNMENT, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        manual = "The manual partition assignment includes "
        assert await reassign(
            client,
            2,
            {0: [], 1: [1, 1], 2: [1, 9], 3: None, 5: [leader], 7: [1], -1: None},
            version=0,
        ) == {
            0: (bad, manual + "an empty replica list."),
            1: (bad, manual + "the broker 1 more than once."),
            2: (bad, manual + "broker 9, but no such broker is registered."),
            3: (ErrorCode.NO_REASSIGNMENT_IN_PROGRESS, None),
            5: OK,
            7: (missing, "Unable to find partition t:7."),
            -1: (missing, "Unable to find partition t:-1."),
        }
        assert await reassign(client, 2, {0: [1]}, topic="other") == {
            0: (missing, "Unable to find a topic named other.")
        }
        refused = await reassign(client, 2, {0: [1, 2]}, allow_replication_factor_change=False)
        assert refused == {
            0: (
                ErrorCode.INVALID_REPLICATION_FACTOR,
                "The replication factor is changed from 1 to 2",
            )
        }
        assert not fleet.node(1).controller.image.moves

    run(body)


def test_a_broker_that_is_gone_is_passed_by_and_a_list_of_such_is_refused() -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        fleet.crash(3)
        await fleet.until(lambda: set(fleet.leaders(1)) == {1, 2} and fleet.is_open("t"), 20)
        index = fleet.leaders(1).index(1)
        assert await reassign(client, 2, {index: [3, 2]}) == {index: OK}
        await fleet.until(lambda: fleet.leaders(1)[index] == 2, 5)
        told = await reassign(client, 2, {index: [3]})
        code, message = told[index]
        assert code == ErrorCode.INVALID_REPLICA_ASSIGNMENT
        assert message is not None and "are fenced or in controlled shutdown" in message

    run(body)


def test_what_is_under_way_is_listed_superseded_and_cancelled_partition_by_partition() -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        leaders = fleet.leaders(1)
        mine = [index for index, leader in enumerate(leaders) if leader == 3]
        assert len(mine) == 2
        # The old leader cannot say where it closed, so the moves stay pending.
        store_of(fleet).held.append("wal/")
        assert await reassign(client, 1, {i: [1] for i in mine}) == dict.fromkeys(mine, OK)
        first, second = mine
        on_its_way = ([1, 3], [1], [3])
        listed = await ongoing(client, 1)
        assert listed == {("t", first): on_its_way, ("t", second): on_its_way}
        topics = ListPartitionReassignmentsRequest.ListPartitionReassignmentsTopics
        named = [
            topics(name="t", partition_indexes=[second, 17]),
            topics(name="nowhere", partition_indexes=[0]),
        ]
        assert await ongoing(client, 1, named) == {("t", second): on_its_way}
        assert await ongoing(client, 1, []) == {}

        def let_go_soon() -> None:
            fleet.loop.call_later(1.0, store_of(fleet).let_go)

        # The other one that goes along goes on, in a move of its own.
        let_go_soon()
        assert await reassign(client, 2, {first: None}) == {first: OK}
        await fleet.until(lambda: fleet.leaders(1)[second] == 1, 10)
        assert fleet.leaders(1)[first] == 3
        await fleet.until(lambda: fleet.is_open("t"), 5)

        store_of(fleet).held.append("wal/")
        assert await reassign(client, 3, {first: [1]}) == {first: OK}
        let_go_soon()
        assert await reassign(client, 3, {first: [2]}) == {first: OK}
        await fleet.until(lambda: fleet.leaders(1)[first] == 2, 10)
        gone = ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
        assert (await reassign(client, 3, {first: None}))[first][0] == gone

    run(body)


def test_a_cluster_of_an_older_level_says_so() -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        one = fleet.node(1).controller
        await start_on(fleet.names[1], one.set_feature_level(HEADWATER_VERSION, 1))
        index = fleet.leaders(1).index(2)
        told = await reassign(client, 3, {index: [1]})
        code, message = told[index]
        assert code == ErrorCode.UNSUPPORTED_VERSION
        assert message is not None and "kafka-features" in message

    run(body)
