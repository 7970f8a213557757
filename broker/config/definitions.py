"""Every setting of the broker: the one table from which all else is made.

The rows are split by subject; this file joins them and answers questions about keys.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from .setting import Setting
from .settings_cluster import CLUSTER
from .settings_groups import GROUPS
from .settings_log import LOG
from .settings_network import NETWORK
from .settings_storage import STORAGE

SETTINGS: tuple[Setting, ...] = (*CLUSTER, *NETWORK, *LOG, *GROUPS, *STORAGE)
SECTIONS: tuple[tuple[str, tuple[Setting, ...]], ...] = (
    ("Node and cluster", CLUSTER),
    ("Network and requests", NETWORK),
    ("Topics and logs", LOG),
    ("Groups, offsets and producers", GROUPS),
    ("Storage", STORAGE),
)
BY_KEY: Mapping[str, Setting] = MappingProxyType({row.key: row for row in SETTINGS})
assert len(BY_KEY) == len(SETTINGS), "a key stands twice in the table"

# Which keys Kafka shows as synonyms of each other, the one that counts most first.
SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        member: family
        for family in (
            ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
            ("log.roll.ms", "log.roll.hours"),
            ("log.roll.jitter.ms", "log.roll.jitter.hours"),
            ("log.flush.interval.ms", "log.flush.scheduler.interval.ms"),
        )
        for member in family
    }
)


def synonyms_of(key: str) -> tuple[str, ...]:
    return SYNONYMS.get(key, (key,))


def nearest_key(key: str) -> str | None:
    """The known key that a person who typed `key` most likely meant; None if none is near."""
    lowered = key.lower().replace("_", ".")
    if lowered in BY_KEY:
        return lowered
    found = difflib.get_close_matches(lowered, BY_KEY, n=1, cutoff=0.6)
    return found[0] if found else None
