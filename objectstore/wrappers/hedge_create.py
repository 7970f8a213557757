"""A second conditional create of the same bytes when the first is unusually slow.

Safe because of what every create is: at most one of two lands, both carry the same write id, and a
412 tells no more than that somebody's object is there; whoever sent them reads its header
(`objectstore.create`) and finds its own write id, whichever of the two it was. The loser may land
later than its caller knows, as any create that was given up.

Not for file stores, where both would wait for the same disk. Bounded by a budget like second GETs.
Source: Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from ..errors import PreconditionFailed, StoreError
from ..store import Chunks, ObjectStore
from .passing import PassingStore


@dataclass(frozen=True)
class HedgeCreateConfig:
    """samples: creates remembered per size class; needed: before any second one is sent.

    factor: so many times the median; least_s: never earlier than this. budget, refill: each second
    request takes a token, each create gives back `refill`: at 0.02 at most one more in fifty.
    largest_bytes: what takes long because it is long is not sent twice.
    """

    samples: int = 64
    needed: int = 16
    factor: float = 8.0
    least_s: float = 0.2
    budget: float = 5.0
    refill: float = 0.02
    largest_bytes: int = 2 << 20


class HedgeCreateStore(PassingStore):
    """Put it above the driver and below `create_once`."""

    def __init__(self, inner: ObjectStore, config: HedgeCreateConfig | None = None) -> None:
        super().__init__(inner)
        self._config = config or HedgeCreateConfig()
        self._recent: dict[int, deque[float]] = {}
        self._tokens = self._config.budget
        self.hedged = 0
        """Second requests sent, ever."""
        self.won = 0
        """How many of them answered first."""

    async def create(self, key: str, chunks: Chunks) -> None:
        size = sum(map(len, chunks))
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        self._tokens = min(self._config.budget, self._tokens + self._config.refill)
        size_class = (size >> 16).bit_length()
        delay_s = self.delay_s(size_class) if size <= self._config.largest_bytes else None
        if delay_s is None:
            await self.inner.create(key, chunks)
        else:
            await self._race(key, chunks, delay_s)
        samples = self._recent.setdefault(size_class, deque(maxlen=self._config.samples))
        samples.append(loop.time() - started_s)

    def delay_s(self, size_class: int) -> float | None:
        """When a second request is due, None while too little is known."""
        recent = self._recent.get(size_class, ())
        if len(recent) < max(1, self._config.needed):
            return None
        median = sorted(recent)[len(recent) // 2]
        return max(self._config.least_s, self._config.factor * median)

    async def _race(self, key: str, chunks: Chunks, delay_s: float) -> None:
        """The first attempt is the caller's own task, so that one that is in time costs a timer and
        no more; the second ends it, as a time-out would, where it wins.
        """
        second = _Second(lambda: self.inner.create(key, chunks))
        timer = asyncio.get_running_loop().call_later(delay_s, self._start, second)
        try:
            await self.inner.create(key, chunks)
        except asyncio.CancelledError:
            if not second.has_ended_first:
                raise
            self.won += 1
        except PreconditionFailed:
            raise  # perhaps the second one's doing: the header will tell
        except StoreError:
            timer.cancel()
            if second.task is None:
                raise
            # Trouble waits for the other; theirs is told where both fail.
            second.lets_go()
            await asyncio.shield(second.task)
            self.won += 1
        finally:
            timer.cancel()
            await second.end()

    def _start(self, second: _Second) -> None:
        if self._tokens >= 1:
            self._tokens -= 1
            self.hedged += 1
            second.start()


class _Second:
    """The second attempt, if it comes to that."""

    def __init__(self, create: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.task: asyncio.Task[None] | None = None
        self._create = create
        self._first = asyncio.current_task()
        assert self._first is not None
        self._cancelling = self._first.cancelling()
        self._ends_first = True
        self._cancelled_first = False

    def start(self) -> None:
        self.task = asyncio.create_task(self._create(), name="hedged-create")
        self.task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None and self._ends_first:
            assert self._first is not None
            self._cancelled_first = True
            self._first.cancel()

    @property
    def has_ended_first(self) -> bool:
        """And nobody else has cancelled it. Asked where it met its cancellation."""
        return self._cancelled_first and self._take_back() <= self._cancelling

    def _take_back(self) -> int:
        assert self._first is not None
        self._cancelled_first = False
        return self._first.uncancel()

    def lets_go(self) -> None:
        """The first one has ended by itself."""
        self._ends_first = False

    async def end(self) -> None:
        self._ends_first = False
        if self._cancelled_first:
            self._take_back()  # the driver made an error of it
        if self.task is not None and not self.task.done():
            self.task.cancel()
            await asyncio.wait((self.task,))
