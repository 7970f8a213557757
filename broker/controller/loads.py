"""The newest that each live broker told of its load; of the process that decides."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.cluster.load import Load


class Loads:
    """own: of this process, measured when asked."""

    def __init__(self, own_incarnation: int, own: Callable[[], Load]) -> None:
        self._own_incarnation = own_incarnation
        self._own = own
        self._newest: dict[int, Load] = {}

    def told(self, incarnation: int, load: Load) -> None:
        self._newest[incarnation] = load
        self._own()  # in step with the others, and without a timer

    def of(self, live: Collection[int]) -> dict[int, Load]:
        """By incarnation, of those of `live` that told anything; the others are forgotten."""
        self._newest = {one: load for one, load in self._newest.items() if one in live}
        found = dict(self._newest)
        if self._own_incarnation in live:
            found[self._own_incarnation] = self._own()
        return dict(sorted(found.items()))
