"""What operators ask of a cluster is answered by each of its brokers, and truly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    ApiVersionsRequest,
    DescribeClusterRequest,
    DescribeQuorumRequest,
    UnregisterBrokerRequest,
    UpdateFeaturesRequest,
)
from s3stream.metadata import records as r
from s3stream.metadata.features import HEADWATER_VERSION, SUPPORTED_LEVEL
from tests.simulation.loop import start_on

from ..cluster import fleet as fleets
from ..cluster.fleet import Fleet
from .fleet_client import FleetClient


def run(body: Callable[[Fleet, FleetClient], Awaitable[None]]) -> None:
    async def main(fleet: Fleet) -> None:
        for number in (1, 2, 3):
            await fleet.start(number)
        await body(fleet, FleetClient(fleet))

    fleets.run(main)


async def known(client: FleetClient, through: int) -> dict[int, bool]:
    """Whether it is fenced, by node id."""
    answer = await client.ask(through, DescribeClusterRequest(include_fenced_brokers=True), 2)
    assert answer.error_code == 0
    return {one.broker_id: one.is_fenced for one in answer.brokers}


@pytest.mark.parametrize("through", [1, 2])
def test_a_broker_that_is_gone_is_shown_as_fenced_until_it_is_unregistered(through: int) -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        refused = await client.ask(through, UnregisterBrokerRequest(broker_id=3), 0)
        assert refused.error_code == ErrorCode.INVALID_REQUEST
        assert "Stop it first" in refused.error_message
        fleet.crash(3)
        await fleet.until(lambda: set(fleet.leaders(through)) == {1, 2}, 20)
        assert await known(client, through) == {1: False, 2: False, 3: True}
        older = await client.ask(through, DescribeClusterRequest(), 1)
        assert [one.broker_id for one in older.brokers] == [1, 2]
        done = await client.ask(through, UnregisterBrokerRequest(broker_id=3), 0)
        assert (done.error_code, done.error_message) == (0, None)
        assert await known(client, through) == {1: False, 2: False}
        again = await client.ask(through, UnregisterBrokerRequest(broker_id=3), 0)
        assert again.error_code == ErrorCode.BROKER_ID_NOT_REGISTERED
        assert again.error_message == "Broker ID 3 is not currently registered"
        # Whoever comes by that node id is a new broker like any other.
        await fleet.start(3)
        await fleet.until(lambda: sorted(fleet.leaders(through)) == [1, 1, 2, 2, 3, 3], 30)
        assert not fleet.ended

    run(body)


def test_one_that_is_unregistered_before_its_log_was_ended_is_taken_over_all_the_same() -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        fleet.crash(3)
        one = fleet.node(1).controller
        await fleet.until(lambda: one.image.brokers[3].fenced, 20)
        done = await client.ask(2, UnregisterBrokerRequest(broker_id=3), 0)
        assert done.error_code == 0
        await fleet.until(lambda: set(fleet.leaders(2)) == {1, 2} and fleet.is_open("t"), 20)
        assert not fleet.ended

    run(body)


@pytest.mark.parametrize("through", [1, 3])
@pytest.mark.parametrize("version", [0, 1, 2])
def test_the_quorum_is_the_controller_and_those_that_follow_it(through: int, version: int) -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=2)
        kind = DescribeQuorumRequest.TopicData
        topic = kind(
            topic_name="__cluster_metadata", partitions=[kind.PartitionData(partition_index=0)]
        )
        # Until the openings are recorded, and both others have told that they know of it.
        for _ in range(1000):
            answer = await client.ask(through, DescribeQuorumRequest(topics=[topic]), version)
            (partition,) = answer.topics[0].partitions
            ends = {one.replica_id: one.log_end_offset for one in partition.observers}
            image = fleet.node(1).controller.image
            if set(ends.values()) == {partition.high_watermark} == {image.position.seq + 1}:
                break
        assert set(ends) == {2, 3}
        assert (partition.leader_id, partition.leader_epoch) == (1, image.term)
        (voter,) = partition.current_voters
        assert (voter.replica_id, voter.log_end_offset) == (1, partition.high_watermark)
        assert partition.high_watermark == image.position.seq + 1
        if version >= 1:
            now = fleet.loop.now_ms()
            for one in partition.observers:
                assert now - 5_000 <= one.last_caught_up_timestamp <= now
                assert now - 5_000 <= one.last_fetch_timestamp <= now
        if version >= 2:
            assert [(n.node_id, n.listeners[0].host) for n in answer.nodes] == [(1, "h1")]

    run(body)


@pytest.mark.parametrize("through", [1, 2])
def test_levels_go_up_and_never_down(through: int) -> None:
    async def update(client: FleetClient, level: int) -> tuple[int, str | None]:
        change = UpdateFeaturesRequest.FeatureUpdateKey(
            feature=HEADWATER_VERSION, max_version_level=level, upgrade_type=1
        )
        request = UpdateFeaturesRequest(
            timeout_ms=10_000, feature_updates=[change], validate_only=False
        )
        answer = await client.ask(through, request, 2)
        return answer.error_code, answer.error_message

    async def body(fleet: Fleet, client: FleetClient) -> None:
        assert await update(client, SUPPORTED_LEVEL) == (0, None)
        code, message = await update(client, SUPPORTED_LEVEL - 1)
        assert code == ErrorCode.INVALID_UPDATE_VERSION
        assert message is not None and "cannot be lowered" in message
        code, message = await update(client, SUPPORTED_LEVEL + 1)
        assert code == ErrorCode.INVALID_UPDATE_VERSION
        assert message is not None and "only supports versions" in message

    run(body)


@pytest.mark.parametrize("through", [1, 2])
def test_a_level_waits_for_a_live_broker_that_does_not_read_it(through: int) -> None:
    async def body(fleet: Fleet, client: FleetClient) -> None:
        one = fleet.node(1).controller
        deciding = one.deciding
        assert deciding is not None
        # An older process, for as long as nobody has missed it.
        older = r.BrokerRegistered(9, one.image.next_incarnation, b"older", 4, (), level=1)
        await start_on(fleet.names[1], deciding.decide((older,)))
        change = UpdateFeaturesRequest.FeatureUpdateKey(
            feature=HEADWATER_VERSION, max_version_level=SUPPORTED_LEVEL, upgrade_type=1
        )
        request = UpdateFeaturesRequest(
            timeout_ms=10_000, feature_updates=[change], validate_only=True
        )
        answer = await client.ask(through, request, 1)
        assert answer.error_code == ErrorCode.INVALID_UPDATE_VERSION
        assert "Brokers [9] do not support it" in answer.error_message
        # Who decides looks again: one may have joined since it was judged elsewhere.
        raising = fleet.node(through).controller.set_feature_level(
            HEADWATER_VERSION, SUPPORTED_LEVEL
        )
        with pytest.raises(KafkaError, match="Not every live broker reads level"):
            await start_on(fleet.names[through], raising)
        await fleet.until(lambda: one.image.brokers[9].fenced, 20)
        assert (await client.ask(through, request, 1)).error_code == 0

    run(body)


def test_what_is_told_of_features_is_newer_under_every_later_controller() -> None:
    async def epoch(client: FleetClient) -> int:
        request = ApiVersionsRequest(client_software_name="test", client_software_version="1")
        answer = await client.ask(2, request, 4)
        return int(answer.finalized_features_epoch)

    async def body(fleet: Fleet, client: FleetClient) -> None:
        await fleet.topic(through=1)
        before = await epoch(client)
        fleet.crash(1)
        member = fleet.node(2).controller
        await fleet.until(lambda: member.image.term > 0, 30)
        assert await epoch(client) > before

    run(body)
