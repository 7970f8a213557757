"""A key nobody reads is a promise nobody keeps."""

from __future__ import annotations

import re
from pathlib import Path

from broker.config.definitions import BY_KEY, SETTINGS
from broker.config.setting import Effect
from broker.config.topic_definitions import TOPIC_SETTINGS

ROOT = Path(__file__).parents[4]
PACKAGES = ("broker", "wal", "s3stream", "objectstore", "protocol")
_READ = re.compile(
    r"\.(?:optional_)?(?:int|number|text|flag|words)\(\s*\"([a-z0-9.]+)\"", re.MULTILINE
)
# Topic properties, as the rest of the broker asks for them, by the keys that they read.
_PROPERTIES = {
    "cleanup.policy": ("deletes", "compacts", "cleanup_policy"),
    "compression.type": ("target_codec",),
    "compression.gzip.level": ("compression_level",),
    "compression.lz4.level": ("compression_level",),
    "compression.zstd.level": ("compression_level",),
    "message.timestamp.type": ("log_append_time",),
    "message.timestamp.before.max.ms": ("timestamp_before_max_ms",),
    "message.timestamp.after.max.ms": ("timestamp_after_max_ms",),
}


def sources() -> str:
    own = ROOT / "broker" / "config"
    files = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))
    return "\n".join(p.read_text() for p in files if own not in p.parents)


def keys_of_views() -> set[str]:
    """Read by BrokerConfig's own properties, and by topics through their broker's twin."""
    found = {"listeners", "advertised.listeners", "http"}
    for row in TOPIC_SETTINGS:
        if row.broker_key and row.effect is Effect.ACTIVE:
            found |= {row.broker_key, *BY_KEY[row.broker_key].falls_back_to}
    return found


def test_every_key_with_an_effect_is_read_by_somebody() -> None:
    read = set(_READ.findall(sources()))
    assert read <= set(BY_KEY), f"read and not in the table: {sorted(read - set(BY_KEY))}"
    active = {row.key for row in SETTINGS if row.effect is Effect.ACTIVE} - keys_of_views()
    assert active <= read, f"nobody reads: {sorted(active - read)}"


def test_every_topic_configuration_with_an_effect_is_read_by_somebody() -> None:
    text = sources()
    unread = set()
    for row in TOPIC_SETTINGS:
        names = _PROPERTIES.get(row.key, (row.key.replace(".", "_"),))
        if row.effect is Effect.ACTIVE and row.key != "remote.storage.enable":
            used = any(re.search(rf"\.{name}\b", text) for name in names)
            unread |= set() if used else {row.key}
    assert not unread, sorted(unread)


def test_keys_without_an_effect_are_read_by_nobody() -> None:
    read = set(_READ.findall(sources()))
    kept = {row.key for row in SETTINGS if row.effect is not Effect.ACTIVE}
    assert not read & kept
