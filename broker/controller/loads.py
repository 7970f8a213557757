"""The newest that each live broker told of its load; of the process that decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from broker.cluster.load import Load

from .goals import LEAST


class Loads:
    """own: of this process, measured when asked. busy: set by a load that matters."""

    def __init__(self, own_incarnation: int, own: Callable[[], Load]) -> None:
        self.busy = asyncio.Event()
        self._own_incarnation = own_incarnation
        self._own = own
        self._newest: dict[int, Load] = {}

    def told(self, incarnation: int, load: Load) -> None:
        self._newest[incarnation] = load
        # Ours in step with the others', and without a timer.
        if matters(load) or matters(self._own()):
            self.busy.set()

    def of(self, live: Collection[int]) -> dict[int, Load]:
        """By incarnation, of those of `live` that told anything; the others are forgotten."""
        self._newest = {one: load for one, load in self._newest.items() if one in live}
        found = dict(self._newest)
        if self._own_incarnation in live:
            found[self._own_incarnation] = self._own()
        return dict(sorted(found.items()))


def matters(load: Load) -> bool:
    """Whether it alone could be too much for a broker."""
    return (
        load.bytes_in > LEAST.bytes_in
        or load.bytes_out > LEAST.bytes_out
        or load.requests > LEAST.requests
        or load.processor > LEAST.processor
    )
