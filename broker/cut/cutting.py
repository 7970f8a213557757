"""A cut from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from objectstore.store import ObjectStore

from .planning import Plan
from .settle import Settling
from .streams import OnProgress


async def cut(
    store: ObjectStore,
    rng: Random,
    now_ms: Callable[[], int],
    on_progress: OnProgress = lambda done, of: None,
) -> Plan:
    """What was kept, and what was lost; a broker can start on the store when this returns.

    Whoever wrote to the store until now is fenced. now_ms: wall clock.
    on_progress: called with bytes read and bytes to read. Raises Fault where there is
    nothing to keep, Corrupt where other processes keep deciding in this cluster, StoreError.
    """
    return await Settling(store, rng, now_ms, on_progress).run()
