"""The level of what a cluster's processes write: raised when all of them can read it.

    1   as released first
    2   planned moves of leadership: records `move-begun`, `leaders-moved`, `move-cancelled` and
        `draining-set`, the control records `handed-over` and `received`, snapshots of format 2

A cluster is born at the highest level that its first process knows. An older one is raised by its
operator (`kafka-features`), and not before every live broker has registered to read the level. A
process that meets a higher one stops: what comes after it may be of a kind that it does not know.
"""

from __future__ import annotations

from .image import MetadataImage

HEADWATER_VERSION = "headwater.version"
FIRST_LEVEL = 1
MOVES_LEVEL = 2
SUPPORTED_LEVEL = MOVES_LEVEL


def level_of(image: MetadataImage) -> int:
    """What may be written; 1 where nobody ever raised it."""
    return image.features.get(HEADWATER_VERSION, FIRST_LEVEL)


def may_move(image: MetadataImage) -> bool:
    return level_of(image) >= MOVES_LEVEL


def readable_by_all(image: MetadataImage) -> int:
    """The highest level that every live broker reads."""
    return min((broker.level for broker in image.live_brokers()), default=SUPPORTED_LEVEL)
