"""DescribeCluster (60, served 0-2), ElectLeaders (43, 0-2), DescribeTopicPartitions (75, 0),
DescribeLogDirs (35, 1-5).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from broker.controller.answering import STARTING_CLIENT_ID
from broker.controller.topics import check_name
from broker.leadership import NO_NODE, endpoint_of, leader_node, partition_image
from broker.request_context import RequestContext
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    DescribeClusterResponse,
    DescribeLogDirsResponse,
    DescribeTopicPartitionsResponse,
    ElectLeadersResponse,
)

from .authorized_operations import CLUSTER_OPERATIONS, TOPIC_OPERATIONS, as_bits

_ZERO_ID = UUID(int=0)
_BROKERS, _CONTROLLERS = 1, 2


async def describe_cluster(ctx: RequestContext, request: Any, version: int) -> Any:
    """Brokers at the listener the request came by. Source: KIP-700, KIP-919."""
    if ctx.client_id == STARTING_CLIENT_ID:
        # A process that starts wants to know who decides. One that was replaced while it was idle
        # has not heard of it, and must not answer for a broker that it no longer is.
        await ctx.services.controller.still_decides()
    image = ctx.services.image
    endpoint_type = request.endpoint_type if version >= 1 else _BROKERS
    if endpoint_type != _BROKERS:
        code, message = (
            ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            (
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of "
                "type CONTROLLER"
            ),
        )
        if endpoint_type != _CONTROLLERS:
            code, message = (
                ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
                f"Unsupported endpoint type {endpoint_type}",
            )
        return DescribeClusterResponse(
            error_code=int(code),
            error_message=message,
            endpoint_type=_BROKERS,
            cluster_id="",
            brokers=[],
            version=version,
        )
    brokers = []
    for node_id in sorted(image.brokers):
        registration = image.brokers[node_id]
        if registration.fenced and not (version >= 2 and request.include_fenced_brokers):
            continue
        endpoint = endpoint_of(image, node_id, ctx.listener)
        if endpoint is not None:
            brokers.append(
                DescribeClusterResponse.DescribeClusterBroker(
                    broker_id=node_id,
                    host=endpoint.host,
                    port=endpoint.port,
                    rack=endpoint.rack,
                    is_fenced=registration.fenced,
                    version=version,
                )
            )
    response = DescribeClusterResponse(
        error_code=0,
        cluster_id=image.cluster_id,
        controller_id=image.holder.node_id if image.holder is not None else NO_NODE,
        brokers=brokers,
        version=version,
    )
    if request.include_cluster_authorized_operations:
        response.authorized_operations = set(CLUSTER_OPERATIONS)
    return response


async def elect_leaders(ctx: RequestContext, request: Any, version: int) -> Any:
    """A partition's leader is its only replica: it is elected already, or there is none."""
    image = ctx.services.image
    wanted: list[tuple[str, int]] = []
    everything = request.topic_partitions is None
    if everything:
        wanted = [
            (name, p.index) for name in sorted(image.topics) for p in image.topics[name].partitions
        ]
    else:
        wanted = [(t.topic, index) for t in request.topic_partitions for index in t.partitions]
    results: dict[str, Any] = {}
    election = ElectLeadersResponse.ReplicaElectionResult
    if everything:
        # Kafka names every topic, but of its partitions only those that it elected for.
        for topic, _ in wanted:
            results[topic] = election(topic=topic, partition_result=[], version=version)
    unknown = version >= 1 and request.election_type not in (0, 1)
    for topic, index in wanted:
        partition = partition_image(image.topics.get(topic), index)
        if unknown:
            code, message = (
                ErrorCode.INVALID_REQUEST,
                f"Unknown election type {request.election_type}",
            )
        elif partition is None:
            code, message = (
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                (
                    f"No such topic as {topic}"
                    if topic not in image.topics
                    else f"No such partition as {topic}-{index}"
                ),
            )
        elif leader_node(image, partition) != NO_NODE:
            if everything:
                continue
            code, message = (
                ErrorCode.ELECTION_NOT_NEEDED,
                "Leader election not needed for topic partition.",
            )
        else:
            code, message = (
                ErrorCode.ELIGIBLE_LEADERS_NOT_AVAILABLE,
                "Eligible topic partition leaders are not available.",
            )
        result = results.get(topic)
        if result is None:
            result = results[topic] = election(topic=topic, partition_result=[], version=version)
        result.partition_result.append(
            election.PartitionResult(
                partition_id=index, error_code=int(code), error_message=message, version=version
            )
        )
    top = ErrorCode.INVALID_REQUEST if unknown else ErrorCode.NONE
    return ElectLeadersResponse(
        error_code=int(top), replica_election_results=list(results.values()), version=version
    )


async def describe_topic_partitions(ctx: RequestContext, request: Any, version: int) -> Any:
    """Pages through topics by a cursor. Source: KIP-966."""
    image = ctx.services.image
    names = sorted({t.name for t in request.topics}) if request.topics else sorted(image.topics)
    cursor = request.cursor
    first_partition = 0
    if cursor is not None:
        if cursor.partition_index < 0 or (request.topics and cursor.topic_name not in names):
            return _refuse_page(names, version)
        names = [n for n in names if n >= cursor.topic_name]
        if names and names[0] == cursor.topic_name:
            first_partition = cursor.partition_index
    limit = ctx.services.config.int("max.request.partition.size.limit")
    room = max(min(limit, request.response_partition_limit), 1)
    Topic = DescribeTopicPartitionsResponse.DescribeTopicPartitionsResponseTopic
    topics: list[Any] = []
    next_cursor = None
    for name in names:
        if room <= 0:
            next_cursor = _cursor(name, 0, version)
            break
        topic = image.topics.get(name)
        if topic is None:
            code = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            try:
                check_name(name)
            except KafkaError as error:
                code = error.code
            topics.append(
                Topic(
                    error_code=int(code),
                    name=name,
                    topic_id=_ZERO_ID,
                    partitions=[],
                    topic_authorized_operations=as_bits(TOPIC_OPERATIONS),
                    version=version,
                )
            )
            continue
        partitions = []
        racks = ctx.services.racks.racks
        chosen = topic.partitions[first_partition : first_partition + room]
        for partition in chosen:
            node_id = leader_node(image, partition)
            replicas = racks.replicas(partition.stream_id, node_id)
            partitions.append(
                Topic.DescribeTopicPartitionsResponsePartition(
                    error_code=int(ErrorCode.NONE if replicas else ErrorCode.LEADER_NOT_AVAILABLE),
                    partition_index=partition.index,
                    leader_id=node_id,
                    leader_epoch=partition.leader_epoch,
                    replica_nodes=replicas,
                    isr_nodes=replicas,
                    eligible_leader_replicas=[],
                    last_known_elr=[],
                    offline_replicas=[],
                    version=version,
                )
            )
        room -= len(chosen)
        topics.append(
            Topic(
                error_code=0,
                name=name,
                topic_id=topic.topic_id,
                is_internal=topic.internal,
                partitions=partitions,
                topic_authorized_operations=as_bits(TOPIC_OPERATIONS),
                version=version,
            )
        )
        if first_partition + len(chosen) < len(topic.partitions):
            next_cursor = _cursor(name, first_partition + len(chosen), version)
            break
        first_partition = 0
    return DescribeTopicPartitionsResponse(topics=topics, next_cursor=next_cursor, version=version)


def _refuse_page(names: list[str], version: int) -> Any:
    """A cursor that points nowhere: each topic has the error, since there is no other place."""
    Topic = DescribeTopicPartitionsResponse.DescribeTopicPartitionsResponseTopic
    code = int(ErrorCode.INVALID_REQUEST)
    topics = [
        Topic(error_code=code, name=name, topic_id=_ZERO_ID, partitions=[], version=version)
        for name in names
    ]
    return DescribeTopicPartitionsResponse(topics=topics, next_cursor=None, version=version)


def _cursor(topic: str, index: int, version: int) -> Any:
    return DescribeTopicPartitionsResponse.Cursor(
        topic_name=topic, partition_index=index, version=version
    )


async def describe_log_dirs(ctx: RequestContext, request: Any, version: int) -> Any:
    """One log directory: the store. Sizes are the bytes of live records."""
    partitions = ctx.services.partitions
    if request.topics is None:
        found = partitions.all()
    else:
        named = [(t.topic, i) for t in request.topics for i in t.partitions]
        found = [
            p for p in (partitions.get(t, i) for t, i in dict.fromkeys(named)) if p is not None
        ]
    result = DescribeLogDirsResponse.DescribeLogDirsResult
    topics: dict[str, Any] = {}
    for partition in found:
        topic = topics.get(partition.topic)
        if topic is None:
            topic = topics[partition.topic] = result.DescribeLogDirsTopic(
                name=partition.topic, partitions=[], version=version
            )
        topic.partitions.append(
            result.DescribeLogDirsTopic.DescribeLogDirsPartition(
                partition_index=partition.index,
                partition_size=partition.stream.size_bytes,
                offset_lag=0,
                is_future_key=False,
                version=version,
            )
        )
    answer = result(
        error_code=0,
        log_dir=ctx.services.config.text("store"),
        topics=list(topics.values()),
        version=version,
    )
    return DescribeLogDirsResponse(error_code=0, results=[answer], version=version)
