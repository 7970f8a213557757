"""A bound on the records that are on their way to clients, from the read until they have left.

A fetch asks for room before it reads, gives back what it did not find, and holds the rest until
the transport has taken it. So a thousand consumers that read history share the bound, and get
smaller responses, later, rather than more memory. A client that takes nothing of its response
keeps its part only while nobody waits for room.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LEAST_BYTES = 1 << 20
STALL_S = 10.0
LEAST_RATE = 16 * 1024


@dataclass(slots=True)
class _Stall:
    """Of a response that the transport could not take at once."""

    left: Callable[[], int]
    give_up: Callable[[], None]
    since_s: float
    bytes_then: int


class Grant:
    """One response's part of the bound. `release` it when the response has left, or never will."""

    __slots__ = ("_memory", "held_bytes")

    def __init__(self, memory: ResponseMemory) -> None:
        self._memory = memory
        self.held_bytes = 0

    async def room(self, wanted_bytes: int, least_bytes: int, deadline: float) -> int | None:
        """How much may be read: up to `wanted_bytes`; None when there was no room in time.

        least_bytes: fewer are of no use (a batch that was seen to be as large).
        """
        return await self._memory._room(self, wanted_bytes, least_bytes, deadline)

    def settle(self, size_bytes: int) -> bool:
        """So much was read; False when it is more than granted, and there is no room for it."""
        return self._memory._settle(self, size_bytes)

    def stalled(self, left: Callable[[], int], give_up: Callable[[], None]) -> None:
        """The transport took only a part. left: bytes still to go; give_up: closes it at once."""
        self._memory._stalled(self, left, give_up)

    def release(self) -> None:
        """Idempotent."""
        self._memory._release(self)


class ResponseMemory:
    """limit_bytes: of all grants together; a single batch larger than that goes alone."""

    def __init__(self, limit_bytes: int) -> None:
        assert limit_bytes >= LEAST_BYTES, limit_bytes
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.given_up = 0
        self._waiting: OrderedDict[asyncio.Future[int], tuple[Grant, int, int]] = OrderedDict()
        self._stalls: OrderedDict[Grant, _Stall] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def grant(self) -> Grant:
        """An empty one."""
        return Grant(self)

    async def _room(
        self, grant: Grant, wanted_bytes: int, least_bytes: int, deadline: float
    ) -> int | None:
        least_bytes = max(min(wanted_bytes, LEAST_BYTES), least_bytes)
        if not self._waiting and self._fits(grant, least_bytes):
            return self._give(grant, wanted_bytes, least_bytes)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[int] = loop.create_future()
        self._waiting[turn] = (grant, wanted_bytes, least_bytes)
        self._look_for_stalls()
        try:
            async with asyncio.timeout_at(deadline):
                return await turn
        except TimeoutError:
            # Granted at the very moment when the time was over.
            return turn.result() if turn.done() and not turn.cancelled() else None
        except asyncio.CancelledError:
            self._release(grant)
            raise
        finally:
            if self._waiting.pop(turn, None) is not None:
                self._serve()

    def _fits(self, grant: Grant, size_bytes: int) -> bool:
        others = self.used_bytes - grant.held_bytes
        return others == 0 or others + size_bytes <= self.limit_bytes

    def _give(self, grant: Grant, wanted_bytes: int, least_bytes: int) -> int:
        others = self.used_bytes - grant.held_bytes
        # A quarter of what is free: the next ones shall find something too.
        fair = max((self.limit_bytes - others) // 4, least_bytes)
        size = min(max(wanted_bytes, least_bytes), fair)
        self._hold(grant, size)
        return size

    def _hold(self, grant: Grant, size_bytes: int) -> None:
        self.used_bytes += size_bytes - grant.held_bytes
        grant.held_bytes = size_bytes
        assert self.used_bytes >= 0, self.used_bytes

    def _settle(self, grant: Grant, size_bytes: int) -> bool:
        fits = size_bytes <= grant.held_bytes or self._fits(grant, size_bytes)
        self._hold(grant, size_bytes if fits else 0)
        self._serve()
        return fits

    def _release(self, grant: Grant) -> None:
        self._stalls.pop(grant, None)
        if grant.held_bytes:
            self._hold(grant, 0)
            self._serve()

    def _serve(self) -> None:
        while self._waiting:
            turn, (grant, wanted_bytes, least_bytes) = next(iter(self._waiting.items()))
            if turn.done():
                del self._waiting[turn]
                continue
            if not self._fits(grant, least_bytes):
                return
            del self._waiting[turn]
            turn.set_result(self._give(grant, wanted_bytes, least_bytes))

    # -- who does not read

    def _stalled(self, grant: Grant, left: Callable[[], int], give_up: Callable[[], None]) -> None:
        now = asyncio.get_running_loop().time()
        self._stalls[grant] = _Stall(left, give_up, now, left())
        if self._waiting:
            self._look_for_stalls()

    def _look_for_stalls(self) -> None:
        """Those that took less than the least rate for a while are given up, the oldest first."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiting and self._stalls:
            grant, stall = next(iter(self._stalls.items()))
            due = stall.since_s + STALL_S
            if now < due:
                if self._timer is None:
                    self._timer = loop.call_at(due, self._timer_rings)
                return
            left = stall.left()
            if stall.bytes_then - left < LEAST_RATE * (now - stall.since_s):
                self.given_up += 1
                self._release(grant)
                stall.give_up()
            else:
                stall.since_s, stall.bytes_then = now, left
                self._stalls.move_to_end(grant)

    def _timer_rings(self) -> None:
        self._timer = None
        self._look_for_stalls()
