"""Settings of topics and their logs: what a topic takes where it says nothing itself."""

from __future__ import annotations

from .setting import NOT_KAFKAS, Effect, Setting
from .types import Between, BetweenOr, ConfigType, OneOf, Validator, Value

LONG_MAX = 2**63 - 1
COMPRESSION_TYPES = ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
TIMESTAMP_TYPES = ("CreateTime", "LogAppendTime")


def _topic(
    key: str,
    type_: ConfigType,
    default: Value,
    topic_key: str,
    validator: Validator | None = None,
    unit: str = "",
    effect: Effect = Effect.ACTIVE,
    *,
    dynamic: bool = True,
) -> Setting:
    meaning = f"{topic_key} of topics that do not set it."
    return Setting(key, type_, default, meaning, validator, unit, effect, dynamic)


_REPLACED = Effect.STORE_TAKES_ITS_PLACE
_TIERED = Effect.TIERED_STORAGE_ONLY
_COMPACTED = Effect.COMPACTED_TOPICS_ONLY

LOG: tuple[Setting, ...] = (
    Setting(
        "num.partitions",
        ConfigType.INT,
        1,
        "Partitions of a topic that is made without a number.",
        Between(1),
        "partitions",
    ),
    Setting(
        "default.replication.factor",
        ConfigType.INT,
        1,
        "Replication factor of a topic that is made without one; the store keeps the copies.",
        Between(1),
    ),
    Setting(
        "auto.create.topics.enable",
        ConfigType.BOOLEAN,
        True,
        "Make a topic when a client asks for it and allows that.",
    ),
    Setting("delete.topic.enable", ConfigType.BOOLEAN, True, "Allow topics to be deleted."),
    Setting(
        "log.validate.records",
        ConfigType.BOOLEAN,
        False,
        "Look into every produced batch and refuse records that are not well-formed. Off, only"
        " batch headers and checksums are checked.",
        kafka_default=NOT_KAFKAS,
    ),
    _topic(
        "message.max.bytes", ConfigType.INT, 1_048_588, "max.message.bytes", Between(0), "bytes"
    ),
    _topic(
        "compression.type",
        ConfigType.STRING,
        "producer",
        "compression.type",
        OneOf(COMPRESSION_TYPES),
    ),
    _topic(
        "compression.gzip.level",
        ConfigType.INT,
        -1,
        "compression.gzip.level",
        BetweenOr(1, 9, -1),
    ),
    _topic("compression.lz4.level", ConfigType.INT, 9, "compression.lz4.level", Between(1, 17)),
    _topic(
        "compression.zstd.level",
        ConfigType.INT,
        3,
        "compression.zstd.level",
        Between(-131_072, 22),
    ),
    _topic(
        "log.message.timestamp.type",
        ConfigType.STRING,
        "CreateTime",
        "message.timestamp.type",
        OneOf(TIMESTAMP_TYPES),
    ),
    _topic(
        "log.message.timestamp.before.max.ms",
        ConfigType.LONG,
        LONG_MAX,
        "message.timestamp.before.max.ms",
        Between(0),
        "ms",
    ),
    _topic(
        "log.message.timestamp.after.max.ms",
        ConfigType.LONG,
        3_600_000,
        "message.timestamp.after.max.ms",
        Between(0),
        "ms",
    ),
    _topic(
        "log.cleanup.policy", ConfigType.LIST, ("delete",), "cleanup.policy", OneOf(("delete",))
    ),
    Setting(
        "log.retention.ms",
        ConfigType.LONG,
        None,
        "retention.ms of topics that do not set it; -1 keeps records for ever. Not set:"
        " log.retention.minutes, then log.retention.hours.",
        unit="ms",
        dynamic=True,
        falls_back_to=("log.retention.minutes", "log.retention.hours"),
    ),
    Setting(
        "log.retention.minutes",
        ConfigType.INT,
        None,
        "The same in minutes, where log.retention.ms is not set.",
        unit="minutes",
    ),
    Setting(
        "log.retention.hours",
        ConfigType.INT,
        168,
        "The same in hours, where neither of the two is set.",
        unit="hours",
    ),
    Setting(
        "log.retention.check.interval.ms",
        ConfigType.LONG,
        300_000,
        "Time between two looks for records that retention lets go. A broker without traffic looks"
        " every ten minutes at most.",
        Between(1),
        "ms",
    ),
    _topic("log.retention.bytes", ConfigType.LONG, -1, "retention.bytes", unit="bytes"),
    _topic(
        "log.segment.bytes",
        ConfigType.INT,
        1 << 30,
        "segment.bytes",
        Between(1_048_576),
        "bytes",
    ),
    Setting(
        "log.roll.ms",
        ConfigType.LONG,
        None,
        "segment.ms of topics that do not set it. Not set: log.roll.hours.",
        unit="ms",
        dynamic=True,
        falls_back_to=("log.roll.hours",),
    ),
    Setting(
        "log.roll.hours",
        ConfigType.INT,
        168,
        "The same in hours, where log.roll.ms is not set.",
        Between(1),
        "hours",
    ),
    _topic(
        "log.segment.delete.delay.ms",
        ConfigType.LONG,
        60_000,
        "file.delete.delay.ms",
        Between(0),
        "ms",
        _REPLACED,
    ),
    _topic(
        "log.cleaner.delete.retention.ms",
        ConfigType.LONG,
        86_400_000,
        "delete.retention.ms",
        Between(0),
        "ms",
        _COMPACTED,
    ),
    _topic(
        "log.cleaner.min.compaction.lag.ms",
        ConfigType.LONG,
        0,
        "min.compaction.lag.ms",
        Between(0),
        "ms",
        _COMPACTED,
    ),
    _topic(
        "log.cleaner.max.compaction.lag.ms",
        ConfigType.LONG,
        LONG_MAX,
        "max.compaction.lag.ms",
        Between(1),
        "ms",
        _COMPACTED,
    ),
    _topic(
        "log.cleaner.min.cleanable.ratio",
        ConfigType.DOUBLE,
        0.5,
        "min.cleanable.dirty.ratio",
        Between(0, 1),
        "",
        _COMPACTED,
    ),
    _topic(
        "min.insync.replicas", ConfigType.INT, 1, "min.insync.replicas", Between(1), "", _REPLACED
    ),
    _topic(
        "unclean.leader.election.enable",
        ConfigType.BOOLEAN,
        False,
        "unclean.leader.election.enable",
        effect=_REPLACED,
    ),
    _topic(
        "log.flush.interval.messages",
        ConfigType.LONG,
        LONG_MAX,
        "flush.messages",
        Between(1),
        "records",
        _REPLACED,
    ),
    Setting(
        "log.flush.interval.ms",
        ConfigType.LONG,
        None,
        "flush.ms of topics that do not set it. Not set: log.flush.scheduler.interval.ms.",
        unit="ms",
        effect=_REPLACED,
        dynamic=True,
        falls_back_to=("log.flush.scheduler.interval.ms",),
    ),
    _topic(
        "log.flush.scheduler.interval.ms",
        ConfigType.LONG,
        LONG_MAX,
        "flush.ms",
        unit="ms",
        effect=_REPLACED,
        dynamic=False,
    ),
    _topic("log.preallocate", ConfigType.BOOLEAN, False, "preallocate", effect=_REPLACED),
    _topic(
        "log.index.interval.bytes",
        ConfigType.INT,
        4_096,
        "index.interval.bytes",
        Between(0),
        "bytes",
        _REPLACED,
    ),
    _topic(
        "log.index.size.max.bytes",
        ConfigType.INT,
        10_485_760,
        "segment.index.bytes",
        Between(4),
        "bytes",
        _REPLACED,
    ),
    Setting(
        "log.roll.jitter.ms",
        ConfigType.LONG,
        None,
        "segment.jitter.ms of topics that do not set it. Not set: log.roll.jitter.hours.",
        unit="ms",
        effect=_REPLACED,
        dynamic=True,
        falls_back_to=("log.roll.jitter.hours",),
    ),
    _topic(
        "log.roll.jitter.hours",
        ConfigType.INT,
        0,
        "segment.jitter.ms",
        Between(0),
        "hours",
        _REPLACED,
        dynamic=False,
    ),
    _topic(
        "log.local.retention.ms",
        ConfigType.LONG,
        -2,
        "local.retention.ms",
        Between(-2),
        "ms",
        _TIERED,
    ),
    _topic(
        "log.local.retention.bytes",
        ConfigType.LONG,
        -2,
        "local.retention.bytes",
        Between(-2),
        "bytes",
        _TIERED,
    ),
)
