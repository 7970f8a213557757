"""DescribeCluster (60, served 0-2), DescribeQuorum (55, 0-2), UpdateFeatures (57, 0-2),
ElectLeaders (43, 0-2), DescribeTopicPartitions (75, 0), DescribeLogDirs (35, 1-5).
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
    DescribeQuorumResponse,
    DescribeTopicPartitionsResponse,
    ElectLeadersResponse,
    UpdateFeaturesResponse,
)
from s3stream.metadata.features import HEADWATER_VERSION, level_of
from s3stream.metadata.image import MetadataImage

from .api_versions import SUPPORTED_FEATURES
from .authorized_operations import CLUSTER_OPERATIONS, TOPIC_OPERATIONS, as_bits

_ZERO_ID = UUID(int=0)
_BROKERS, _CONTROLLERS = 1, 2
METADATA_TOPIC = "__cluster_metadata"


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


async def describe_quorum(ctx: RequestContext, request: Any, version: int) -> Any:
    """The metadata log as tools show it: its leader is the controller, its only voter."""
    asked = [(t.topic_name, [p.partition_index for p in t.partitions]) for t in request.topics]
    if asked != [(METADATA_TOPIC, [0])]:
        # Anything but that one partition, and all that is asked is unknown.
        topics = [
            _quorum_topic(name, [_no_quorum(index, version) for index in indexes], version)
            for name, indexes in asked
        ]
        return DescribeQuorumResponse(error_code=0, topics=topics, nodes=[], version=version)
    image = ctx.services.image
    controller = image.holder.node_id if image.holder is not None else NO_NODE
    end = image.position.seq + 1
    now = ctx.services.now_ms()
    state = DescribeQuorumResponse.TopicData.PartitionData.ReplicaState
    answer = DescribeQuorumResponse.TopicData.PartitionData(
        partition_index=0,
        error_code=0,
        leader_id=controller,
        leader_epoch=image.term,
        high_watermark=end,
        current_voters=[
            state(
                replica_id=controller,
                replica_directory_id=_ZERO_ID,
                log_end_offset=end,
                last_fetch_timestamp=now,
                last_caught_up_timestamp=now,
                version=version,
            )
        ],
        observers=[],
        version=version,
    )
    nodes = []
    endpoint = endpoint_of(image, controller, ctx.listener)
    if version >= 2 and endpoint is not None:
        listener = DescribeQuorumResponse.Node.Listener(
            name=ctx.listener, host=endpoint.host, port=endpoint.port, version=version
        )
        nodes.append(
            DescribeQuorumResponse.Node(node_id=controller, listeners=[listener], version=version)
        )
    topic = _quorum_topic(METADATA_TOPIC, [answer], version)
    return DescribeQuorumResponse(error_code=0, topics=[topic], nodes=nodes, version=version)


def _quorum_topic(name: str, partitions: list[Any], version: int) -> Any:
    return DescribeQuorumResponse.TopicData(topic_name=name, partitions=partitions, version=version)


def _no_quorum(index: int, version: int) -> Any:
    answer = DescribeQuorumResponse.TopicData.PartitionData(
        partition_index=index,
        error_code=int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        current_voters=[],
        observers=[],
        version=version,
    )
    if version >= 2:
        answer.error_message = "This server does not host this topic-partition."
    return answer


_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE = 1, 2, 3


async def update_features(ctx: RequestContext, request: Any, version: int) -> Any:
    """Raise or lower feature levels, within what is supported; all of them, or none.

    Source: KIP-584, KIP-1022.
    """
    updates: dict[str, int] = {}
    for update in request.feature_updates:
        name, level = update.feature, update.max_version_level
        if version == 0:
            way = _SAFE_DOWNGRADE if update.allow_downgrade else _UPGRADE
        else:
            way = update.upgrade_type
        reason = _feature_error(ctx, name, level, way)
        if reason is not None:
            return UpdateFeaturesResponse(
                error_code=int(ErrorCode.INVALID_UPDATE_VERSION),
                error_message=(
                    "The update failed for all features since the following feature had an error: "
                    f"Invalid update version {level} for feature {name}. {reason}"
                ),
                results=[],
                version=version,
            )
        updates[name] = level
    if not (version >= 1 and request.validate_only):
        for name, level in updates.items():
            await ctx.services.controller.set_feature_level(name, level)
    response = UpdateFeaturesResponse(error_code=0, error_message=None, version=version)
    if version <= 1:
        response.results = [
            UpdateFeaturesResponse.UpdatableFeatureResult(
                feature=name, error_code=0, error_message=None, version=version
            )
            for name in updates
        ]
    return response


def _feature_error(ctx: RequestContext, name: str, level: int, way: int) -> str | None:
    if way not in (_UPGRADE, _SAFE_DOWNGRADE, _UNSAFE_DOWNGRADE):
        return "The controller does not support the given upgrade type."
    if level < 0:
        return "A feature version cannot be less than 0."
    supported = SUPPORTED_FEATURES.get(name)
    if supported is None:
        if level == 0:
            return f"Feature {name} not found."
        node_id = ctx.services.controller.node_id
        return f"Local controller {node_id} does not support this feature."
    if not (level == 0 or supported[0] <= level <= supported[1]):
        return f"Local controller only supports versions {supported[0]}-{supported[1]}"
    if name == HEADWATER_VERSION:
        return _level_error(ctx.services.image, level)
    return None


def _level_error(image: MetadataImage, level: int) -> str | None:
    """What was written at a level stays, so it never goes back; and all brokers must read it."""
    if level < level_of(image):
        return f"The level is {level_of(image)} and cannot be lowered."
    behind = [broker.node_id for broker in image.live_brokers() if broker.level < level]
    if behind:
        return f"Brokers {behind} do not support it; start a newer version of them first."
    return None


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
