"""The embedded protocol of consumer groups: what members subscribe to and are assigned.

    subscription  version int16; topics (strings); user data (nullable bytes);
                  1+ owned partitions: topic, partitions int32; 2+ generation int32;
                  3+ rack (nullable string)
    assignment    version int16; partitions: topic, partitions int32; user data (nullable bytes)

A version from the future is read as the newest known one: it only adds fields at the end.
Source: ConsumerProtocolSubscription and ConsumerProtocolAssignment, KIP-429, KIP-792, KIP-881.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol.cursor import Reader, Writer
from protocol.errors import MalformedFrame

_NEWEST = 3

TopicPartitions = Sequence[tuple[str, Sequence[int]]]


@dataclass(slots=True)
class ConsumerSubscription:
    """topics in the client's order; owned_partitions: (topic, partitions)."""

    topics: Sequence[str]
    user_data: bytes | None = None
    owned_partitions: TopicPartitions = field(default_factory=list)
    generation_id: int = -1
    rack_id: str | None = None
    version: int = _NEWEST


@dataclass(slots=True)
class ConsumerAssignment:
    """partitions: (topic, partitions)."""

    partitions: TopicPartitions
    user_data: bytes | None = None
    version: int = _NEWEST


def decode_subscription(data: bytes | memoryview) -> ConsumerSubscription:
    """Raises MalformedFrame."""
    reader = Reader(data)
    version = _version(reader)
    topics = [reader.string() for _ in range(reader.count())]
    result = ConsumerSubscription(topics, reader.nullable_blob(), version=version)
    if version >= 1:
        result.owned_partitions = _read_partitions(reader)
    if version >= 2:
        result.generation_id = reader.integer(4)
    if version >= 3:
        result.rack_id = reader.nullable_string()
    return result


def encode_subscription(subscription: ConsumerSubscription) -> bytes:
    version = min(subscription.version, _NEWEST)
    writer = Writer()
    writer.integer(version, 2)
    writer.count(len(subscription.topics))
    for topic in subscription.topics:
        writer.string(topic)
    writer.blob(subscription.user_data)
    if version >= 1:
        _write_partitions(writer, subscription.owned_partitions)
    if version >= 2:
        writer.integer(subscription.generation_id, 4)
    if version >= 3:
        writer.string(subscription.rack_id)
    return bytes(writer.out)


def decode_assignment(data: bytes | memoryview) -> ConsumerAssignment:
    """Raises MalformedFrame."""
    reader = Reader(data)
    version = _version(reader)
    return ConsumerAssignment(_read_partitions(reader), reader.nullable_blob(), version)


def encode_assignment(assignment: ConsumerAssignment) -> bytes:
    writer = Writer()
    writer.integer(min(assignment.version, _NEWEST), 2)
    _write_partitions(writer, assignment.partitions)
    writer.blob(assignment.user_data)
    return bytes(writer.out)


def _version(reader: Reader) -> int:
    version = reader.integer(2)
    if version < 0:
        raise MalformedFrame(f"consumer protocol version {version}")
    return version


def _read_partitions(reader: Reader) -> list[tuple[str, Sequence[int]]]:
    return [
        (reader.string(), [reader.integer(4) for _ in range(reader.count())])
        for _ in range(reader.count())
    ]


def _write_partitions(writer: Writer, topics: TopicPartitions) -> None:
    writer.count(len(topics))
    for topic, partitions in topics:
        writer.string(topic)
        writer.count(len(partitions))
        for partition in partitions:
            writer.integer(partition, 4)
