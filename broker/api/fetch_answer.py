"""The answer to a Fetch: what was found of each partition, and what went wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from broker.leadership import endpoint_of, leader_node, partition_image
from broker.partition.fetch_session import FetchContext, SessionPartition
from broker.partition.partition import Partition
from broker.racks.followed import FollowedPartition
from broker.request_context import Raw, RequestContext
from protocol.errors import ErrorCode, KafkaError
from protocol.fetch import (
    FetchPartitionResponse,
    FetchRequest,
    FetchTopicResponse,
    encode_fetch_response,
)
from protocol.primitives import NodeEndpoint

_UNKNOWN = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.UNKNOWN_TOPIC_ID)


@dataclass(slots=True)
class Read:
    """One partition of one request on its way to an answer.

    confirmed: nobody had replaced this leader when it was asked for. partition: led here, or served
    for its leader.
    """

    wanted: SessionPartition
    told: FetchPartitionResponse
    partition: Partition | FollowedPartition | None = None
    error: KafkaError | None = None
    size_bytes: int = 0
    confirmed: bool = True


def answer(
    ctx: RequestContext,
    request: FetchRequest,
    context: FetchContext,
    reads: list[Read],
    version: int,
) -> Raw:
    """Encoded. A session's partitions that have no news are left out."""
    topics: dict[str | UUID, FetchTopicResponse] = {}
    size_bytes = 0
    hints: dict[int, NodeEndpoint] = {}
    for read in reads:
        told, wanted = read.told, read.wanted
        code = read.error.code if read.error is not None else ErrorCode.NONE
        if read.error is not None:
            _tell_error(ctx, read, version, hints)
        elif not read.confirmed:
            # The records cannot disappear, but where the log begins and ends a successor may know
            # better: -1 is "not known", as in an answer with an error.
            told.high_watermark = told.last_stable_offset = told.log_start_offset = -1
        has_data = bool(told.records) or told.diverging_epoch is not None
        tell = wanted.changed(
            code,
            has_data or told.preferred_read_replica >= 0,
            told.high_watermark,
            told.log_start_offset,
            not context.incremental,
        )
        if has_data and context.session is not None and context.incremental:
            # As in Kafka, turns begin with the first answer of a session that goes on.
            context.session.rotate(wanted.key)
        if not tell:
            continue
        topic = topics.get(wanted.topic)
        if topic is None:
            by_id = isinstance(wanted.topic, UUID)
            topic = FetchTopicResponse(
                None if by_id else str(wanted.topic),
                wanted.topic if isinstance(wanted.topic, UUID) else None,
            )
            topics[wanted.topic] = topic
        topic.partitions.append(told)
        if read.partition is not None:
            read.partition.bytes_out += read.size_bytes
            size_bytes += read.size_bytes
    ctx.services.racks.count(request.rack_id, size_bytes)
    return Raw(
        encode_fetch_response(
            version,
            list(topics.values()),
            session_id=context.session_id,
            node_endpoints=[hints[n] for n in sorted(hints)],
        )
    )


def _tell_error(
    ctx: RequestContext, read: Read, version: int, hints: dict[int, NodeEndpoint]
) -> None:
    assert read.error is not None
    told, wanted = read.told, read.wanted
    told.error_code = int(read.error.code)
    told.records = ()
    told.high_watermark = told.last_stable_offset = -1
    told.log_start_offset = told.preferred_read_replica = -1
    if read.partition is None and read.error.code in _UNKNOWN:
        # Kafka answers these before it reads, with an empty list where it has null else.
        told.aborted_transactions = ()
    leaderless = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH)
    if version >= 16 and read.error.code in leaderless:
        image = ctx.services.image
        if isinstance(wanted.topic, UUID):
            found = image.topic_by_id(wanted.topic)
        else:
            found = image.topics.get(wanted.topic)
        partition = partition_image(found, wanted.index)
        if partition is not None:
            node_id = leader_node(image, partition)
            told.current_leader = (node_id, partition.leader_epoch)
            endpoint = endpoint_of(image, node_id, ctx.listener)
            if endpoint is not None:
                hints[node_id] = endpoint
