"""What goes into the next objects of a log: appends gather here until they are cut."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .config import WalConfig
from .durable_future import DurableFuture
from .format.compose import BatchEntry


@dataclass(slots=True, eq=False)
class Fill:
    """What goes into one object, not cut yet. future: of that object, for all who wait for it.

    size: bytes of batches and control records. urgent: goes at once, whatever the budget says.
    """

    oldest_at: float
    future: DurableFuture
    size: int = 0
    full: bool = False
    urgent: bool = False
    entries: list[BatchEntry] = field(default_factory=list)
    controls: list[bytes] = field(default_factory=list)


class Fills:
    """In the order in which they will be cut. wake: called when one may be cut by a change here."""

    def __init__(self, config: WalConfig, wake: Callable[[], None]) -> None:
        self._config = config
        self._wake = wake
        self._fills: deque[Fill] = deque()
        self.pending_bytes = 0

    def __len__(self) -> int:
        return len(self._fills)

    @property
    def oldest(self) -> Fill:
        return self._fills[0]

    @property
    def newest(self) -> Fill:
        return self._fills[-1]

    def room_for(self, size: int, batches: int) -> Fill:
        """The fill that takes so many bytes: the newest, or a new one behind it."""
        config = self._config
        if self._fills:
            fill = self._fills[-1]
            fits = (
                fill.size + size <= config.object_max_bytes
                and len(fill.entries) + batches <= config.object_max_batches
            )
            if fits and not fill.full:
                return fill
            fill.full = True
        loop = asyncio.get_running_loop()
        fill = Fill(loop.time(), DurableFuture(loop=loop))
        self._fills.append(fill)
        self._wake()
        return fill

    def grown(self, fill: Fill, size: int) -> None:
        """So many bytes were put into it."""
        fill.size += size
        self.pending_bytes += size
        config = self._config
        if fill.size >= config.object_max_bytes or len(fill.entries) >= config.object_max_batches:
            fill.full = True
            self._wake()

    def hurry(self, fill: Fill) -> None:
        if not fill.urgent:
            fill.urgent = True
            self._wake()

    def cut(self) -> Fill:
        """Take the oldest away."""
        fill = self._fills.popleft()
        self.pending_bytes -= fill.size
        return fill

    def drop_all(self) -> list[Fill]:
        dropped = list(self._fills)
        self._fills.clear()
        self.pending_bytes = 0
        return dropped
