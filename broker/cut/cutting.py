"""A cut from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from objectstore.store import ObjectStore

from .planning import Plan
from .settle import Settling


async def cut(store: ObjectStore, rng: Random, now_ms: Callable[[], int]) -> Plan:
    """What was kept, and what was lost; a broker can start on the store when this returns.

    Whoever wrote to the store until now is fenced. now_ms: wall clock. Raises Fault where there is
    nothing to keep, Corrupt where other processes keep deciding in this cluster, StoreError.
    """
    return await Settling(store, rng, now_ms).run()
