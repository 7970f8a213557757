"""A second GET when the first is unusually slow; the first answer counts.

Objects never change, so either answer is right. The delay is the 95th percentile of recent GETs of
like size, and second requests are bounded by a budget: a store that is slow for all is not asked
twice by all.
Source: Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013.
"""

from __future__ import annotations

import asyncio
import builtins
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import NotFound, StoreError
from ..store import ObjectStore
from .passing import PassingStore

T = TypeVar("T")


@dataclass(frozen=True)
class HedgeConfig:
    """samples: GETs remembered per size class; needed: before any second request is sent.

    least_s: never earlier than this. budget, refill: each second request takes a token, each GET
    gives back `refill`: at 0.05 at most one more request in twenty.
    """

    samples: int = 128
    needed: int = 16
    quantile: float = 0.95
    least_s: float = 0.005
    budget: float = 10.0
    refill: float = 0.05


class HedgeStore(PassingStore):
    """Put it above the driver and below retries: a failed pair is retried as one."""

    def __init__(self, inner: ObjectStore, config: HedgeConfig | None = None) -> None:
        super().__init__(inner)
        self._config = config or HedgeConfig()
        self._recent: dict[int, deque[float]] = {}
        self._tokens = self._config.budget
        self.hedged = 0
        """Second requests sent, ever."""
        self.won = 0
        """How many of them answered first."""

    async def get(self, key: str) -> bytes:
        # The size of a whole object is not known before: a class of its own.
        return await self._hedged(-1, lambda: self.inner.get(key))

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        size_class = (sum(end - start for start, end in ranges) >> 16).bit_length()
        return await self._hedged(size_class, lambda: self.inner.get_ranges(key, ranges))

    def delay_s(self, size_class: int) -> float | None:
        """When a second request is due, None while too little is known."""
        recent = self._recent.get(size_class, ())
        if len(recent) < max(1, self._config.needed):
            return None
        ordered = sorted(recent)
        at = min(len(ordered) - 1, int(len(ordered) * self._config.quantile))
        return max(self._config.least_s, ordered[at])

    async def _hedged(self, size_class: int, call: Callable[[], Awaitable[T]]) -> T:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        self._tokens = min(self._config.budget, self._tokens + self._config.refill)
        delay_s = self.delay_s(size_class)
        if delay_s is None:
            result = await call()
        else:
            result = await self._race(delay_s, call)
        samples = self._recent.setdefault(size_class, deque(maxlen=self._config.samples))
        samples.append(loop.time() - started_s)
        return result

    async def _race(self, delay_s: float, call: Callable[[], Awaitable[T]]) -> T:
        tasks = [asyncio.create_task(_run(call), name="get")]
        try:
            done, _ = await asyncio.wait(tasks, timeout=delay_s)
            if not done and self._tokens >= 1:
                self._tokens -= 1
                self.hedged += 1
                tasks.append(asyncio.create_task(_run(call), name="hedged-get"))
            return await self._first(tasks)
        finally:
            # The loser is ended here, so that no request outlives the call that made it.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _first(self, tasks: list[asyncio.Task[T]]) -> T:
        """The first success, or a definite 404; an ambiguous error waits for the other."""
        left = tasks
        while True:
            await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            # In the order sent, not the set's: both may be done.
            for task in (task for task in left if task.done()):
                error = task.exception()
                if error is None:
                    self.won += task is not tasks[0]
                    return task.result()
                if isinstance(error, NotFound) or not isinstance(error, StoreError):
                    raise error
                if all(other.done() for other in tasks):
                    raise error
            left = [task for task in left if not task.done()]


def _run(call: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
    async def run() -> T:
        return await call()

    return run()
