"""Requests for groups whose partition is on its way to this broker, or being read: each waits a
little, and they go on in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

# Groups that have just come here are read within this, as a rule. Some clients show the error after
# two retries to whoever commits; a move must not be seen.
PATIENCE_S = 3.0


class Arrivals:
    """By partition of `__consumer_offsets`. Whoever comes while others still wait goes behind them,
    though there be nothing to wait for any more: a client's commits must not overtake each other.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[asyncio.Lock, int]] = {}

    def __contains__(self, partition: int) -> bool:
        """Somebody waits for it."""
        return partition in self._waiting

    async def wait(self, partition: int, arrived: Callable[[int], Awaitable[None]]) -> None:
        """For one's turn and then `arrived`, for so long in all."""
        lock, count = self._waiting.get(partition) or (asyncio.Lock(), 0)
        self._waiting[partition] = lock, count + 1
        try:
            async with asyncio.timeout(PATIENCE_S), lock:
                await arrived(partition)
        except TimeoutError:
            pass
        finally:
            lock, count = self._waiting.pop(partition)
            if count > 1:
                self._waiting[partition] = lock, count - 1


async def nobody_comes(partition: int) -> None:
    """Where partitions are here or not: nothing to wait for."""
