"""What a store is asked, how long it takes, and what that would cost at AWS."""

from __future__ import annotations

import asyncio
import builtins
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from ..errors import NotFound, PreconditionFailed, StoreError
from ..ranges import merge_ranges
from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from .passing import PassingStore

# S3 Standard, us-east-1, dollars per request: PUT, POST and LIST; GET and HEAD; DELETE is free.
# Source: aws.amazon.com/s3/pricing, "Requests & data retrievals".
WRITE_DOLLARS = 0.005 / 1000
READ_DOLLARS = 0.0004 / 1000
PRICES = {
    "create": WRITE_DOLLARS,
    "get": READ_DOLLARS,
    "list": WRITE_DOLLARS,
    "delete": 0.0,
    "start_upload": WRITE_DOLLARS,
    "part": WRITE_DOLLARS,
    "complete": WRITE_DOLLARS,
    "abort": 0.0,
    "list_uploads": WRITE_DOLLARS,
    "date": READ_DOLLARS,
}
LATENCY_BOUNDS_S = tuple(0.0005 * 2**n for n in range(16))
"""Upper bounds of the histogram, 0.5 ms to 16 s; what is slower counts in one bucket more."""
PAGE_ROWS = 1000


@dataclass
class OperationCount:
    """One operation since the start. latency_buckets: one more than `LATENCY_BOUNDS_S`."""

    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    latency_buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))

    def copy(self) -> OperationCount:
        return OperationCount(
            self.requests,
            dict(self.errors),
            self.bytes_sent,
            self.bytes_received,
            self.seconds,
            [*self.latency_buckets],
        )


@dataclass(frozen=True)
class MeterSnapshot:
    """Counts by operation (the keys of `PRICES`), and their price in dollars."""

    operations: dict[str, OperationCount]
    dollars: float

    @property
    def requests(self) -> int:
        return sum(count.requests for count in self.operations.values())


class RequestMeter:
    """Plain counters, which only grow; any number of stores may share one."""

    def __init__(self) -> None:
        self.operations = {name: OperationCount() for name in PRICES}

    def snapshot(self) -> MeterSnapshot:
        """A copy of now."""
        copies = {name: count.copy() for name, count in self.operations.items()}
        dollars = sum(PRICES[name] * count.requests for name, count in copies.items())
        return MeterSnapshot(copies, dollars)

    def timed(self, name: str, requests: int = 1) -> _Timed:
        """Count a call of `requests` requests; errors by class (a lost race and a 404 as well)."""
        return _Timed(self.operations[name], requests)


class _Timed:
    """(A class: a generator's context manager costs several times as much, at each request.)"""

    __slots__ = ("_count", "_loop", "_requests", "_started_s")

    def __init__(self, count: OperationCount, requests: int) -> None:
        self._count = count
        self._requests = requests

    def __enter__(self) -> OperationCount:
        self._loop = asyncio.get_running_loop()
        self._started_s = self._loop.time()
        self._count.requests += self._requests
        return self._count

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        count = self._count
        if error is not None:
            if not isinstance(error, StoreError):
                return
            name = type(error).__name__
            count.errors[name] = count.errors.get(name, 0) + 1
            if not isinstance(error, NotFound | PreconditionFailed):
                return
        elapsed_s = self._loop.time() - self._started_s
        count.seconds += elapsed_s
        count.latency_buckets[bisect_left(LATENCY_BOUNDS_S, elapsed_s)] += 1


class MeterStore(PassingStore):
    """Put it next to the driver, below retries and hedges, so that it sees every request."""

    def __init__(self, inner: ObjectStore, meter: RequestMeter) -> None:
        super().__init__(inner)
        self.meter = meter

    async def create(self, key: str, chunks: Chunks) -> None:
        with self.meter.timed("create") as count:
            count.bytes_sent += _size(chunks)
            await self.inner.create(key, chunks)

    async def get(self, key: str) -> bytes:
        with self.meter.timed("get") as count:
            data = await self.inner.get(key)
            count.bytes_received += len(data)
            return data

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        # Drivers read neighbouring ranges in one request.
        with self.meter.timed("get", len(merge_ranges(ranges))) as count:
            found = await self.inner.get_ranges(key, ranges)
            count.bytes_received += sum(map(len, found))
            return found

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        rows = self.inner.list(prefix, start_after)
        number = 0
        while True:
            # One request brings a page; the time of its first row is the time of the request.
            if number % PAGE_ROWS == 0:
                with self.meter.timed("list"):
                    info = await anext(rows, None)
            else:
                info = await anext(rows, None)
            if info is None:
                return
            number += 1
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        with self.meter.timed("delete", -(-len(keys) // PAGE_ROWS)):
            await self.inner.delete(keys)

    async def start_upload(self, key: str) -> Upload:
        with self.meter.timed("start_upload"):
            return _MeterUpload(await self.inner.start_upload(key), self.meter)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        with self.meter.timed("list_uploads"):
            return await self.inner.list_uploads(prefix)

    async def abort_upload(self, upload: UploadInfo) -> None:
        with self.meter.timed("abort"):
            await self.inner.abort_upload(upload)

    async def date_ms(self) -> int:
        with self.meter.timed("date"):
            return await self.inner.date_ms()


class _MeterUpload(Upload):
    def __init__(self, inner: Upload, meter: RequestMeter) -> None:
        self._inner = inner
        self._meter = meter

    async def part(self, chunks: Chunks) -> None:
        with self._meter.timed("part") as count:
            count.bytes_sent += _size(chunks)
            await self._inner.part(chunks)

    async def complete(self) -> None:
        with self._meter.timed("complete"):
            await self._inner.complete()

    async def abort(self) -> None:
        with self._meter.timed("abort"):
            await self._inner.abort()


def _size(chunks: Chunks) -> int:
    return sum([memoryview(chunk).nbytes for chunk in chunks])
