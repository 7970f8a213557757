"""Settings of a node as its parts want them."""

from __future__ import annotations

from broker.config import BrokerConfig
from broker.coordinator import GroupConfig
from objectstore.layers import LayeredStore
from objectstore.store import ObjectStore
from objectstore.wrappers.meter import MeterStore, RequestMeter
from objectstore.wrappers.priority import Priority
from s3stream.metadata.records import Endpoint


def by_priority(store: ObjectStore) -> tuple[dict[Priority, ObjectStore], RequestMeter]:
    """The store for each class of requests, and what counts them all.

    A store without layers is the same for all classes.
    """
    if isinstance(store, LayeredStore):
        return {one: store.at(one) for one in Priority}, store.meter
    metered = MeterStore(store, RequestMeter())
    return dict.fromkeys(Priority, metered), metered.meter


def advertised(config: BrokerConfig, ports: dict[str, int]) -> tuple[Endpoint, ...]:
    """What clients are told, with the port really bound where 0 was asked."""
    told = []
    for one in config.listeners:
        address = one.advertised or one.bind
        told.append(Endpoint(one.name, address.host, address.port or ports[one.name]))
    return tuple(told)


def group_config(config: BrokerConfig) -> GroupConfig:
    """The group coordinator's settings, by Kafka's keys."""
    return GroupConfig(
        group_min_session_timeout_ms=config.int("group.min.session.timeout.ms"),
        group_max_session_timeout_ms=config.int("group.max.session.timeout.ms"),
        group_initial_rebalance_delay_ms=config.int("group.initial.rebalance.delay.ms"),
        group_max_size=config.int("group.max.size"),
        offsets_retention_minutes=config.int("offsets.retention.minutes"),
        offsets_retention_check_interval_ms=config.int("offsets.retention.check.interval.ms"),
        offset_metadata_max_bytes=config.int("offset.metadata.max.bytes"),
        offset_commit_timeout_ms=config.int("offsets.commit.timeout.ms"),
        offsets_topic_num_partitions=config.int("offsets.topic.num.partitions"),
        offsets_topic_segment_bytes=config.int("offsets.topic.segment.bytes"),
        offsets_topic_replication_factor=config.int("offsets.topic.replication.factor"),
    )
