"""The wrappers in their order, once per request class.

    caller -> retry -> hedge -> priority -> limit -> meter -> (prefix) -> driver

Retry is outermost, so that no slot is held during its pauses; the meter is innermost, so that it
sees every request that leaves. Hedged are reads for consumers, and writes to the log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from .store import ObjectStore
from .wrappers.hedge import HedgeConfig, HedgeStore
from .wrappers.hedge_create import HedgeCreateConfig, HedgeCreateStore
from .wrappers.limit import LimitStore, RateLimit
from .wrappers.meter import MeterStore, RequestMeter
from .wrappers.passing import PassingStore
from .wrappers.priority import Priority, PriorityStore, Slots
from .wrappers.retry import RetryConfig, RetryStore


@dataclass(frozen=True)
class LayerConfig:
    """slots: requests at once. hedge: of reads; hedge_create: of the log's writes; None: never ask
    twice. requests_per_s: None: no limit.
    """

    slots: int = 64
    retry: RetryConfig = field(default_factory=RetryConfig)
    hedge: HedgeConfig | None = None
    hedge_create: HedgeCreateConfig | None = None
    requests_per_s: float | None = None
    burst: int = 50


class LayeredStore(PassingStore):
    """A driver with everything around it. Itself it is of class READ; `at` gives the others.

    meter: counts of every request, all classes together. Closing it closes the driver.
    """

    def __init__(self, driver: ObjectStore, rng: Random, config: LayerConfig | None = None) -> None:
        config = config or LayerConfig()
        self.meter = RequestMeter()
        below: ObjectStore = MeterStore(driver, self.meter)
        if config.requests_per_s is not None:
            below = LimitStore(below, RateLimit(config.requests_per_s, config.burst))
        slots = Slots(config.slots)
        self._classes: dict[Priority, ObjectStore] = {}
        for priority in Priority:
            store: ObjectStore = PriorityStore(below, slots, priority)
            # Only consumers wait for a read: the rest may take its time at the price of one GET.
            if config.hedge is not None and priority is Priority.READ:
                store = HedgeStore(store, config.hedge)
            # Everybody waits for the log, and nobody for an upload.
            if config.hedge_create is not None and priority is Priority.WAL:
                store = HedgeCreateStore(store, config.hedge_create)
            self._classes[priority] = RetryStore(store, rng, config.retry)
        super().__init__(self._classes[Priority.READ])

    def at(self, priority: Priority) -> ObjectStore:
        """The same store for another class of requests, on the same slots."""
        return self._classes[priority]
