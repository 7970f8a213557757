"""Who goes first when requests wait: the log before uploads before compaction.

    slots    all of them: WAL      less a reserve: READ, UPLOAD      a quarter: COMPACTION

A slot is held for one request. The reserve keeps the log's next request from ever waiting for a
64 MiB part. Within a class, first come, first served.
"""

from __future__ import annotations

import asyncio
import builtins
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from enum import IntEnum

from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from .passing import PassingStore

PAGE_ROWS = 1000


class Priority(IntEnum):
    """Lower goes first. READ: a consumer is waiting."""

    WAL = 0
    READ = 1
    UPLOAD = 2
    COMPACTION = 3


class Slots:
    """A bounded number of requests at once, given out by priority."""

    def __init__(self, slots: int = 64) -> None:
        assert slots >= 4, slots
        reserve = max(1, slots // 8)
        self._bounds = {
            Priority.WAL: slots,
            Priority.READ: slots - reserve,
            Priority.UPLOAD: max(1, slots - 2 * reserve),
            Priority.COMPACTION: max(1, slots // 4),
        }
        self._held = dict.fromkeys(Priority, 0)
        self.held = 0
        self._waiting: dict[Priority, deque[asyncio.Future[None]]] = {p: deque() for p in Priority}
        self._queued = 0

    @property
    def waiting(self) -> int:
        return self._queued

    def slot(self, priority: Priority) -> _Slot:
        """To be held by `async with`, for one request."""
        return _Slot(self, priority)

    async def acquire(self, priority: Priority) -> None:
        if self._may_go(priority) and not (self._queued and any(self._ahead(priority))):
            self._take(priority)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(turn)
        self._queued += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # Granted and cancelled in the same moment: pass it on.
                self.release(priority)
            elif turn in self._waiting[priority]:  # else it was passed over meanwhile
                self._waiting[priority].remove(turn)
                self._queued -= 1
            raise

    def release(self, priority: Priority) -> None:
        self.held -= 1
        self._held[priority] -= 1
        if self._queued:
            self._grant()

    def _take(self, priority: Priority) -> None:
        self.held += 1
        self._held[priority] += 1

    def _ahead(self, priority: Priority) -> Iterator[bool]:
        """Is anybody waiting who goes first and could?"""
        for other in Priority:
            if other <= priority:
                yield bool(self._waiting[other]) and self._may_go(other)

    def _may_go(self, priority: Priority) -> bool:
        if priority is Priority.COMPACTION:
            # Its own bound is on what it holds itself; the rest is as for an upload.
            if self._held[priority] >= self._bounds[priority]:
                return False
            return self.held < self._bounds[Priority.UPLOAD]
        return self.held < self._bounds[priority]

    def _grant(self) -> None:
        for priority in Priority:
            queue = self._waiting[priority]
            while queue and self._may_go(priority):
                turn = queue.popleft()
                self._queued -= 1
                if not turn.done():
                    self._take(priority)
                    turn.set_result(None)


class _Slot:
    """(A class: a generator's context manager costs several times as much, at each request.)"""

    __slots__ = ("_priority", "_slots")

    def __init__(self, slots: Slots, priority: Priority) -> None:
        self._slots = slots
        self._priority = priority

    async def __aenter__(self) -> None:
        await self._slots.acquire(self._priority)

    async def __aexit__(self, *_: object) -> None:
        self._slots.release(self._priority)


class PriorityStore(PassingStore):
    """Requests of one class. `at` gives the same store for another class, on the same slots."""

    def __init__(
        self, inner: ObjectStore, slots: Slots, priority: Priority = Priority.READ
    ) -> None:
        super().__init__(inner)
        self._slots = slots
        self._priority = priority

    def at(self, priority: Priority) -> PriorityStore:
        """A view: closing it closes the store for all."""
        return PriorityStore(self.inner, self._slots, priority)

    async def create(self, key: str, chunks: Chunks) -> None:
        async with self._slots.slot(self._priority):
            await self.inner.create(key, chunks)

    async def get(self, key: str) -> bytes:
        async with self._slots.slot(self._priority):
            return await self.inner.get(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        async with self._slots.slot(self._priority):
            return await self.inner.get_ranges(key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        rows = self.inner.list(prefix, start_after)
        while True:
            page: builtins.list[ObjectInfo] = []
            # Not held between pages: the caller may take its time.
            async with self._slots.slot(self._priority):
                while len(page) < PAGE_ROWS and (info := await anext(rows, None)) is not None:
                    page.append(info)
            for info in page:
                yield info
            if len(page) < PAGE_ROWS:
                return

    async def delete(self, keys: Sequence[str]) -> None:
        async with self._slots.slot(self._priority):
            await self.inner.delete(keys)

    async def start_upload(self, key: str) -> Upload:
        async with self._slots.slot(self._priority):
            upload = await self.inner.start_upload(key)
        return _PriorityUpload(upload, self._slots, self._priority)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        async with self._slots.slot(self._priority):
            return await self.inner.list_uploads(prefix)

    async def abort_upload(self, upload: UploadInfo) -> None:
        async with self._slots.slot(self._priority):
            await self.inner.abort_upload(upload)


class _PriorityUpload(Upload):
    def __init__(self, inner: Upload, slots: Slots, priority: Priority) -> None:
        self._inner = inner
        self._slots = slots
        self._priority = priority

    async def part(self, chunks: Chunks) -> None:
        async with self._slots.slot(self._priority):
            await self._inner.part(chunks)

    async def complete(self) -> None:
        async with self._slots.slot(self._priority):
            await self._inner.complete()

    async def abort(self) -> None:
        async with self._slots.slot(self._priority):
            await self._inner.abort()
