"""Produce (key 0), versions 0-13: the hot request, whose record sets stay slices of the frame.

    v3  transactional id             v9   flexible
    v7  zstd                         v10  leader hints in the response (KIP-951)
    v8  record errors (KIP-467)      v13  topic ids for names (KIP-516)

Response: v1 throttle time, v2 log append time, v5 log start offset.
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
    read_nullable_bytes,
    read_nullable_string,
    read_string,
    read_topic_id,
    skip_tags,
    write_count,
    write_nullable_string,
    write_tag,
)

_ACKS_TIMEOUT = struct.Struct(">hi")
_I32 = struct.Struct(">i")
_BASE = struct.Struct(">ihq")
_I64 = struct.Struct(">q")
_LEADER = struct.Struct(">iib")
_ZERO_ID = bytes(16)


@dataclass(slots=True)
class ProducePartition:
    """records: a writable slice of the request's frame, or None for null."""

    index: int
    records: memoryview | None


@dataclass(slots=True)
class ProduceTopic:
    """name up to version 12, topic_id from 13 (None for the zero id)."""

    name: str | None
    topic_id: UUID | None
    partitions: list[ProducePartition]


@dataclass(slots=True)
class ProduceRequest:
    transactional_id: str | None
    acks: int
    timeout_ms: int
    topics: list[ProduceTopic]


@dataclass(slots=True)
class ProducePartitionResponse:
    """The answer for one partition.

    base_offset, log_append_time_ms, log_start_offset: -1 where there is none.
    record_errors: (index in the batch, message). current_leader: (leader id, leader epoch).
    """

    index: int
    error_code: int = 0
    base_offset: int = -1
    log_append_time_ms: int = -1
    log_start_offset: int = -1
    record_errors: Sequence[tuple[int, str | None]] = ()
    error_message: str | None = None
    current_leader: tuple[int, int] | None = None


@dataclass(slots=True)
class ProduceTopicResponse:
    """name is written up to version 12, topic_id from 13."""

    name: str | None
    topic_id: UUID | None
    partitions: list[ProducePartitionResponse] = field(default_factory=list)


def decode_produce(body: memoryview, version: int) -> ProduceRequest:
    """Read a request body; no record is copied. Raises MalformedFrame."""
    try:
        return _decode(body, version)
    except (struct.error, IndexError):
        raise MalformedFrame(f"Produce v{version}: cut short after {len(body)} bytes") from None


def _decode(body: memoryview, version: int) -> ProduceRequest:
    flexible = version >= 9
    position = 0
    transactional_id: str | None = None
    if version >= 3:
        transactional_id, position = read_nullable_string(body, position, flexible)
    acks, timeout_ms = _ACKS_TIMEOUT.unpack_from(body, position)
    position += _ACKS_TIMEOUT.size
    topic_count, position = read_count(body, position, flexible)
    topics: list[ProduceTopic] = []
    for _ in range(topic_count):
        name: str | None = None
        topic_id: UUID | None = None
        if version >= 13:
            topic_id, position = read_topic_id(body, position)
        else:
            name, position = read_string(body, position, flexible)
        count, position = read_count(body, position, flexible)
        partitions: list[ProducePartition] = []
        if flexible:
            position = _read_flexible(body, position, count, partitions)
            position = skip_tags(body, position)
        else:
            for _ in range(count):
                (index,) = _I32.unpack_from(body, position)
                records, position = read_nullable_bytes(body, position + 4, False)
                partitions.append(ProducePartition(index, records))
        topics.append(ProduceTopic(name, topic_id, partitions))
    if flexible:
        position = skip_tags(body, position)
    return ProduceRequest(transactional_id, acks, timeout_ms, topics)


def _read_flexible(
    body: memoryview, position: int, count: int, partitions: list[ProducePartition]
) -> int:
    """Append `count` partitions; gives the next position.

    Spelled out without calls for each field: this loop is most of a produce request's cost.
    """
    end = len(body)
    for _ in range(count):
        (index,) = _I32.unpack_from(body, position)
        position += 4
        size = body[position]
        position += 1
        if size >= 0x80:
            size &= 0x7F
            shift = 7
            while True:
                byte = body[position]
                position += 1
                size |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > 28:
                    raise MalformedFrame("a varint has more than 5 bytes")
        records: memoryview | None = None
        if size:
            start = position
            position += size - 1
            if position > end:
                raise MalformedFrame(f"{size - 1} bytes of records announced, too few are left")
            records = body[start:position]
        if body[position]:
            position = skip_tags(body, position)
        else:
            position += 1
        partitions.append(ProducePartition(index, records))
    return position


def encode_produce_response(
    version: int,
    topics: Sequence[ProduceTopicResponse],
    throttle_time_ms: int = 0,
    node_endpoints: Sequence[NodeEndpoint] = (),
) -> bytes:
    """The body of a response. node_endpoints is written from version 10 on, where not empty."""
    flexible = version >= 9
    out = bytearray()
    write_count(out, len(topics), flexible)
    for topic in topics:
        if version >= 13:
            out += _ZERO_ID if topic.topic_id is None else topic.topic_id.bytes
        else:
            write_nullable_string(out, topic.name or "", flexible)
        write_count(out, len(topic.partitions), flexible)
        for partition in topic.partitions:
            _encode_partition(out, partition, version)
        if flexible:
            out.append(0)
    if version >= 1:
        out += _I32.pack(throttle_time_ms)
    if flexible:
        if version >= 10 and node_endpoints:
            out.append(1)
            write_tag(out, 0, node_endpoints_value(node_endpoints))
        else:
            out.append(0)
    return bytes(out)


def _encode_partition(out: bytearray, partition: ProducePartitionResponse, version: int) -> None:
    out += _BASE.pack(partition.index, partition.error_code, partition.base_offset)
    if version >= 2:
        out += _I64.pack(partition.log_append_time_ms)
    if version >= 5:
        out += _I64.pack(partition.log_start_offset)
    if version >= 8:
        flexible = version >= 9
        write_count(out, len(partition.record_errors), flexible)
        for batch_index, message in partition.record_errors:
            out += _I32.pack(batch_index)
            write_nullable_string(out, message, flexible)
            if flexible:
                out.append(0)
        write_nullable_string(out, partition.error_message, flexible)
        if flexible:
            if version >= 10 and partition.current_leader is not None:
                leader_id, leader_epoch = partition.current_leader
                out.append(1)
                write_tag(out, 0, _LEADER.pack(leader_id, leader_epoch, 0))
            else:
                out.append(0)
