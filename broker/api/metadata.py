"""Metadata (key 3), served 0-13.

v0 an empty list means all topics, from v1 on null does. v4: whether to create what is missing
(always, before). v8 authorized operations; v10 topic ids in answers, v12 in requests.
The replicas of a partition are its leader and, with racks, the broker of each other rack that
serves reads of it (broker.racks): the store keeps the copies.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from broker.controller.topics import check_name
from broker.leadership import NO_NODE, endpoint_of, leader_node
from broker.request_context import RequestContext
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import MetadataResponse
from s3stream.metadata.image import MetadataImage, TopicImage

from .authorized_operations import CLUSTER_OPERATIONS, TOPIC_OPERATIONS
from .auto_create import auto_create
from .metadata_portions import encoded_in_portions, in_portions

_ZERO_ID = UUID(int=0)


async def handle(ctx: RequestContext, request: Any, version: int) -> Any:
    """Answer for all topics, or those named; create missing ones where that is wanted."""
    everything = request.topics is None or (version == 0 and not request.topics)
    image = ctx.services.image
    topics: list[Any] = []
    if everything:
        names = sorted(image.topics)
        portions = list(in_portions(names, lambda name: len(image.topics[name].partitions)))
        if len(portions) > 1:
            return await encoded_in_portions(
                (
                    _response(
                        ctx,
                        image,
                        [_known(ctx, image, image.topics[name], request, version) for name in some],
                        request,
                        version,
                    )
                    for some in [*portions, []]
                ),
                len(names),
                version,
            )
        topics = [_known(ctx, image, image.topics[name], request, version) for name in names]
    else:
        asked = _asked(request, version)
        if asked is None:
            return _refused(request, version)
        missing = [name for name, _ in asked if name is not None]
        created = await _create_missing(ctx, request, version, missing)
        image = ctx.services.image
        for wanted, topic_id in asked:
            topics.append(_one(ctx, image, wanted, topic_id, created, request, version))
    return _response(ctx, image, topics, request, version)


def _response(
    ctx: RequestContext, image: MetadataImage, topics: list[Any], request: Any, version: int
) -> Any:
    brokers = []
    for broker in image.live_brokers():
        endpoint = endpoint_of(image, broker.node_id, ctx.listener)
        if endpoint is not None:
            brokers.append(
                MetadataResponse.MetadataResponseBroker(
                    node_id=endpoint.node_id,
                    host=endpoint.host,
                    port=endpoint.port,
                    rack=endpoint.rack,
                    version=version,
                )
            )
    response = MetadataResponse(
        brokers=brokers,
        cluster_id=image.cluster_id,
        controller_id=image.holder.node_id if image.holder is not None else NO_NODE,
        topics=topics,
        version=version,
    )
    if 8 <= version <= 10 and request.include_cluster_authorized_operations:
        response.authorized_operations = set(CLUSTER_OPERATIONS)
    return response


def _asked(request: Any, version: int) -> list[tuple[str | None, UUID]] | None:
    """Each topic once, by name or id; None: not to be asked so in this version.

    Where one id is given, names are not looked at.
    """
    asked = dict.fromkeys((t.name, t.topic_id or _ZERO_ID) for t in request.topics)
    if 10 <= version < 12 and any(name is None or topic_id.int for name, topic_id in asked):
        return None
    ids = dict.fromkeys(topic_id for _, topic_id in asked if topic_id.int)
    if ids:
        return [(None, topic_id) for topic_id in ids]
    return list(asked)


def _refused(request: Any, version: int) -> Any:
    code = ErrorCode.INVALID_REQUEST
    topics = [_unknown(t.name, t.topic_id or _ZERO_ID, code, version) for t in request.topics]
    return MetadataResponse(
        brokers=[], cluster_id=None, controller_id=NO_NODE, topics=topics, version=version
    )


def _one(
    ctx: RequestContext,
    image: MetadataImage,
    name: str | None,
    topic_id: UUID,
    created: dict[str, KafkaError],
    request: Any,
    version: int,
) -> Any:
    if name is None:
        topic = image.topic_by_id(topic_id)
        if topic is None:
            return _unknown(None, topic_id, ErrorCode.UNKNOWN_TOPIC_ID, version)
    else:
        topic = image.topics.get(name)
        if topic is None:
            error = created.get(name)
            code = error.code if error is not None else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            return _unknown(name, _ZERO_ID, code, version)
    return _known(ctx, image, topic, request, version)


async def _create_missing(
    ctx: RequestContext, request: Any, version: int, names: list[str]
) -> dict[str, KafkaError]:
    """Create the topics that are not there, if that is allowed; the error for each that is not."""
    errors: dict[str, KafkaError] = {}
    image = ctx.services.image
    may_create = (
        request.allow_auto_topic_creation if version >= 4 else True
    ) and ctx.services.config.flag("auto.create.topics.enable")
    wanted: list[str] = []
    for name in dict.fromkeys(names):
        if name in image.topics:
            continue
        try:
            check_name(name)
        except KafkaError as error:
            errors[name] = error
            continue
        if may_create:
            wanted.append(name)
    if wanted:
        errors |= await auto_create(ctx, wanted)
    return errors


def _known(
    ctx: RequestContext, image: MetadataImage, topic: TopicImage, request: Any, version: int
) -> Any:
    partitions = []
    racks = ctx.services.racks.racks
    for partition in topic.partitions:
        node_id = leader_node(image, partition)
        known = node_id != NO_NODE
        replicas = racks.replicas(partition.stream_id, node_id)
        partitions.append(
            MetadataResponse.MetadataResponseTopic.MetadataResponsePartition(
                error_code=int(ErrorCode.NONE if known else ErrorCode.LEADER_NOT_AVAILABLE),
                partition_index=partition.index,
                leader_id=node_id,
                leader_epoch=partition.leader_epoch,
                replica_nodes=replicas,
                isr_nodes=replicas,
                offline_replicas=[],
                version=version,
            )
        )
    answer = MetadataResponse.MetadataResponseTopic(
        error_code=0,
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.internal,
        partitions=partitions,
        version=version,
    )
    if version >= 8 and request.include_topic_authorized_operations:
        answer.authorized_operations = set(TOPIC_OPERATIONS)
    return answer


def _unknown(name: str | None, topic_id: UUID, code: ErrorCode, version: int) -> Any:
    return MetadataResponse.MetadataResponseTopic(
        error_code=int(code),
        name=name if version >= 12 else name or "",
        topic_id=topic_id,
        is_internal=name in ("__consumer_offsets", "__transaction_state"),
        partitions=[],
        version=version,
    )
