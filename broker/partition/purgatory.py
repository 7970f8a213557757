"""Who waits for records: a fetch that found too few bytes sleeps until a partition moves."""

from __future__ import annotations

import asyncio


class Waiter:
    """One waiting request; woken by any of the partitions that it watches."""

    __slots__ = ("_event", "_signals")

    def __init__(self, signals: list[MovementSignal]) -> None:
        self._event = asyncio.Event()
        self._signals = signals
        for signal in signals:
            signal.add(self)

    def wake(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True when woken, False when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True

    def close(self) -> None:
        for signal in self._signals:
            signal.discard(self)


class MovementSignal:
    """Of one partition: its high watermark moved, it closed, its epoch changed."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}

    def add(self, waiter: Waiter) -> None:
        self._waiters[waiter] = None

    def discard(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter, None)

    def fire(self) -> None:
        for waiter in list(self._waiters):
            waiter.wake()

    def __len__(self) -> int:
        return len(self._waiters)
