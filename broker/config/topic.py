"""The configuration of one topic: its own overrides over the broker's settings over defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from protocol.errors import ErrorCode, KafkaError

from .broker_config import BrokerConfig, Synonym
from .topic_definitions import BY_TOPIC_KEY, TOPIC_SETTINGS
from .types import ConfigType, InvalidValue, Source, Value, render

INTERNAL_TOPICS = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
# Codec numbers of the record batch header.
_CODECS = {"uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
# A setting that is not set: (where to look, milliseconds in one of its units).
_FALLBACKS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "retention.ms": (("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)),
    "segment.ms": (("log.roll.hours", 3_600_000),),
    "segment.jitter.ms": (("log.roll.jitter.hours", 3_600_000),),
    "flush.ms": (("log.flush.scheduler.interval.ms", 1),),
}


@dataclass(frozen=True)
class Described:
    """One configuration as DescribeConfigs shows it. value None: not set, or not to be told."""

    name: str
    value: str | None
    source: Source
    synonyms: tuple[Synonym, ...]
    type: ConfigType
    read_only: bool
    sensitive: bool
    documentation: str | None


@dataclass(frozen=True)
class TopicConfig:
    """What holds for a topic now. A change makes a new one; nothing here ever changes.

    overrides: what the topic itself says, text as stored in the metadata log.
    """

    broker: BrokerConfig
    overrides: Mapping[str, str]

    def with_overrides(self, overrides: Mapping[str, str]) -> TopicConfig:
        """The same topic saying other things: the whole mapping, not a change to it."""
        return TopicConfig(self.broker, dict(overrides))

    def with_broker(self, broker: BrokerConfig) -> TopicConfig:
        """The same topic after a change of the broker's settings."""
        return TopicConfig(broker, self.overrides)

    def get(self, key: str) -> Value:
        row = BY_TOPIC_KEY[key]
        if key in self.overrides:
            return row.parse(self.overrides[key])
        if row.broker_key is None:
            return row.default
        value = self.broker.get(row.broker_key)
        for broker_key, factor in _FALLBACKS.get(key, ()):
            if value is None:
                coarse = self.broker.optional_int(broker_key)
                # A negative number of hours means for ever, as -1 ms does.
                value = None if coarse is None else coarse * factor if coarse >= 0 else -1
        return row.default if value is None else value

    def _int(self, key: str) -> int:
        value = self.get(key)
        assert type(value) is int, (key, value)
        return value

    @cached_property
    def cleanup_policy(self) -> tuple[str, ...]:
        value = self.get("cleanup.policy")
        assert isinstance(value, tuple), value
        return value

    @property
    def deletes(self) -> bool:
        """Old records go by age and size."""
        return "delete" in self.cleanup_policy

    @property
    def compacts(self) -> bool:
        return "compact" in self.cleanup_policy

    @cached_property
    def retention_ms(self) -> int | None:
        """None: no bound by age."""
        value = self._int("retention.ms")
        return None if value < 0 else value

    @cached_property
    def retention_bytes(self) -> int | None:
        """None: no bound by size."""
        value = self._int("retention.bytes")
        return None if value < 0 else value

    @cached_property
    def segment_bytes(self) -> int:
        """Retention drops runs of at most so many bytes."""
        return self._int("segment.bytes")

    @cached_property
    def segment_ms(self) -> int:
        """Retention drops runs that span at most so many milliseconds."""
        return self._int("segment.ms")

    @cached_property
    def max_message_bytes(self) -> int:
        return self._int("max.message.bytes")

    @cached_property
    def target_codec(self) -> int | None:
        """Number of the codec in which batches are kept; None: the one that they came with."""
        return _CODECS.get(str(self.get("compression.type")))

    @cached_property
    def compression_level(self) -> int | None:
        """For `target_codec`; None: that codec has no level, or its own default is wanted."""
        name = str(self.get("compression.type"))
        if name not in ("gzip", "lz4", "zstd"):
            return None
        level = self._int(f"compression.{name}.level")
        return None if name == "gzip" and level == -1 else level

    @cached_property
    def log_append_time(self) -> bool:
        return self.get("message.timestamp.type") == "LogAppendTime"

    @cached_property
    def timestamp_before_max_ms(self) -> int:
        return self._int("message.timestamp.before.max.ms")

    @cached_property
    def timestamp_after_max_ms(self) -> int:
        return self._int("message.timestamp.after.max.ms")

    @cached_property
    def delete_retention_ms(self) -> int:
        return self._int("delete.retention.ms")

    @cached_property
    def min_compaction_lag_ms(self) -> int:
        return self._int("min.compaction.lag.ms")

    @cached_property
    def max_compaction_lag_ms(self) -> int:
        return self._int("max.compaction.lag.ms")

    @cached_property
    def min_cleanable_dirty_ratio(self) -> float:
        value = self.get("min.cleanable.dirty.ratio")
        assert isinstance(value, float), value
        return value

    def describe(self, keys: Iterable[str] | None = None) -> list[Described]:
        """keys: None for all; unknown ones are passed over, as Kafka does."""
        wanted = None if keys is None else frozenset(keys)
        return [
            self._describe(row.key) for row in TOPIC_SETTINGS if wanted is None or row.key in wanted
        ]

    def _describe(self, key: str) -> Described:
        row = BY_TOPIC_KEY[key]
        value = render(self.get(key))
        chain = [] if row.broker_key is None else self.broker.chain(row.broker_key)
        if key in self.overrides:
            chain.insert(0, Synonym(key, value, Source.TOPIC))
        source = chain[0].source if chain else Source.DEFAULT
        return Described(key, value, source, tuple(chain), row.type, False, False, row.meaning)


def validate(topic: str, overrides: Mapping[str, str | None], broker: BrokerConfig) -> None:
    """Whether a topic may have exactly these overrides.

    Raises KafkaError INVALID_CONFIG; a null value is refused as CreateTopics refuses it.
    """
    nulls = [key for key, text in overrides.items() if text is None]
    if nulls:
        raise _invalid(f"Null value not supported for topic configs: {','.join(nulls)}")
    for key in overrides:
        if key not in BY_TOPIC_KEY:
            raise _invalid(f"Unknown topic config name: {key}")
    for key, text in overrides.items():
        assert text is not None
        validate_value(topic, key, text)
    texts = {key: text for key, text in overrides.items() if text is not None}
    config = TopicConfig(broker, texts)
    least, most = config.min_compaction_lag_ms, config.max_compaction_lag_ms
    if least > most:
        raise _invalid(
            f"conflict topic config setting min.compaction.lag.ms ({least}) > "
            f"max.compaction.lag.ms ({most})"
        )


def validate_value(topic: str, key: str, text: str) -> None:
    """Whether one value can stand on its own. Raises KafkaError INVALID_CONFIG."""
    row = BY_TOPIC_KEY.get(key)
    if row is None:
        raise _invalid(f"Unknown topic config name: {key}")
    try:
        value = row.parse(text)
    except InvalidValue as error:
        raise _invalid(str(error)) from None
    if key == "remote.storage.enable" and value is True:
        raise _invalid(
            "Tiered Storage functionality is disabled in the broker. "
            "Topic cannot be configured with remote log storage."
        )
    if key == "cleanup.policy" and topic not in INTERNAL_TOPICS:
        assert isinstance(value, tuple)
        if "compact" in value:
            raise _invalid(
                "Invalid value compact for configuration cleanup.policy: "
                "compaction of topics is not supported by this broker yet, only delete"
            )


def _invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_CONFIG, message)
