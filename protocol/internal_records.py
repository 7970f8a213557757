"""Kafka's own record formats of `__consumer_offsets`, `__transaction_state`, and the blobs in them.

Every key and value begins with an int16. In a key of `__consumer_offsets` it tells the kind:

    0, 1  offset commit: group, topic (strings), partition int32
    2     group metadata: group (string)

In a value it is the version; a null value is a tombstone. Values:

    offset commit   0-4: offset int64, leader epoch int32 (3+), metadata string,
                    commit timestamp int64, expire timestamp int64 (1), tag 0 topic id (4+)
    group metadata  0-4: protocol type string, generation int32, protocol, leader (nullable
                    strings), state timestamp int64 (2+), members: member id, instance id
                    (nullable, 3+), client id, client host, rebalance timeout int32 (1+), session
                    timeout int32, subscription, assignment (bytes)

From version 4 on both are flexible. Keys never are.
Source: the schemas in kafka-group-coordinator and kafka-transaction-coordinator 4.3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from protocol.consumer_protocol import (
    ConsumerAssignment,
    ConsumerSubscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from protocol.cursor import Reader, Writer
from protocol.errors import MalformedFrame
from protocol.transaction_log import (
    TransactionLogValue,
    decode_transaction_key,
    decode_transaction_value,
    encode_transaction_key,
    encode_transaction_value,
)

__all__ = [
    "ConsumerAssignment",
    "ConsumerSubscription",
    "GroupMember",
    "GroupMetadataKey",
    "GroupMetadataValue",
    "OffsetCommitKey",
    "OffsetCommitValue",
    "TransactionLogValue",
    "decode_assignment",
    "decode_group_metadata_value",
    "decode_key",
    "decode_offset_commit_value",
    "decode_subscription",
    "decode_transaction_key",
    "decode_transaction_value",
    "encode_assignment",
    "encode_group_metadata_key",
    "encode_group_metadata_value",
    "encode_offset_commit_key",
    "encode_offset_commit_value",
    "encode_subscription",
    "encode_transaction_key",
    "encode_transaction_value",
]

_OFFSET_KEYS = (0, 1)
_GROUP_KEY = 2
_FLEXIBLE_FROM = 4
_NEWEST_VALUE = 4


@dataclass(frozen=True, slots=True)
class OffsetCommitKey:
    group: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class GroupMetadataKey:
    group: str


@dataclass(slots=True)
class OffsetCommitValue:
    """A committed offset. leader_epoch, expire_timestamp: -1 where not known; times in ms."""

    offset: int
    metadata: str
    commit_timestamp: int
    leader_epoch: int = -1
    expire_timestamp: int = -1
    topic_id: UUID | None = None


@dataclass(slots=True)
class GroupMember:
    """A member of a classic group. Timeouts in ms; instance id for static members."""

    member_id: str
    client_id: str
    client_host: str
    rebalance_timeout: int
    session_timeout: int
    subscription: bytes
    assignment: bytes
    group_instance_id: str | None = None


@dataclass(slots=True)
class GroupMetadataValue:
    """A classic group after a rebalance; without members it is empty."""

    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    current_state_timestamp: int = -1
    members: Sequence[GroupMember] = field(default_factory=list)


def decode_key(data: bytes | memoryview) -> OffsetCommitKey | GroupMetadataKey | None:
    """The key of a record in `__consumer_offsets`; None for a kind that is not known here.

    Raises MalformedFrame.
    """
    reader = Reader(data)
    kind = reader.integer(2)
    if kind in _OFFSET_KEYS:
        return OffsetCommitKey(reader.string(), reader.string(), reader.integer(4))
    if kind == _GROUP_KEY:
        return GroupMetadataKey(reader.string())
    return None


def encode_offset_commit_key(key: OffsetCommitKey) -> bytes:
    writer = Writer()
    writer.integer(1, 2)
    writer.string(key.group)
    writer.string(key.topic)
    writer.integer(key.partition, 4)
    return bytes(writer.out)


def encode_group_metadata_key(key: GroupMetadataKey) -> bytes:
    writer = Writer()
    writer.integer(_GROUP_KEY, 2)
    writer.string(key.group)
    return bytes(writer.out)


def encode_offset_commit_value(value: OffsetCommitValue, version: int | None = None) -> bytes:
    """version: None writes what Kafka 4.3 writes: 1 with an expire timestamp, else 3 (or 4 when
    there is a topic id)."""
    if version is None:
        version = 1 if value.expire_timestamp >= 0 else 3 if value.topic_id is None else 4
    writer = Writer(version >= _FLEXIBLE_FROM)
    writer.integer(version, 2)
    writer.integer(value.offset, 8)
    if version >= 3:
        writer.integer(value.leader_epoch, 4)
    writer.string(value.metadata)
    writer.integer(value.commit_timestamp, 8)
    if version == 1:
        writer.integer(value.expire_timestamp, 8)
    writer.tags(*(() if value.topic_id is None else ((0, value.topic_id.bytes),)))
    return bytes(writer.out)


def decode_offset_commit_value(data: bytes | memoryview) -> OffsetCommitValue:
    """Raises MalformedFrame: cut short, or a version that is not known here."""
    reader = Reader(data)
    version = _value_version(reader, "offset commit")
    offset = reader.integer(8)
    leader_epoch = reader.integer(4) if version >= 3 else -1
    metadata = reader.string()
    commit_timestamp = reader.integer(8)
    expire_timestamp = reader.integer(8) if version == 1 else -1
    topic_id: UUID | None = None
    for tag, raw in reader.tags():
        if tag == 0 and len(raw) == 16 and any(raw):
            topic_id = UUID(bytes=raw)
    return OffsetCommitValue(
        offset, metadata, commit_timestamp, leader_epoch, expire_timestamp, topic_id
    )


def encode_group_metadata_value(value: GroupMetadataValue, version: int = 3) -> bytes:
    """version: 3 is what Kafka 4.3 writes."""
    writer = Writer(version >= _FLEXIBLE_FROM)
    writer.integer(version, 2)
    writer.string(value.protocol_type)
    writer.integer(value.generation, 4)
    writer.string(value.protocol)
    writer.string(value.leader)
    if version >= 2:
        writer.integer(value.current_state_timestamp, 8)
    writer.count(len(value.members))
    for member in value.members:
        writer.string(member.member_id)
        if version >= 3:
            writer.string(member.group_instance_id)
        writer.string(member.client_id)
        writer.string(member.client_host)
        if version >= 1:
            writer.integer(member.rebalance_timeout, 4)
        writer.integer(member.session_timeout, 4)
        writer.blob(member.subscription)
        writer.blob(member.assignment)
        writer.tags()
    writer.tags()
    return bytes(writer.out)


def decode_group_metadata_value(data: bytes | memoryview) -> GroupMetadataValue:
    """In version 0 the session timeout counts as rebalance timeout too, as in Kafka.

    Raises MalformedFrame: cut short, or a version that is not known here.
    """
    reader = Reader(data)
    version = _value_version(reader, "group metadata")
    value = GroupMetadataValue(
        reader.string(), reader.integer(4), reader.nullable_string(), reader.nullable_string()
    )
    if version >= 2:
        value.current_state_timestamp = reader.integer(8)
    value.members = [_read_member(reader, version) for _ in range(reader.count())]
    reader.skip_tags()
    return value


def _read_member(reader: Reader, version: int) -> GroupMember:
    member_id = reader.string()
    instance_id = reader.nullable_string() if version >= 3 else None
    client_id = reader.string()
    client_host = reader.string()
    rebalance_timeout = reader.integer(4) if version >= 1 else -1
    session_timeout = reader.integer(4)
    subscription = reader.blob()
    assignment = reader.blob()
    reader.skip_tags()
    return GroupMember(
        member_id,
        client_id,
        client_host,
        session_timeout if version == 0 else rebalance_timeout,
        session_timeout,
        subscription,
        assignment,
        instance_id,
    )


def _value_version(reader: Reader, what: str) -> int:
    version = reader.integer(2)
    if not 0 <= version <= _NEWEST_VALUE:
        raise MalformedFrame(f"{what} value of version {version}")
    reader.flexible = version >= _FLEXIBLE_FROM
    return version
