"""Partitions between two leaders: a request for one waits a moment, so that its answer can name the
next leader (KIP-951), instead of sending the client to look for it, again and again.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from broker.leadership import partition_image
from broker.services import Services


def is_between(services: Services, places: Iterable[tuple[str | UUID, int]]) -> bool:
    """Whether the image says that one of the partitions is led here, and it is not open: it is
    about to be, or about to go. places: topic name or id, and index.
    """
    partitions, image, ours = services.partitions, services.image, None
    for topic, index in places:
        if partitions.is_open(topic, index):
            continue
        found = image.topics.get(topic) if isinstance(topic, str) else image.topic_by_id(topic)
        led = partition_image(found, index)
        ours = services.controller.incarnation if ours is None else ours
        if led is not None and led.leader == ours:
            return True
    return False
