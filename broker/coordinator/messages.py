"""What goes into the group coordinator and comes out, free of API versions."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """protocols: name and metadata, in order of preference.

    needs_member_id: who comes without a member id is sent back with one first (KIP-394).
    may_skip_assignment: the client understands that it need not assign (KIP-814).
    """

    group_id: str
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    reason: str | None = None
    needs_member_id: bool = True
    may_skip_assignment: bool = True


@dataclass(frozen=True, slots=True)
class JoinResult:
    """members: member id, instance id and metadata; empty for all but the leader."""

    error: ErrorCode = ErrorCode.NONE
    member_id: str = ""
    generation: int = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str | None = ""
    members: tuple[tuple[str, str | None, bytes], ...] = ()
    skip_assignment: bool = False


@dataclass(frozen=True, slots=True)
class SyncRequest:
    group_id: str
    generation: int
    member_id: str
    instance_id: str | None = None
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignments: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class SyncResult:
    error: ErrorCode = ErrorCode.NONE
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


@dataclass(frozen=True, slots=True)
class Leaving:
    """One member that leaves, or is removed by an operator (instance id without member id)."""

    member_id: str
    instance_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DescribedMember:
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True)
class DescribedGroup:
    group_id: str
    state: str
    protocol_type: str = ""
    protocol: str = ""
    members: tuple[DescribedMember, ...] = ()
    error: ErrorCode = ErrorCode.NONE
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class ListedGroup:
    group_id: str
    protocol_type: str
    state: str


@dataclass(frozen=True, slots=True)
class CommitPartition:
    index: int
    offset: int
    leader_epoch: int
    metadata: str | None


@dataclass(frozen=True, slots=True)
class CommitTopic:
    """topic_id: of the topic as the broker knows it now; None when it is not known."""

    name: str
    topic_id: uuid.UUID | None
    partitions: tuple[CommitPartition, ...]


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """generation: -1 from who is no member. retention_ms: -1 leaves it to the broker.

    knows_missing_group: the client understands GROUP_ID_NOT_FOUND (OffsetCommit 9 and later).
    """

    group_id: str
    generation: int
    member_id: str
    instance_id: str | None
    topics: tuple[CommitTopic, ...]
    retention_ms: int = -1
    knows_missing_group: bool = True


@dataclass(frozen=True, slots=True)
class FetchedOffset:
    index: int
    offset: int = -1
    leader_epoch: int = -1
    metadata: str = ""
