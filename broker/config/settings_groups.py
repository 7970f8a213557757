"""Settings of consumer groups, committed offsets and idempotent producers."""

from __future__ import annotations

from .setting import Setting
from .types import Between, ConfigType

GROUPS: tuple[Setting, ...] = (
    Setting(
        "group.min.session.timeout.ms",
        ConfigType.INT,
        6_000,
        "Shortest session timeout that a group member may ask for.",
        Between(1),
        "ms",
    ),
    Setting(
        "group.max.session.timeout.ms",
        ConfigType.INT,
        1_800_000,
        "Longest session timeout that a group member may ask for.",
        Between(1),
        "ms",
    ),
    Setting(
        "group.initial.rebalance.delay.ms",
        ConfigType.INT,
        3_000,
        "An empty group waits this long for further members before its first generation.",
        Between(0),
        "ms",
    ),
    Setting(
        "group.max.size",
        ConfigType.INT,
        2**31 - 1,
        "Members that one group may have.",
        Between(1),
        "members",
    ),
    Setting(
        "offsets.retention.minutes",
        ConfigType.INT,
        10_080,
        "Committed offsets are kept this long after their group became empty.",
        Between(1),
        "minutes",
    ),
    Setting(
        "offsets.retention.check.interval.ms",
        ConfigType.LONG,
        600_000,
        "Least time between two searches for expired offsets.",
        Between(1),
        "ms",
    ),
    Setting(
        "offset.metadata.max.bytes",
        ConfigType.INT,
        4_096,
        "Longest text that may be committed with an offset.",
        Between(0),
        "bytes",
    ),
    Setting(
        "offsets.commit.timeout.ms",
        ConfigType.INT,
        5_000,
        "How long an offset commit waits for storage before it is answered with an error that"
        " the client may retry.",
        Between(1),
        "ms",
    ),
    Setting(
        "offsets.topic.num.partitions",
        ConfigType.INT,
        50,
        "Partitions of __consumer_offsets; counts when that topic is made.",
        Between(1),
        "partitions",
    ),
    Setting(
        "offsets.topic.segment.bytes",
        ConfigType.INT,
        104_857_600,
        "segment.bytes of __consumer_offsets; counts when that topic is made.",
        Between(1),
        "bytes",
    ),
    Setting(
        "offsets.topic.replication.factor",
        ConfigType.SHORT,
        3,
        "Replication factor that __consumer_offsets is made with; the store keeps the copies.",
        Between(1),
    ),
    Setting(
        "producer.id.expiration.ms",
        ConfigType.INT,
        86_400_000,
        "What a partition remembers of an idempotent producer is dropped when it wrote nothing"
        " for this long.",
        Between(1),
        "ms",
        dynamic=True,
    ),
)
