"""Reads, listings and deletes are repeated on trouble; creates never are.

A create must be settled by the header found at its key (`objectstore.create`), which knows what it
sent; a wrapper does not.
"""

from __future__ import annotations

import asyncio
import builtins
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from ..create import Backoff
from ..errors import StoreError, StoreUnavailable, Throttled
from ..store import ObjectInfo, ObjectStore, UploadInfo
from .passing import PassingStore

T = TypeVar("T")


@dataclass(frozen=True)
class RetryConfig:
    """attempts: per call, the first included. cap_s: longest pause between two.

    budget, refill: tokens for repeats. Each repeat takes one, each call that succeeds at once
    gives back `refill`. When the store fails everything, callers get errors at once instead of
    multiplying the load: at 0.1, repeats add a tenth to it.
    """

    attempts: int = 5
    base_s: float = 0.020
    cap_s: float = 2.0
    budget: float = 20.0
    refill: float = 0.1


# For who needs every one of many answers before it can go on, and is alone in asking.
PATIENT = RetryConfig(attempts=30, budget=math.inf)


class RetryStore(PassingStore):
    """Repeats after Throttled and StoreUnavailable, with exponential, jittered pauses."""

    def __init__(self, inner: ObjectStore, rng: Random, config: RetryConfig | None = None) -> None:
        super().__init__(inner)
        self._rng = rng
        self._config = config or RetryConfig()
        self._tokens = self._config.budget
        self.repeats = 0
        """How many requests were sent again, ever."""

    async def get(self, key: str) -> bytes:
        return await self._retried(lambda: self.inner.get(key))

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        return await self._retried(lambda: self.inner.get_ranges(key, ranges))

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """After trouble the listing goes on behind the last row that was given out."""
        after = start_after
        rows = self.inner.list(prefix, after)
        tries = _Tries(self)
        while True:
            try:
                info = await anext(rows)
            except StopAsyncIteration:
                tries.succeeded()
                return
            except (Throttled, StoreUnavailable) as error:
                await tries.pause(error)
                rows = self.inner.list(prefix, after)
                continue
            after = info.key
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        await self._retried(lambda: self.inner.delete(keys))

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        return await self._retried(lambda: self.inner.list_uploads(prefix))

    async def abort_upload(self, upload: UploadInfo) -> None:
        await self._retried(lambda: self.inner.abort_upload(upload))

    async def date_ms(self) -> int:
        return await self._retried(self.inner.date_ms)

    async def _retried(self, call: Callable[[], Awaitable[T]]) -> T:
        tries = _Tries(self)
        while True:
            try:
                result = await call()
            except (Throttled, StoreUnavailable) as error:
                await tries.pause(error)
            else:
                tries.succeeded()
                return result

    def take_token(self) -> bool:
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self.repeats += 1
        return True

    def give_back(self) -> None:
        self._tokens = min(self._config.budget, self._tokens + self._config.refill)

    @property
    def config(self) -> RetryConfig:
        return self._config

    def backoff(self) -> Backoff:
        return Backoff(self._rng, self._config.base_s)


class _Tries:
    """The attempts of one call."""

    def __init__(self, store: RetryStore) -> None:
        self._store = store
        self._failures = 0
        self._backoff = store.backoff()

    def succeeded(self) -> None:
        if not self._failures:
            self._store.give_back()

    async def pause(self, error: StoreError) -> None:
        """Wait before the next attempt, or raise `error`: it was the last."""
        self._failures += 1
        config = self._store.config
        if self._failures >= config.attempts or not self._store.take_token():
            raise error
        await asyncio.sleep(self._backoff.next_s(config.cap_s))
