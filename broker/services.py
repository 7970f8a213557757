"""What handlers may use of the broker, in one place; `node` fills it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.config import BrokerConfig
    from broker.controller import Controller
    from broker.coordinator.runtime import GroupCoordinator
    from s3stream.metadata.image import MetadataImage
    from s3stream.node_log import StreamStorage

    from .metrics import BrokerMetrics
    from .partition.fetch_session import FetchSessions
    from .partition.partitions import Partitions
    from .producer_ids import ProducerIds


@dataclass(slots=True)
class Services:
    """now_ms: wall clock. advertised: listener name -> (host, port) told to clients."""

    config: BrokerConfig
    controller: Controller
    storage: StreamStorage
    partitions: Partitions
    groups: GroupCoordinator
    sessions: FetchSessions
    producer_ids: ProducerIds
    metrics: BrokerMetrics
    now_ms: Callable[[], int]
    rng: random.Random

    @property
    def image(self) -> MetadataImage:
        """The metadata as of now."""
        return self.controller.image
