"""The pages made from the table."""

from __future__ import annotations

from broker.config import render_config_table
from broker.config.definitions import SETTINGS
from broker.config.docs import PAGE
from broker.config.render import render_docs
from broker.config.setting import Effect
from broker.config.topic_definitions import TOPIC_SETTINGS

# The only keys that may be kept without being read: the store does what they are for.
REPLACED_TOPIC_KEYS = {
    "min.insync.replicas",
    "unclean.leader.election.enable",
    "flush.messages",
    "flush.ms",
    "preallocate",
    "index.interval.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "leader.replication.throttled.replicas",
    "follower.replication.throttled.replicas",
    "file.delete.delay.ms",
}


def test_the_page_of_settings_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_docs(), "python -m broker.config.docs"


def test_the_printed_table_has_every_key_with_default_and_meaning() -> None:
    table = render_config_table()
    for row in SETTINGS:
        [line] = [li for li in table.splitlines() if li.startswith(f"{row.key} ")]
        assert row.meaning.split()[0] in line, row.key
    assert all(len(line) <= 130 for line in table.splitlines())


def test_only_keys_that_the_store_replaces_are_kept_without_being_read() -> None:
    replaced = {r.key for r in TOPIC_SETTINGS if r.effect is Effect.STORE_TAKES_ITS_PLACE}
    assert replaced == REPLACED_TOPIC_KEYS
    twins = {r.broker_key for r in TOPIC_SETTINGS if r.key in REPLACED_TOPIC_KEYS}
    coarse = {"log.flush.scheduler.interval.ms", "log.roll.jitter.hours"}
    kept = {row.key for row in SETTINGS if row.effect is Effect.STORE_TAKES_ITS_PLACE}
    assert kept == {key for key in twins if key} | coarse
