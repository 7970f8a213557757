"""What holds for a topic, and what a topic may not say."""

from __future__ import annotations

import pytest

from broker.config import TopicConfig, load
from broker.config.topic import validate
from protocol.errors import ErrorCode, KafkaError

BROKER = load().config


def topic(**overrides: str) -> TopicConfig:
    return TopicConfig(BROKER, {k.replace("_", "."): v for k, v in overrides.items()})


def test_a_topic_that_says_nothing_has_kafkas_defaults() -> None:
    t = topic()
    assert (t.retention_ms, t.retention_bytes, t.max_message_bytes) == (
        604_800_000,
        None,
        1_048_588,
    )
    assert (t.deletes, t.compacts, t.log_append_time) == (True, False, False)
    assert (t.target_codec, t.compression_level) == (None, None)
    assert (t.segment_bytes, t.segment_ms) == (1 << 30, 604_800_000)
    assert (t.timestamp_before_max_ms, t.timestamp_after_max_ms) == (2**63 - 1, 3_600_000)


def test_overrides_count_before_the_broker() -> None:
    old = topic(retention_ms="5", message_timestamp_type="LogAppendTime")
    assert (old.retention_ms, old.log_append_time) == (5, True)
    new = old.with_overrides({"retention.ms": "-1", "cleanup.policy": ""})
    assert (new.retention_ms, new.deletes, new.log_append_time) == (None, False, False)
    assert old.retention_ms == 5


def test_a_change_of_the_broker_reaches_topics_that_say_nothing() -> None:
    changed = BROKER.with_overrides({"log.retention.ms": "9", "message.max.bytes": "8"}, {})
    t = topic(max_message_bytes="7").with_broker(changed)
    assert (t.retention_ms, t.max_message_bytes) == (9, 7)


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["log.retention.hours=2"], 7_200_000),
        (["log.retention.hours=2", "log.retention.minutes=3"], 180_000),
        (["log.retention.minutes=3", "log.retention.ms=4"], 4),
        (["log.retention.hours=-1"], None),
    ],
)
def test_the_finest_retention_of_the_broker_counts(sets: list[str], expected: int | None) -> None:
    assert TopicConfig(load(sets=sets).config, {}).retention_ms == expected


@pytest.mark.parametrize(
    ("codec", "key", "level", "expected"),
    [
        ("uncompressed", "gzip", "1", (0, None)),
        ("gzip", "gzip", "5", (1, 5)),
        ("gzip", "gzip", "-1", (1, None)),
        ("snappy", "gzip", "5", (2, None)),
        ("lz4", "lz4", "17", (3, 17)),
        ("zstd", "zstd", "-5", (4, -5)),
    ],
)
def test_the_level_is_the_codecs_own(
    codec: str, key: str, level: str, expected: tuple[int, int | None]
) -> None:
    t = TopicConfig(BROKER, {"compression.type": codec, f"compression.{key}.level": level})
    assert (t.target_codec, t.compression_level) == expected


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"cleanup.policy": "compact"}, "compaction"),
        ({"cleanup.policy": "delete,compact"}, "compaction"),
        ({"remote.storage.enable": "true"}, "Tiered Storage"),
        ({"nokey": "1"}, "Unknown topic config name: nokey"),
        ({"retention.ms": None}, "Null value not supported for topic configs: retention.ms"),
        ({"min.compaction.lag.ms": "2", "max.compaction.lag.ms": "1"}, "conflict"),
    ],
)
def test_what_a_topic_may_not_say_is_an_invalid_config(
    overrides: dict[str, str | None], word: str
) -> None:
    with pytest.raises(KafkaError) as caught:
        validate("t", overrides, BROKER)
    assert caught.value.code is ErrorCode.INVALID_CONFIG
    assert word in str(caught.value.message)


def test_the_brokers_own_topics_may_be_compacted() -> None:
    validate("__consumer_offsets", {"cleanup.policy": "compact"}, BROKER)
    config = TopicConfig(BROKER, {"cleanup.policy": "compact"})
    assert (config.compacts, config.deletes) == (True, False)
