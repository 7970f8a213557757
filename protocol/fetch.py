"""Fetch (key 1), versions 4-18: the hot response, a list of buffers that nobody joins.

v4  isolation level              v12  flexible; last fetched epoch, diverging epoch, leader
v5  log start offset             v13  topic ids for names (KIP-516)
v7  fetch sessions (KIP-227)     v15  replica state as a tag (KIP-903)
v9  leader epoch (KIP-320)       v16  endpoints of hinted leaders (KIP-951)
v10 zstd                         v17  replica directory id (KIP-853)
v11 rack id, preferred replica   v18  the replica's high watermark (KIP-1166)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from protocol.errors import MalformedFrame
from protocol.primitives import (
    NodeEndpoint,
    node_endpoints_value,
    read_count,
    read_nullable_string,
    read_string,
    read_topic_id,
    read_uvarint,
    skip_tags,
    take,
    write_count,
    write_nullable_string,
    write_tag,
    write_uvarint,
)

Buffer = bytes | bytearray | memoryview

# What a replica sends that knows no high watermark field (KIP-1166).
NO_HIGH_WATERMARK = 0x7FFFFFFFFFFFFFFF

_I32 = struct.Struct(">i")
_I64 = struct.Struct(">q")
_WAIT_AND_BYTES = struct.Struct(">iiib")
_REPLICA = struct.Struct(">iq")
_EPOCH_OFFSET = struct.Struct(">iq")
_OFFSET_EPOCH = struct.Struct(">qi")
_LEADER = struct.Struct(">ii")
_ERROR_SESSION = struct.Struct(">hi")
_PARTITION_V4 = struct.Struct(">ihqq")
_PARTITION_V5 = struct.Struct(">ihqqq")
_ABORTED = struct.Struct(">qq")
_ZERO_ID = bytes(16)
# Partition fields of the request, by the version that brought the last of them.
_REQUEST_V4 = struct.Struct(">iqi")
_REQUEST_V5 = struct.Struct(">iqqi")
_REQUEST_V9 = struct.Struct(">iiqqi")
_REQUEST_V12 = struct.Struct(">iiqiqi")


@dataclass(slots=True)
class FetchPartition:
    """What is wanted of one partition. Epochs and log_start_offset: -1 where not given."""

    index: int
    fetch_offset: int
    max_bytes: int
    current_leader_epoch: int = -1
    last_fetched_epoch: int = -1
    log_start_offset: int = -1
    replica_directory_id: UUID | None = None
    high_watermark: int = NO_HIGH_WATERMARK


@dataclass(slots=True)
class FetchTopic:
    """name up to version 12, topic_id from 13 (None for the zero id)."""

    name: str | None
    topic_id: UUID | None
    partitions: list[FetchPartition]


@dataclass(slots=True)
class ForgottenTopic:
    """Partitions that leave the fetch session."""

    name: str | None
    topic_id: UUID | None
    partitions: list[int]


@dataclass(slots=True)
class FetchRequest:
    """session_id 0 and session_epoch -1 (the defaults before version 7): no session."""

    max_wait_ms: int
    min_bytes: int
    max_bytes: int
    isolation_level: int
    topics: list[FetchTopic]
    session_id: int = 0
    session_epoch: int = -1
    forgotten: list[ForgottenTopic] = field(default_factory=list)
    rack_id: str = ""
    replica_id: int = -1
    replica_epoch: int = -1
    cluster_id: str | None = None


@dataclass(slots=True)
class FetchPartitionResponse:
    """The answer for one partition.

    records: whole batches in offset order, not copied; leave them unchanged until they are sent.
    aborted_transactions: (producer id, first offset); None is written as null.
    diverging_epoch: (epoch, end offset). current_leader: (leader id, leader epoch).
    snapshot_id: (end offset, epoch).
    """

    index: int
    error_code: int = 0
    high_watermark: int = -1
    last_stable_offset: int = -1
    log_start_offset: int = -1
    records: Sequence[memoryview] = ()
    aborted_transactions: Sequence[tuple[int, int]] | None = None
    preferred_read_replica: int = -1
    diverging_epoch: tuple[int, int] | None = None
    current_leader: tuple[int, int] | None = None
    snapshot_id: tuple[int, int] | None = None


@dataclass(slots=True)
class FetchTopicResponse:
    """name is written up to version 12, topic_id from 13."""

    name: str | None
    topic_id: UUID | None
    partitions: list[FetchPartitionResponse] = field(default_factory=list)


def decode_fetch(body: memoryview, version: int) -> FetchRequest:
    """Read a request body. Raises MalformedFrame."""
    try:
        return _decode(body, version)
    except (struct.error, IndexError):
        raise MalformedFrame(f"Fetch v{version}: cut short after {len(body)} bytes") from None


def _decode(body: memoryview, version: int) -> FetchRequest:
    flexible = version >= 12
    position = 0
    replica_id = -1
    if version <= 14:
        (replica_id,) = _I32.unpack_from(body, 0)
        position = 4
    max_wait_ms, min_bytes, max_bytes, isolation = _WAIT_AND_BYTES.unpack_from(body, position)
    position += _WAIT_AND_BYTES.size
    session_id, session_epoch = 0, -1
    if version >= 7:
        session_id, session_epoch = _LEADER.unpack_from(body, position)
        position += 8
    request = FetchRequest(
        max_wait_ms, min_bytes, max_bytes, isolation, [], session_id, session_epoch
    )
    request.replica_id = replica_id
    count, position = read_count(body, position, flexible)
    for _ in range(count):
        name, topic_id, position = _read_topic(body, position, version)
        partitions, position = _read_partitions(body, position, version)
        request.topics.append(FetchTopic(name, topic_id, partitions))
    if version >= 7:
        position = _read_forgotten(request, body, position, version)
    if version >= 11:
        request.rack_id, position = read_string(body, position, flexible)
    if flexible:
        _read_request_tags(request, body, position, version)
    return request


def _read_topic(
    body: memoryview, position: int, version: int
) -> tuple[str | None, UUID | None, int]:
    if version >= 13:
        topic_id, position = read_topic_id(body, position)
        return None, topic_id, position
    name, position = read_string(body, position, version >= 12)
    return name, None, position


def _read_partitions(
    body: memoryview, position: int, version: int
) -> tuple[list[FetchPartition], int]:
    flexible = version >= 12
    count, position = read_count(body, position, flexible)
    partitions: list[FetchPartition] = []
    for _ in range(count):
        leader_epoch = fetched_epoch = log_start = -1
        if version >= 12:
            index, leader_epoch, offset, fetched_epoch, log_start, max_bytes = (
                _REQUEST_V12.unpack_from(body, position)
            )
            position += _REQUEST_V12.size
        elif version >= 9:
            index, leader_epoch, offset, log_start, max_bytes = _REQUEST_V9.unpack_from(
                body, position
            )
            position += _REQUEST_V9.size
        elif version >= 5:
            index, offset, log_start, max_bytes = _REQUEST_V5.unpack_from(body, position)
            position += _REQUEST_V5.size
        else:
            index, offset, max_bytes = _REQUEST_V4.unpack_from(body, position)
            position += _REQUEST_V4.size
        partition = FetchPartition(index, offset, max_bytes, leader_epoch, fetched_epoch, log_start)
        if flexible:
            if body[position]:
                position = _read_partition_tags(partition, body, position, version)
            else:
                position += 1
        partitions.append(partition)
    if flexible:
        position = skip_tags(body, position)
    return partitions, position


def _read_partition_tags(
    partition: FetchPartition, body: memoryview, position: int, version: int
) -> int:
    if version < 17:
        return skip_tags(body, position)
    count, position = read_uvarint(body, position)
    for _ in range(count):
        tag, position = read_uvarint(body, position)
        length, position = read_uvarint(body, position)
        value, position = take(body, position, length)
        if tag == 0:
            partition.replica_directory_id, used = read_topic_id(value, 0)
        elif tag == 1 and version >= 18:
            (partition.high_watermark,) = _I64.unpack_from(value, 0)
            used = 8
        else:
            continue
        _check_tag(tag, used, length)
    return position


def _read_forgotten(request: FetchRequest, body: memoryview, position: int, version: int) -> int:
    flexible = version >= 12
    count, position = read_count(body, position, flexible)
    for _ in range(count):
        name, topic_id, position = _read_topic(body, position, version)
        number, position = read_count(body, position, flexible)
        view, position = take(body, position, 4 * number)
        partitions = list(struct.unpack(f">{number}i", view))
        if flexible:
            position = skip_tags(body, position)
        request.forgotten.append(ForgottenTopic(name, topic_id, partitions))
    return position


def _read_request_tags(
    request: FetchRequest, body: memoryview, position: int, version: int
) -> None:
    count, position = read_uvarint(body, position)
    for _ in range(count):
        tag, position = read_uvarint(body, position)
        length, position = read_uvarint(body, position)
        value, position = take(body, position, length)
        if tag == 0:
            request.cluster_id, used = read_nullable_string(value, 0, True)
        elif tag == 1 and version >= 15:
            request.replica_id, request.replica_epoch = _REPLICA.unpack_from(value, 0)
            used = skip_tags(value, _REPLICA.size)
        else:
            continue
        _check_tag(tag, used, length)


def _check_tag(tag: int, used: int, length: int) -> None:
    if used != length:
        raise MalformedFrame(f"tag {tag} has {length} bytes, its value {used}")


def encode_fetch_response(
    version: int,
    topics: Sequence[FetchTopicResponse],
    *,
    throttle_time_ms: int = 0,
    error_code: int = 0,
    session_id: int = 0,
    node_endpoints: Sequence[NodeEndpoint] = (),
) -> list[Buffer]:
    """The body of a response: what lies between the records, and the records themselves.

    The record buffers in the list are the very objects that were given; an empty record set is
    written as empty bytes, never as null, which some clients do not survive.
    node_endpoints is written from version 16 on, where not empty.
    """
    flexible = version >= 12
    buffers: list[Buffer] = []
    out = bytearray(_I32.pack(throttle_time_ms))
    if version >= 7:
        out += _ERROR_SESSION.pack(error_code, session_id)
    write_count(out, len(topics), flexible)
    for topic in topics:
        if version >= 13:
            out += _ZERO_ID if topic.topic_id is None else topic.topic_id.bytes
        else:
            write_nullable_string(out, topic.name or "", flexible)
        write_count(out, len(topic.partitions), flexible)
        for partition in topic.partitions:
            size = sum(map(len, partition.records))
            _encode_partition(out, partition, size, version)
            if size:
                buffers.append(out)
                buffers.extend(partition.records)
                out = bytearray()
            if flexible:
                _encode_partition_tags(out, partition)
        if flexible:
            out.append(0)
    if flexible:
        if version >= 16 and node_endpoints:
            out.append(1)
            write_tag(out, 0, node_endpoints_value(node_endpoints))
        else:
            out.append(0)
    buffers.append(out)
    return buffers


def _encode_partition(
    out: bytearray, partition: FetchPartitionResponse, records_size: int, version: int
) -> None:
    """Everything of a partition up to its records, their length included."""
    if version >= 5:
        out += _PARTITION_V5.pack(
            partition.index,
            partition.error_code,
            partition.high_watermark,
            partition.last_stable_offset,
            partition.log_start_offset,
        )
    else:
        out += _PARTITION_V4.pack(
            partition.index,
            partition.error_code,
            partition.high_watermark,
            partition.last_stable_offset,
        )
    flexible = version >= 12
    aborted = partition.aborted_transactions
    write_count(out, -1 if aborted is None else len(aborted), flexible)
    for producer_id, first_offset in aborted or ():
        out += _ABORTED.pack(producer_id, first_offset)
        if flexible:
            out.append(0)
    if version >= 11:
        out += _I32.pack(partition.preferred_read_replica)
    if flexible:
        write_uvarint(out, records_size + 1)
    else:
        out += _I32.pack(records_size)


def _encode_partition_tags(out: bytearray, partition: FetchPartitionResponse) -> None:
    if (
        partition.diverging_epoch is None
        and partition.current_leader is None
        and partition.snapshot_id is None
    ):
        out.append(0)
        return
    tags: list[tuple[int, bytes]] = []
    if partition.diverging_epoch is not None:
        tags.append((0, _EPOCH_OFFSET.pack(*partition.diverging_epoch) + b"\x00"))
    if partition.current_leader is not None:
        tags.append((1, _LEADER.pack(*partition.current_leader) + b"\x00"))
    if partition.snapshot_id is not None:
        tags.append((2, _OFFSET_EPOCH.pack(*partition.snapshot_id) + b"\x00"))
    write_uvarint(out, len(tags))
    for tag, value in tags:
        write_tag(out, tag, value)
