"""The APIs of committed offsets.

    OffsetCommit 8   2-10  retention 2-4, leader epoch 6, static members 7,
                           GROUP_ID_NOT_FOUND 9, topic ids instead of names 10
    OffsetFetch 9    1-10  all topics and a group's error 2, leader epoch 5, require stable 7,
                           several groups 8, topic ids instead of names 10
    OffsetDelete 47  0

A commit is answered when it is durable, and a fetch shows nothing that is not.
Source: KIP-211, KIP-447, KIP-496, KIP-709, KIP-848.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from broker.api.group_context import GroupContext
from broker.coordinator.messages import (
    CommitPartition,
    CommitRequest,
    CommitTopic,
    FetchedOffset,
)
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchResponse

_NO_ID = UUID(int=0)

_CommittedTopic = OffsetCommitResponse.OffsetCommitResponseTopic
_DeletedTopic = OffsetDeleteResponse.OffsetDeleteResponseTopic
_FetchedGroup = OffsetFetchResponse.OffsetFetchResponseGroup
_FetchedTopic = _FetchedGroup.OffsetFetchResponseTopics
_OldFetchedTopic = OffsetFetchResponse.OffsetFetchResponseTopic


class _Errors:
    """Errors by topic and partition, topics in the order in which they first appear."""

    def __init__(self) -> None:
        self.topics: dict[tuple[str, UUID | None], list[tuple[int, ErrorCode]]] = {}

    def add(self, name: str, topic_id: UUID | None, index: int, error: ErrorCode) -> None:
        self.topics.setdefault((name, topic_id), []).append((index, error))


# OffsetCommit


async def commit(ctx: GroupContext, request: Any, version: int) -> Any:
    errors = _Errors()
    topics = [_known(ctx, topic, version, errors) for topic in request.topics]
    existing = [topic for topic in topics if topic is not None]
    if existing:
        try:
            answers = await ctx.groups.commit(
                CommitRequest(
                    group_id=request.group_id,
                    generation=request.generation_id_or_member_epoch,
                    member_id=request.member_id,
                    instance_id=request.group_instance_id if version >= 7 else None,
                    topics=tuple(existing),
                    retention_ms=request.retention_time_ms if version <= 4 else -1,
                    knows_missing_group=version >= 9,
                )
            )
        except KafkaError as refused:
            answers = {
                topic.name: [(p.index, refused.code) for p in topic.partitions]
                for topic in existing
            }
        ids = {topic.name: topic.topic_id for topic in existing}
        for name, partitions in answers.items():
            for index, error in partitions:
                errors.add(name, ids[name], index, error)
    return OffsetCommitResponse(
        topics=[
            _CommittedTopic(
                name=name,
                topic_id=topic_id or _NO_ID,
                partitions=[
                    _CommittedTopic.OffsetCommitResponsePartition(
                        partition_index=index, error_code=error
                    )
                    for index, error in partitions
                ],
            )
            for (name, topic_id), partitions in errors.topics.items()
        ]
    )


def _known(ctx: GroupContext, topic: Any, version: int, errors: _Errors) -> CommitTopic | None:
    """The part of the topic that exists; what does not gets its error at once."""
    topic_id: UUID | None
    if version >= 10:
        topic_id = topic.topic_id or _NO_ID
        name, missing = ctx.topic_name(topic_id), ErrorCode.UNKNOWN_TOPIC_ID
    else:
        topic_id = ctx.topic_id(topic.name)
        name = None if topic_id is None else topic.name
        missing = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    if name is None:
        for partition in topic.partitions:
            errors.add(topic.name or "", topic_id, partition.partition_index, missing)
        return None
    partitions = []
    for partition in topic.partitions:
        index = partition.partition_index
        if not ctx.has_partition(name, index):
            errors.add(name, topic_id, index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            continue
        leader_epoch = partition.committed_leader_epoch if version >= 6 else -1
        partitions.append(
            CommitPartition(
                index, partition.committed_offset, leader_epoch, partition.committed_metadata
            )
        )
    return CommitTopic(name, topic_id, tuple(partitions)) if partitions else None


# OffsetFetch


async def fetch(ctx: GroupContext, request: Any, version: int) -> Any:
    require_stable = version >= 7 and request.require_stable
    if version >= 8:
        groups = await asyncio.gather(
            *(
                _fetch_group(ctx, g.group_id, g.topics, version, require_stable=require_stable)
                for g in request.groups
            )
        )
        return OffsetFetchResponse(groups=list(groups))
    group = await _fetch_group(
        ctx, request.group_id, request.topics, version, require_stable=require_stable
    )
    return _single(group, request.topics, version)


async def _fetch_group(
    ctx: GroupContext, group_id: str, topics: Any, version: int, *, require_stable: bool
) -> Any:
    """One group's offsets, in the form of version 8 and later."""
    try:
        if topics is None:
            found = await _fetch_all(ctx, group_id, version, require_stable=require_stable)
        else:
            found = await _fetch_some(ctx, group_id, topics, version, require_stable=require_stable)
    except KafkaError as error:
        return _FetchedGroup(group_id=group_id, topics=[], error_code=error.code)
    return _FetchedGroup(group_id=group_id, topics=found, error_code=ErrorCode.NONE)


async def _fetch_all(
    ctx: GroupContext, group_id: str, version: int, *, require_stable: bool
) -> list[Any]:
    answers = await ctx.groups.fetch_all(group_id, require_stable=require_stable)
    found = []
    for name, offsets in answers.items():
        topic_id = ctx.topic_id(name) if version >= 10 else None
        # A topic that has no id any more cannot be named in this version.
        if version < 10 or topic_id is not None:
            found.append(_topic(name, topic_id, offsets, ErrorCode.NONE))
    return found


async def _fetch_some(
    ctx: GroupContext, group_id: str, topics: Any, version: int, *, require_stable: bool
) -> list[Any]:
    unknown: list[Any] = []
    wanted: list[tuple[str, UUID | None, list[int]]] = []
    for topic in topics:
        if version < 10:
            wanted.append((topic.name, None, topic.partition_indexes))
            continue
        topic_id = topic.topic_id or _NO_ID
        name = ctx.topic_name(topic_id)
        if name is not None:
            wanted.append((name, topic_id, topic.partition_indexes))
            continue
        missing = [FetchedOffset(index) for index in topic.partition_indexes]
        unknown.append(_topic("", topic_id, missing, ErrorCode.UNKNOWN_TOPIC_ID))
    answers = await ctx.groups.fetch(group_id, wanted, require_stable=require_stable)
    return [
        _topic(name, topic_id, offsets, ErrorCode.NONE)
        for (name, topic_id, _indexes), offsets in zip(wanted, answers, strict=True)
    ] + unknown


def _topic(
    name: str, topic_id: UUID | None, offsets: Iterable[FetchedOffset], error: ErrorCode
) -> Any:
    return _FetchedTopic(
        name=name,
        topic_id=topic_id or _NO_ID,
        partitions=[
            _FetchedTopic.OffsetFetchResponsePartitions(
                partition_index=offset.index,
                committed_offset=offset.offset,
                committed_leader_epoch=offset.leader_epoch,
                metadata=offset.metadata,
                error_code=error,
            )
            for offset in offsets
        ],
    )


def _single(group: Any, asked: Any, version: int) -> Any:
    """The same before version 8, which knew one group only."""
    topics = group.topics
    error = group.error_code
    if error != ErrorCode.NONE and version < 2:
        # Without a place for the group's error it goes to every partition.
        topics = [
            _topic(topic.name, None, [FetchedOffset(i) for i in topic.partition_indexes], error)
            for topic in asked
        ]
    return OffsetFetchResponse(
        error_code=error,
        topics=[
            _OldFetchedTopic(
                name=topic.name,
                partitions=[
                    _OldFetchedTopic.OffsetFetchResponsePartition(
                        partition_index=p.partition_index,
                        committed_offset=p.committed_offset,
                        committed_leader_epoch=p.committed_leader_epoch,
                        metadata=p.metadata,
                        error_code=p.error_code,
                    )
                    for p in topic.partitions
                ],
            )
            for topic in topics
        ],
    )


# OffsetDelete


async def delete(ctx: GroupContext, request: Any, version: int) -> Any:
    errors = _Errors()
    wanted = []
    for topic in request.topics:
        known = []
        for partition in topic.partitions:
            index = partition.partition_index
            if ctx.has_partition(topic.name, index):
                known.append(index)
            else:
                errors.add(topic.name, None, index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if known:
            wanted.append((topic.name, known))
    try:
        answers = await ctx.groups.delete_offsets(request.group_id, wanted)
    except KafkaError as error:
        return OffsetDeleteResponse(error_code=error.code, topics=[])
    for name, partitions in answers.items():
        for index, error_code in partitions:
            errors.add(name, None, index, error_code)
    return OffsetDeleteResponse(
        error_code=ErrorCode.NONE,
        topics=[
            _DeletedTopic(
                name=name,
                partitions=[
                    _DeletedTopic.OffsetDeleteResponsePartition(
                        partition_index=index, error_code=error_code
                    )
                    for index, error_code in partitions
                ],
            )
            for (name, _id), partitions in errors.topics.items()
        ],
    )
