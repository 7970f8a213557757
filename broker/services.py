"""What handlers may use of the broker, in one place; `node` fills it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.config.topic import TopicConfig

if TYPE_CHECKING:
    from broker.config import BrokerConfig
    from broker.controller.decisions import Membership
    from broker.coordinator.runtime import GroupCoordinator
    from s3stream.metadata.image import MetadataImage, TopicImage
    from s3stream.node_log import StreamStorage

    from .confirmation import Confirmation
    from .metrics import BrokerMetrics
    from .partition.fetch_session import FetchSessions
    from .partition.partitions import Partitions
    from .producer_ids import ProducerIds
    from .racks.rack_reads import RackReads
    from .response_memory import ResponseMemory


@dataclass(slots=True)
class Services:
    """config is swapped at a dynamic change: read it anew after an await.

    now_ms: wall clock, Unix milliseconds. settled: returns when the partitions that the image
    gives this broker are open, so that who was told of a new topic can use it at once; it gives
    up after a few seconds, since the topic exists all the same. led_on: the same for requests that
    came between two leaders of a partition; it gives up soon, since they hold up those after them.
    """

    config: BrokerConfig
    controller: Membership
    storage: StreamStorage
    confirmation: Confirmation
    partitions: Partitions
    groups: GroupCoordinator
    sessions: FetchSessions
    producer_ids: ProducerIds
    responses: ResponseMemory
    metrics: BrokerMetrics
    now_ms: Callable[[], int]
    rng: random.Random
    settled: Callable[[], Awaitable[None]]
    led_on: Callable[[], Awaitable[None]]
    racks: RackReads

    def topic_config(self, topic: TopicImage) -> TopicConfig:
        """What holds for a topic now."""
        return TopicConfig(self.config, topic.configs)

    @property
    def image(self) -> MetadataImage:
        """The metadata as of now."""
        return self.controller.image
