"""What a request to create, grow or alter a topic comes to. Pure: image in, record out.

Rules, their order and their codes are Kafka's. One difference: any replication factor above 0 is
taken, since the store keeps the copies; it is kept and told, and nothing else depends on it.
Source: ReplicationControlManager and ConfigurationControlManager, Apache Kafka 4.3.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import MetadataImage, TopicImage
from s3stream.metadata.records import (
    ConfigsAltered,
    NewPartition,
    PartitionsCreated,
    TopicCreated,
)

from .placement import Placement

NAME_LENGTH = 249
PARTITIONS_PER_REQUEST = 10_000
CONFIG_VALUE_BYTES = 32767
INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]+")

# Topic name, its configurations; raises KafkaError INVALID_CONFIG.
CheckConfigs = Callable[[str, Mapping[str, str]], None]


@dataclass(frozen=True, slots=True)
class NewTopic:
    """partitions, replication_factor: -1 asks for the default.

    assignments: (partition, node ids), instead of both numbers. configs: None as a value is
    refused, as Kafka does.
    """

    name: str
    partitions: int = -1
    replication_factor: int = -1
    assignments: Sequence[tuple[int, Sequence[int]]] = ()
    configs: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicDefaults:
    """What -1 stands for (`num.partitions`, `default.replication.factor`)."""

    partitions: int = 1
    replication_factor: int = 1


def check_name(name: str) -> None:
    """Raises KafkaError INVALID_TOPIC_EXCEPTION."""
    if not name:
        raise _bad_name("Topic name is invalid: the empty string is not allowed")
    if name in {".", ".."}:
        raise _bad_name(f"Topic name is invalid: '{name}' is not allowed")
    if len(name) > NAME_LENGTH:
        raise _bad_name(
            f"Topic name is invalid: the length of '{name}' is longer than the max allowed length "
            f"{NAME_LENGTH}"
        )
    if _LEGAL_NAME.fullmatch(name) is None:
        raise _bad_name(
            f"Topic name is invalid: '{name}' contains one or more characters other than ASCII "
            "alphanumerics, '.', '_' and '-'"
        )


def _bad_name(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, message)


def unify(name: str) -> str:
    """Two names collide when this makes them equal: metrics once could not tell them apart."""
    return name.replace(".", "_")


def check_request_size(topics: Sequence[NewTopic], defaults: TopicDefaults) -> None:
    """Raises KafkaError POLICY_VIOLATION, for the request as a whole."""
    total = 0
    for topic in topics:
        if topic.assignments:
            total += len(topic.assignments)
        else:
            total += defaults.partitions if topic.partitions == -1 else max(0, topic.partitions)
    _check_partition_total(total)


def _check_partition_total(total: int) -> None:
    if total > PARTITIONS_PER_REQUEST:
        raise KafkaError(
            ErrorCode.POLICY_VIOLATION, "Excessively large number of partitions per request."
        )


def plan_topic(
    image: MetadataImage,
    colliding: Mapping[str, Sequence[str]],
    topic: NewTopic,
    topic_id: UUID,
    defaults: TopicDefaults,
    placement: Placement,
    check_configs: CheckConfigs,
) -> TopicCreated:
    """The record that makes `topic`, given the image as planned so far. Raises KafkaError.

    colliding: existing names by `unify(name)`.
    """
    if topic.name in image.topics:
        raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{topic.name}' already exists.")
    check_name(topic.name)
    if "." in topic.name or "_" in topic.name:
        for other in colliding.get(unify(topic.name), ()):
            raise _bad_name(f"Topic '{topic.name}' collides with existing topic: {other}")
    configs = _given_configs(topic.configs)
    check_configs(topic.name, configs)
    if topic.assignments:
        leaders, factor = _assigned(image, topic)
    else:
        leaders, factor = _counted(topic, defaults, placement)
    first = image.next_stream_id
    return TopicCreated(
        name=topic.name,
        topic_id=topic_id,
        internal=topic.name in INTERNAL_TOPICS,
        replication_factor=factor,
        configs=configs,
        partitions=[NewPartition(first + i, leader) for i, leader in enumerate(leaders)],
    )


def _given_configs(configs: Mapping[str, str | None]) -> dict[str, str]:
    nulls = [key for key, value in configs.items() if value is None]
    if nulls:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"Null value not supported for topic configs: {','.join(nulls)}",
        )
    given = {key: value for key, value in configs.items() if value is not None}
    _check_value_sizes(given)
    return given


def _check_value_sizes(configs: Mapping[str, str | None]) -> None:
    for value in configs.values():
        if value is not None and len(value) > CONFIG_VALUE_BYTES:
            raise KafkaError(
                ErrorCode.INVALID_CONFIG,
                "The configuration value cannot be added because it exceeds the maximum value "
                f"size of {CONFIG_VALUE_BYTES} bytes.",
            )


def _counted(
    topic: NewTopic, defaults: TopicDefaults, placement: Placement
) -> tuple[list[int], int]:
    if topic.replication_factor < -1 or topic.replication_factor == 0:
        raise KafkaError(
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        )
    if topic.partitions < -1 or topic.partitions == 0:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            "Number of partitions was set to an invalid non-positive value.",
        )
    count = defaults.partitions if topic.partitions == -1 else topic.partitions
    factor = topic.replication_factor
    if factor == -1:
        factor = defaults.replication_factor
    return placement.leaders(count), factor


def _assigned(image: MetadataImage, topic: NewTopic) -> tuple[list[int], int]:
    if topic.replication_factor != -1:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "A manual partition assignment was specified, but replication factor was not set to "
            "-1.",
        )
    if topic.partitions != -1:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        )
    by_index: dict[int, int] = {}
    factor: int | None = None
    for index, nodes in topic.assignments:
        if index in by_index:
            raise _bad_assignment(
                f"Found multiple manual partition assignments for partition {index}"
            )
        factor = check_assignment(image, nodes, factor)
        by_index[index] = first_live(image, index, nodes)
    leaders: list[int] = []
    for index in range(len(by_index)):
        if index not in by_index:
            raise _bad_assignment("partitions should be a consecutive 0-based integer sequence")
        leaders.append(by_index[index])
    assert factor is not None
    return leaders, factor


def check_assignment(image: MetadataImage, nodes: Sequence[int], factor: int | None) -> int:
    """The number of replicas; raises KafkaError."""
    if not nodes:
        raise _bad_assignment("The manual partition assignment includes an empty replica list.")
    previous: int | None = None
    for node in sorted(nodes):
        if node not in image.brokers:
            raise _bad_assignment(
                f"The manual partition assignment includes broker {node}, but no such broker is "
                "registered."
            )
        if node == previous:
            raise _bad_assignment(
                f"The manual partition assignment includes the broker {node} more than once."
            )
        previous = node
    if factor is not None and factor != len(nodes):
        raise _bad_assignment(
            f"The manual partition assignment includes a partition with {len(nodes)} replica(s), "
            "but this is not consistent with previous partitions, which have "
            f"{factor} replica(s)."
        )
    return len(nodes)


def first_live(image: MetadataImage, index: int, nodes: Sequence[int]) -> int:
    """The incarnation that leads: the first of the nodes that is neither fenced nor about to leave.

    nodes: checked by `check_assignment`. Raises KafkaError.
    """
    for node in nodes:
        broker = image.brokers[node]
        if not broker.fenced and broker.incarnation not in image.draining:
            return broker.incarnation
    raise _bad_assignment(
        f"All brokers specified in the manual partition assignment for partition {index} are "
        "fenced or in controlled shutdown."
    )


def _bad_assignment(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, message)


def plan_partitions(
    image: MetadataImage,
    name: str,
    total: int,
    assignments: Sequence[Sequence[int]] | None,
    placement: Placement,
) -> PartitionsCreated:
    """The record that grows a topic to `total` partitions. Raises KafkaError.

    assignments: node ids of each new partition, in order.
    """
    topic = image.topics.get(name)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, detail=f"no topic {name}")
    there = len(topic.partitions)
    if total == there:
        raise KafkaError(ErrorCode.INVALID_PARTITIONS, f"Topic already has {there} partition(s).")
    if total < there:
        raise KafkaError(
            ErrorCode.INVALID_PARTITIONS,
            f"The topic {name} currently has {there} partition(s); {total} would not be an "
            "increase.",
        )
    added = total - there
    if assignments is not None and len(assignments) != added:
        raise _bad_assignment(
            f"Attempted to add {added} additional partition(s), but only {len(assignments)} "
            "assignment(s) were specified."
        )
    _check_partition_total(added)
    if assignments is None:
        leaders = placement.leaders(added)
    else:
        leaders = []
        factor: int | None = None
        for offset, nodes in enumerate(assignments):
            factor = check_assignment(image, nodes, factor)
            leaders.append(first_live(image, there + offset, nodes))
    first = image.next_stream_id
    return PartitionsCreated(
        topic_id=topic.topic_id,
        first=there,
        partitions=[NewPartition(first + i, leader) for i, leader in enumerate(leaders)],
    )


def plan_topic_configs(
    image: MetadataImage,
    name: str,
    changes: Mapping[str, str | None],
    check_configs: CheckConfigs,
) -> ConfigsAltered:
    """The record that sets or (None) removes keys of a topic. Raises KafkaError."""
    topic = image.topics.get(name)
    if topic is None:
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist."
        )
    _check_value_sizes(changes)
    check_configs(topic.name, after_changes(topic.configs, changes))
    return ConfigsAltered("topic", name, dict(changes), topic.topic_id)


def after_changes(configs: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    after = dict(configs)
    for key, value in changes.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    return after


def collisions(image: MetadataImage) -> dict[str, list[str]]:
    """Names with `.` or `_` in them, by what they are unified to."""
    found: dict[str, list[str]] = {}
    for name in image.topics:
        if "." in name or "_" in name:
            found.setdefault(unify(name), []).append(name)
    return found


def topic_of(image: MetadataImage, topic_id: UUID) -> TopicImage:
    """Raises KafkaError UNKNOWN_TOPIC_ID."""
    topic = image.topic_by_id(topic_id)
    if topic is None:
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID, detail=f"no topic {topic_id}")
    return topic
