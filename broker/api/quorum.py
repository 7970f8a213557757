"""DescribeQuorum (55, served 0-2): the metadata log as Kafka's tools show it.

Its leader and only voter is the controller; the other brokers follow, and are its observers.
Offsets count the log objects of the controller's term, from the first.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from broker.cluster.followers import NEVER
from broker.leadership import endpoint_of
from broker.request_context import RequestContext
from protocol.errors import ErrorCode
from protocol.messages import DescribeQuorumResponse

METADATA_TOPIC = "__cluster_metadata"

_ZERO_ID = UUID(int=0)
_Partition = DescribeQuorumResponse.TopicData.PartitionData


async def describe_quorum(ctx: RequestContext, request: Any, version: int) -> Any:
    """Asks the controller, who hears how far each broker follows."""
    asked = [(t.topic_name, [p.partition_index for p in t.partitions]) for t in request.topics]
    if asked != [(METADATA_TOPIC, [0])]:
        # Anything but that one partition, and all that is asked is unknown.
        topics = [
            _topic(name, [_unknown(index, version) for index in indexes], version)
            for name, indexes in asked
        ]
        return DescribeQuorumResponse(error_code=0, topics=topics, nodes=[], version=version)
    quorum = await ctx.services.controller.quorum()
    now = ctx.services.now_ms()
    answer = _Partition(
        partition_index=0,
        error_code=0,
        leader_id=quorum.node_id,
        leader_epoch=quorum.term,
        high_watermark=quorum.end,
        current_voters=[_replica(quorum.node_id, quorum.end, now, now, version)],
        observers=[
            _replica(
                one.node_id,
                one.end,
                _then(now, one.heard_ms),
                _then(now, one.caught_up_ms),
                version,
            )
            for one in quorum.followers
        ],
        version=version,
    )
    nodes = []
    endpoint = endpoint_of(ctx.services.image, quorum.node_id, ctx.listener)
    if version >= 2 and endpoint is not None:
        listener = DescribeQuorumResponse.Node.Listener(
            name=ctx.listener, host=endpoint.host, port=endpoint.port, version=version
        )
        nodes.append(
            DescribeQuorumResponse.Node(
                node_id=quorum.node_id, listeners=[listener], version=version
            )
        )
    topic = _topic(METADATA_TOPIC, [answer], version)
    return DescribeQuorumResponse(error_code=0, topics=[topic], nodes=nodes, version=version)


def _then(now_ms: int, ago_ms: int) -> int:
    """Unix milliseconds; -1: never, as Kafka writes it."""
    return -1 if ago_ms == NEVER else now_ms - ago_ms


def _replica(node_id: int, end: int, fetched_ms: int, caught_up_ms: int, version: int) -> Any:
    return _Partition.ReplicaState(
        replica_id=node_id,
        replica_directory_id=_ZERO_ID,
        log_end_offset=end,
        last_fetch_timestamp=fetched_ms,
        last_caught_up_timestamp=caught_up_ms,
        version=version,
    )


def _topic(name: str, partitions: list[Any], version: int) -> Any:
    return DescribeQuorumResponse.TopicData(topic_name=name, partitions=partitions, version=version)


def _unknown(index: int, version: int) -> Any:
    answer = _Partition(
        partition_index=index,
        error_code=int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        current_voters=[],
        observers=[],
        version=version,
    )
    if version >= 2:
        answer.error_message = "This server does not host this topic-partition."
    return answer
