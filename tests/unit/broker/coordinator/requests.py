"""Short ways to write the requests of a group's member."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from protocol.messages import (
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListGroupsRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)


def subscription(*topics: str) -> bytes:
    names = b"".join(struct.pack(">h", len(t)) + t.encode() for t in topics)
    return struct.pack(">hi", 0, len(topics)) + names + struct.pack(">i", -1)


def join(
    group: str,
    member: str = "",
    *,
    instance: str | None = None,
    session_ms: int = 10_000,
    rebalance_ms: int = 10_000,
    kind: str = "consumer",
    protocols: Sequence[tuple[str, bytes]] = (("range", subscription("a")),),
) -> Any:
    return JoinGroupRequest(
        group_id=group,
        session_timeout_ms=session_ms,
        rebalance_timeout_ms=rebalance_ms,
        member_id=member,
        group_instance_id=instance,
        protocol_type=kind,
        protocols=[
            JoinGroupRequest.JoinGroupRequestProtocol(name=name, metadata=metadata)
            for name, metadata in protocols
        ],
        reason="test",
    )


def sync(
    group: str,
    member: str,
    generation: int,
    assignments: dict[str, bytes] | None = None,
    *,
    instance: str | None = None,
    kind: str | None = "consumer",
    protocol: str | None = "range",
) -> Any:
    return SyncGroupRequest(
        group_id=group,
        generation_id=generation,
        member_id=member,
        group_instance_id=instance,
        protocol_type=kind,
        protocol_name=protocol,
        assignments=[
            SyncGroupRequest.SyncGroupRequestAssignment(member_id=m, assignment=a)
            for m, a in (assignments or {}).items()
        ],
    )


def heartbeat(group: str, member: str, generation: int, instance: str | None = None) -> Any:
    return HeartbeatRequest(
        group_id=group, generation_id=generation, member_id=member, group_instance_id=instance
    )


def leave(group: str, *members: tuple[str, str | None]) -> Any:
    return LeaveGroupRequest(
        group_id=group,
        members=[
            LeaveGroupRequest.MemberIdentity(
                member_id=member, group_instance_id=instance, reason=None
            )
            for member, instance in members
        ],
    )


def commit(
    group: str,
    topics: dict[str, dict[int, int]],
    *,
    member: str = "",
    generation: int = -1,
    instance: str | None = None,
    metadata: str | None = "",
    leader_epoch: int = -1,
    retention_ms: int = -1,
) -> Any:
    return _commit(
        group, [(name, None, offsets) for name, offsets in topics.items()],
        member, generation, instance, metadata, leader_epoch, retention_ms,
    )  # fmt: skip


def commit_by_id(group: str, topics: dict[UUID, dict[int, int]]) -> Any:
    """For version 10, from who is no member."""
    given = [(None, topic_id, offsets) for topic_id, offsets in topics.items()]
    return _commit(group, given, "", -1, None, "", -1, -1)


def _commit(
    group: str,
    topics: Sequence[tuple[str | None, UUID | None, dict[int, int]]],
    member: str,
    generation: int,
    instance: str | None,
    metadata: str | None,
    leader_epoch: int,
    retention_ms: int,
) -> Any:
    topic_class = OffsetCommitRequest.OffsetCommitRequestTopic
    return OffsetCommitRequest(
        group_id=group,
        generation_id_or_member_epoch=generation,
        member_id=member,
        group_instance_id=instance,
        retention_time_ms=retention_ms,
        topics=[
            topic_class(
                name=name,
                topic_id=topic_id,
                partitions=[
                    topic_class.OffsetCommitRequestPartition(
                        partition_index=index,
                        committed_offset=offset,
                        committed_leader_epoch=leader_epoch,
                        committed_metadata=metadata,
                    )
                    for index, offset in offsets.items()
                ],
            )
            for name, topic_id, offsets in topics
        ],
    )


def fetch(group: str, topics: dict[str, list[int]] | None, *, require_stable: bool = False) -> Any:
    """For versions 8 and 9."""
    group_class = OffsetFetchRequest.OffsetFetchRequestGroup
    wanted = None
    if topics is not None:
        wanted = [
            group_class.OffsetFetchRequestTopics(name=name, partition_indexes=indexes)
            for name, indexes in topics.items()
        ]
    return OffsetFetchRequest(
        groups=[group_class(group_id=group, member_id=None, member_epoch=-1, topics=wanted)],
        require_stable=require_stable,
    )


def fetch_by_id(group: str, topics: dict[UUID, list[int]] | None) -> Any:
    """For version 10."""
    group_class = OffsetFetchRequest.OffsetFetchRequestGroup
    wanted = None
    if topics is not None:
        wanted = [
            group_class.OffsetFetchRequestTopics(topic_id=topic_id, partition_indexes=indexes)
            for topic_id, indexes in topics.items()
        ]
    return OffsetFetchRequest(
        groups=[group_class(group_id=group, member_id=None, member_epoch=-1, topics=wanted)],
        require_stable=False,
    )


def fetch_one(group: str, topics: dict[str, list[int]] | None) -> Any:
    """For versions 1 to 7."""
    topic_class = OffsetFetchRequest.OffsetFetchRequestTopic
    wanted = None
    if topics is not None:
        wanted = [topic_class(name=n, partition_indexes=i) for n, i in topics.items()]
    return OffsetFetchRequest(group_id=group, topics=wanted, require_stable=False)


def delete_offsets(group: str, topics: dict[str, list[int]]) -> Any:
    topic_class = OffsetDeleteRequest.OffsetDeleteRequestTopic
    return OffsetDeleteRequest(
        group_id=group,
        topics=[
            topic_class(
                name=name,
                partitions=[
                    topic_class.OffsetDeleteRequestPartition(partition_index=index)
                    for index in indexes
                ],
            )
            for name, indexes in topics.items()
        ],
    )


def describe(*groups: str, operations: bool = False) -> Any:
    return DescribeGroupsRequest(groups=list(groups), include_authorized_operations=operations)


def list_groups(states: Sequence[str] = (), types: Sequence[str] = ()) -> Any:
    return ListGroupsRequest(states_filter=list(states), types_filter=list(types))


def delete_groups(*groups: str) -> Any:
    return DeleteGroupsRequest(groups_names=list(groups))
