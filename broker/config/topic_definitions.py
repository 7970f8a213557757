"""Every configuration of a topic: names, types and defaults of Apache Kafka 4.3.1.

`broker_key` names the broker's setting that counts where the topic says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .definitions import BY_KEY
from .setting import Effect
from .types import Between, ConfigType, OneOf, ThrottledReplicas, Validator, Value, parse

_REPLACED = Effect.STORE_TAKES_ITS_PLACE
_TIERED = Effect.TIERED_STORAGE_ONLY
_COMPACTED = Effect.COMPACTED_TOPICS_ONLY


@dataclass(frozen=True)
class TopicSetting:
    """One row. validator None: the broker setting's, where the topic's may not differ."""

    key: str
    broker_key: str | None
    meaning: str
    effect: Effect = Effect.ACTIVE
    type: ConfigType = ConfigType.UNKNOWN
    default: Value = None
    validator: Validator | None = None

    def parse(self, text: str) -> Value:
        """Raises InvalidValue."""
        return parse(self.key, self.type, text, self.validator)


def _row(
    key: str,
    broker_key: str,
    meaning: str,
    effect: Effect = Effect.ACTIVE,
    *,
    default: Value = None,
    validator: Validator | None = None,
) -> TopicSetting:
    """A row that takes type and, unless given, default and validator from the broker's."""
    twin = BY_KEY[broker_key]
    return TopicSetting(
        key,
        broker_key,
        meaning,
        effect,
        twin.type,
        twin.default if default is None else default,
        validator or twin.validator,
    )


TOPIC_SETTINGS: tuple[TopicSetting, ...] = (
    _row(
        "cleanup.policy",
        "log.cleanup.policy",
        "What happens to old records: delete drops them by age and size. compact is refused on"
        " ordinary topics; the broker's own topics use it. Empty keeps everything.",
        validator=OneOf(("compact", "delete")),
    ),
    _row(
        "compression.type",
        "compression.type",
        "Codec in which batches are kept; producer keeps the one they came with, any other"
        " recompresses on arrival.",
    ),
    _row("compression.gzip.level", "compression.gzip.level", "Level when recompressing to gzip."),
    _row("compression.lz4.level", "compression.lz4.level", "Level when recompressing to lz4."),
    _row("compression.zstd.level", "compression.zstd.level", "Level when recompressing to zstd."),
    _row(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        "How long a tombstone outlives its compaction, in milliseconds.",
        _COMPACTED,
    ),
    _row(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        "Kept and shown. Objects are deleted in rounds, when nothing refers to them, at no age.",
        _REPLACED,
    ),
    _row(
        "flush.messages",
        "log.flush.interval.messages",
        "Kept and shown. Every acknowledged record is in the store already.",
        _REPLACED,
    ),
    _row(
        "flush.ms",
        "log.flush.interval.ms",
        "Kept and shown. Every acknowledged record is in the store already.",
        _REPLACED,
        default=2**63 - 1,
        validator=Between(0),
    ),
    TopicSetting(
        "follower.replication.throttled.replicas",
        None,
        "Kept and shown. There is no replication between brokers to slow down.",
        _REPLACED,
        ConfigType.LIST,
        (),
        ThrottledReplicas(),
    ),
    _row(
        "index.interval.bytes",
        "log.index.interval.bytes",
        "Kept and shown. The index of an object lists its blocks.",
        _REPLACED,
    ),
    TopicSetting(
        "leader.replication.throttled.replicas",
        None,
        "Kept and shown. There is no replication between brokers to slow down.",
        _REPLACED,
        ConfigType.LIST,
        (),
        ThrottledReplicas(),
    ),
    _row(
        "local.retention.bytes",
        "log.local.retention.bytes",
        "Kept and shown; means nothing without tiered storage, as in Kafka.",
        _TIERED,
    ),
    _row(
        "local.retention.ms",
        "log.local.retention.ms",
        "Kept and shown; means nothing without tiered storage, as in Kafka.",
        _TIERED,
    ),
    _row(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        "A record is compacted at the latest after this many milliseconds.",
        _COMPACTED,
    ),
    _row(
        "max.message.bytes",
        "message.max.bytes",
        "Largest batch that is accepted, in bytes, as sent and as kept (after recompression).",
    ),
    _row(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "How far ahead of the broker's clock a record's own timestamp may be, in milliseconds.",
    ),
    _row(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        "How far behind the broker's clock a record's own timestamp may be, in milliseconds.",
    ),
    _row(
        "message.timestamp.type",
        "log.message.timestamp.type",
        "CreateTime keeps the producer's timestamps, LogAppendTime puts the broker's clock there.",
    ),
    _row(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        "Compaction starts when this part of the log is not compacted yet.",
        _COMPACTED,
    ),
    _row(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        "A record stays uncompacted for at least this many milliseconds.",
        _COMPACTED,
    ),
    _row(
        "min.insync.replicas",
        "min.insync.replicas",
        "Kept and shown, and counts as met: the store keeps the copies of every acknowledged"
        " record.",
        _REPLACED,
    ),
    _row(
        "preallocate", "log.preallocate", "Kept and shown. There are no segment files.", _REPLACED
    ),
    TopicSetting(
        "remote.log.copy.disable",
        None,
        "Kept and shown; means nothing without tiered storage, as in Kafka.",
        _TIERED,
        ConfigType.BOOLEAN,
        False,
    ),
    TopicSetting(
        "remote.log.delete.on.disable",
        None,
        "Kept and shown; means nothing without tiered storage, as in Kafka.",
        _TIERED,
        ConfigType.BOOLEAN,
        False,
    ),
    TopicSetting(
        "remote.storage.enable",
        None,
        "Only false: all records are in the object store already.",
        Effect.ACTIVE,
        ConfigType.BOOLEAN,
        False,
    ),
    _row(
        "retention.bytes",
        "log.retention.bytes",
        "Bytes that a partition keeps at least, before the oldest go, block by block of about a"
        " mebibyte; -1 for no bound.",
    ),
    _row(
        "retention.ms",
        "log.retention.ms",
        "Milliseconds that a record is kept; -1 for ever. What is older goes at the next look"
        " (log.retention.check.interval.ms; without traffic, every ten minutes at most), together"
        " with what lies in the same block of about a mebibyte: see segment.ms.",
        default=604_800_000,
        validator=Between(-1),
    ),
    _row(
        "segment.bytes",
        "log.segment.bytes",
        "There are no segment files. Where retention goes by single batches (see segment.ms), it"
        " drops them in runs of at most so many bytes.",
    ),
    _row(
        "segment.index.bytes",
        "log.index.size.max.bytes",
        "Kept and shown. The index of an object has the size it needs.",
        _REPLACED,
    ),
    _row(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        "Kept and shown. No segment is rolled, so none are rolled at once.",
        _REPLACED,
        default=0,
        validator=Between(0),
    ),
    _row(
        "segment.ms",
        "log.roll.ms",
        "There are no segment files. Retention drops blocks of about a mebibyte when all in them"
        " is too old, and where a block may span more than this many milliseconds, runs of its"
        " batches that span at most as many: a record stays no longer than retention.ms and this"
        " together. As in Kafka nothing is exempt for being the newest.",
        default=604_800_000,
        validator=Between(1),
    ),
    _row(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        "Kept and shown. Any broker can lead without losing records, so no election is unclean.",
        _REPLACED,
    ),
)
BY_TOPIC_KEY: Mapping[str, TopicSetting] = MappingProxyType({r.key: r for r in TOPIC_SETTINGS})
