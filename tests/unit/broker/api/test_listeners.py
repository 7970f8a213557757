"""A broker with several listeners tells each client the address that it can use."""

from __future__ import annotations

from protocol.errors import ErrorCode
from protocol.messages import DescribeClusterRequest, FindCoordinatorRequest, MetadataRequest

from ..node_rig import Rig, batch, run
from .requests import fetch, produce

LISTENERS = "INSIDE=h1:9092,OUTSIDE=h1:9093@broker.example:19093,SIX=[::1]:9094"
TOLD = {
    "INSIDE": ("h1", 9092),
    "OUTSIDE": ("broker.example", 19093),
    "SIX": ("::1", 9094),
}


def test_addresses_are_those_of_the_listener_that_the_request_came_by() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        for listener, (host, port) in TOLD.items():
            client = rig.client(listener=listener)
            for version in (0, 13):
                metadata = await client.ask(MetadataRequest(topics=[]), version)
                assert [(b.host, b.port) for b in metadata.brokers] == [(host, port)]
            one = await client.ask(FindCoordinatorRequest(key="g", key_type=0), 3)
            assert (one.error_code, one.host, one.port) == (0, host, port)
            many = await client.ask(FindCoordinatorRequest(coordinator_keys=["g"], key_type=0), 6)
            assert [(c.host, c.port) for c in many.coordinators] == [(host, port)]
            for version in (0, 2):
                cluster = await client.ask(DescribeClusterRequest(), version)
                assert [(b.host, b.port) for b in cluster.brokers] == [(host, port)]

    run(body, listeners=LISTENERS)


def test_hints_at_the_leader_name_the_listener_that_the_request_came_by() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        topic = rig.node.controller.image.topics["t"]
        # As between the record that appoints another leader and its opening.
        partition.close()
        for listener, (host, port) in TOLD.items():
            client = rig.client(listener=listener)
            answer = await client.ask(produce([("t", 0, batch())]), 12)
            told = answer.responses[0].partition_responses[0]
            assert told.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert told.current_leader.leader_id == 1
            assert [(n.host, n.port) for n in answer.node_endpoints] == [(host, port)]
            read = await client.ask(fetch([(topic.topic_id, 0, 0)]), 17)
            assert read.responses[0].partitions[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert [(n.host, n.port) for n in read.node_endpoints] == [(host, port)]

    run(body, listeners=LISTENERS)
