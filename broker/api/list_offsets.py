"""ListOffsets (key 2), served 1-11.

Timestamps with a meaning: -1 latest, -2 earliest, -3 the largest timestamp (v7, KIP-734),
-4 earliest local (v8, KIP-405), -5 latest tiered (v9), -6 earliest pending upload (v11).
There is no local tier here that differs from the log: the earliest local offset is the log start,
nothing is tiered in Kafka's sense, and nothing waits to be.
"""

from __future__ import annotations

import logging
from typing import Any

from broker.partition.partition import FoundOffset, Partition
from broker.request_context import RequestContext
from objectstore.errors import Corrupt, StoreError
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import ListOffsetsResponse

from .confirmed_leader import ConfirmedLeader

log = logging.getLogger(__name__)

LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3
EARLIEST_LOCAL = -4
LATEST_TIERED = -5
EARLIEST_PENDING_UPLOAD = -6

_SINCE = {MAX_TIMESTAMP: 7, EARLIEST_LOCAL: 8, LATEST_TIERED: 9, EARLIEST_PENDING_UPLOAD: 11}

_Topic = ListOffsetsResponse.ListOffsetsTopicResponse


async def handle(ctx: RequestContext, request: Any, version: int) -> Any:
    """One answer for each partition; one that is named twice gets one, of invalid request."""
    seen: dict[tuple[str, int], int] = {}
    for topic in request.topics:
        for wanted in topic.partitions:
            key = (topic.name, wanted.partition_index)
            seen[key] = seen.get(key, 0) + 1
    told: set[tuple[str, int]] = set()
    isolation = request.isolation_level if version >= 2 else 0
    leader = ConfirmedLeader(ctx)
    topics = []
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            key = (topic.name, wanted.partition_index)
            if key in told:
                continue
            told.add(key)
            answer = _Topic.ListOffsetsPartitionResponse(
                partition_index=wanted.partition_index, timestamp=-1, offset=-1, version=version
            )
            answers.append(answer)
            try:
                if seen[key] > 1:
                    raise KafkaError(ErrorCode.INVALID_REQUEST)
                found = await _look_up(ctx, leader, topic.name, wanted, isolation, version)
            except KafkaError as error:
                answer.error_code = int(error.code)
                continue
            except StoreError as error:
                if isinstance(error, Corrupt):
                    log.error("%s-%d: %s", *key, error)
                answer.error_code = int(ErrorCode.KAFKA_STORAGE_ERROR)
                continue
            except Exception:
                # One partition's trouble stays its own.
                log.exception("%s-%d: looking up %d", *key, wanted.timestamp)
                answer.error_code = int(ErrorCode.UNKNOWN_SERVER_ERROR)
                continue
            if found is not None:
                answer.timestamp, answer.offset = found.timestamp_ms, found.offset
                if version >= 4:
                    answer.leader_epoch = found.leader_epoch
        topics.append(_Topic(name=topic.name, partitions=answers, version=version))
    return ListOffsetsResponse(topics=topics, version=version)


async def _look_up(
    ctx: RequestContext,
    leader: ConfirmedLeader,
    topic: str,
    wanted: Any,
    isolation: int,
    version: int,
) -> FoundOffset | None:
    partition = ctx.services.partitions.leading(topic, wanted.partition_index)
    if version >= 4:
        partition.check_leader_epoch(wanted.current_leader_epoch)
    timestamp = wanted.timestamp
    if version < _SINCE.get(timestamp, 0):
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
    # What claims to be the newest, or the whole, comes from a confirmed leader only.
    await leader.confirm()
    return await _find(partition, timestamp, isolation)


async def _find(partition: Partition, timestamp: int, isolation: int) -> FoundOffset | None:
    if timestamp == LATEST:
        return partition.latest(isolation)
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return partition.earliest()
    if timestamp == MAX_TIMESTAMP:
        return await partition.max_timestamp()
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        return None
    if timestamp < 0:
        raise KafkaError(ErrorCode.UNSUPPORTED_VERSION)
    return await partition.offset_for_timestamp(timestamp, isolation)
