"""How fast compaction may go: requests and bytes a second, taken before each request.

A token bucket of one second; a request larger than that is let through when the bucket is full and
leaves a debt that the next ones wait for, so the average holds whatever the sizes.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence

from objectstore.store import Chunks, ObjectStore, Upload
from objectstore.wrappers.passing import PassingStore


class Budget:
    """requests_per_s, bytes_per_s: both above 0."""

    def __init__(self, requests_per_s: float, bytes_per_s: float) -> None:
        assert requests_per_s > 0 and bytes_per_s > 0, (requests_per_s, bytes_per_s)
        self._requests = _Bucket(requests_per_s)
        self._bytes = _Bucket(bytes_per_s)

    async def take(self, requests: int, size_bytes: int) -> None:
        """Returns when it may go."""
        now = asyncio.get_running_loop().time()
        wait_s = max(self._requests.take(requests, now), self._bytes.take(size_bytes, now))
        if wait_s > 0:
            await asyncio.sleep(wait_s)


class BudgetStore(PassingStore):
    """Counts what is read when it is asked for, and what is written when it is sent."""

    def __init__(self, inner: ObjectStore, budget: Budget) -> None:
        super().__init__(inner)
        self._budget = budget

    async def create(self, key: str, chunks: Chunks) -> None:
        await self._budget.take(1, sum(len(chunk) for chunk in chunks))
        await self.inner.create(key, chunks)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        await self._budget.take(len(ranges), sum(end - start for start, end in ranges))
        return await self.inner.get_ranges(key, ranges)

    async def start_upload(self, key: str) -> Upload:
        await self._budget.take(1, 0)
        return _BudgetUpload(await self.inner.start_upload(key), self._budget)


class _BudgetUpload(Upload):
    def __init__(self, inner: Upload, budget: Budget) -> None:
        self._inner = inner
        self._budget = budget

    async def part(self, chunks: Chunks) -> None:
        await self._budget.take(1, sum(len(chunk) for chunk in chunks))
        await self._inner.part(chunks)

    async def complete(self) -> None:
        await self._inner.complete()

    async def abort(self) -> None:
        await self._inner.abort()


class _Bucket:
    """Holds one second's worth; may be overdrawn."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._level = per_s
        self._at = 0.0

    def take(self, amount: float, now: float) -> float:
        """Seconds to wait before what was taken may be used."""
        self._level = min(self._per_s, self._level + (now - self._at) * self._per_s)
        self._at = now
        # Only what was owed before delays this one: else a large request could never go.
        wait_s = max(0.0, -self._level / self._per_s)
        self._level -= amount
        return wait_s
