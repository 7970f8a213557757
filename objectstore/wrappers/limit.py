"""A bound on requests per second, for stores that throttle or bill by request."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Sequence

from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from .passing import PassingStore

PAGE_ROWS = 1000


class RateLimit:
    """A token bucket as one number: when the next request may go. First come, first served.

    requests_per_s: the lasting rate. burst: requests that may go at once after a quiet time.
    """

    def __init__(self, requests_per_s: float, burst: int) -> None:
        assert requests_per_s > 0 and burst >= 1, (requests_per_s, burst)
        self._interval_s = 1 / requests_per_s
        self._slack_s = (burst - 1) * self._interval_s
        self._next_s = float("-inf")

    async def turn(self) -> None:
        """Wait for a turn. A cancelled wait gives its turn back, to those who come later."""
        now_s = asyncio.get_running_loop().time()
        at_s = max(self._next_s, now_s - self._slack_s)
        self._next_s = at_s + self._interval_s
        if at_s > now_s:
            try:
                await asyncio.sleep(at_s - now_s)
            except asyncio.CancelledError:
                self._next_s -= self._interval_s
                raise


class LimitStore(PassingStore):
    """Every request of every kind takes a turn."""

    def __init__(self, inner: ObjectStore, limit: RateLimit) -> None:
        super().__init__(inner)
        self._limit = limit

    async def create(self, key: str, chunks: Chunks) -> None:
        await self._limit.turn()
        await self.inner.create(key, chunks)

    async def get(self, key: str) -> bytes:
        await self._limit.turn()
        return await self.inner.get(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        await self._limit.turn()
        return await self.inner.get_ranges(key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._limit.turn()
        number = 0
        async for info in self.inner.list(prefix, start_after):
            number += 1
            yield info
            if number % PAGE_ROWS == 0:
                await self._limit.turn()

    async def delete(self, keys: Sequence[str]) -> None:
        await self._limit.turn()
        await self.inner.delete(keys)

    async def start_upload(self, key: str) -> Upload:
        await self._limit.turn()
        return _LimitUpload(await self.inner.start_upload(key), self._limit)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        await self._limit.turn()
        return await self.inner.list_uploads(prefix)

    async def abort_upload(self, upload: UploadInfo) -> None:
        await self._limit.turn()
        await self.inner.abort_upload(upload)

    async def date_ms(self) -> int:
        await self._limit.turn()
        return await self.inner.date_ms()


class _LimitUpload(Upload):
    def __init__(self, inner: Upload, limit: RateLimit) -> None:
        self._inner = inner
        self._limit = limit

    async def part(self, chunks: Chunks) -> None:
        await self._limit.turn()
        await self._inner.part(chunks)

    async def complete(self) -> None:
        await self._limit.turn()
        await self._inner.complete()

    async def abort(self) -> None:
        await self._limit.turn()
        await self._inner.abort()
