"""Producer ids: given out one by one from blocks that the metadata log allots."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.controller.decisions import Decisions


class ProducerIds:
    """A block is durable in the metadata log before its first id is used; the rest of it is lost
    with the broker, never given out twice. Source: KIP-730.
    """

    def __init__(self, controller: Decisions) -> None:
        self._controller = controller
        self._next = 0
        self._end = 0
        self._lock = asyncio.Lock()

    async def next(self) -> int:
        """A producer id that nobody had before."""
        if self._next == self._end:
            async with self._lock:
                if self._next == self._end:
                    first, count = await self._controller.allocate_producer_ids()
                    self._next, self._end = first, first + count
        self._next += 1
        return self._next - 1
