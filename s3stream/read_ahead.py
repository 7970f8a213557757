"""Fetches what sequential readers of history will ask for next, before they ask.

A read that begins where an earlier one of the same stream ended is sequential; each one doubles
how far ahead of it blocks are fetched. Several readers of one stream each have a cursor, known by
the offset where it stands, so nobody needs to say who he is.

All windows together stay within a share of the block cache, divided by the readers at work: with a
thousand of them nobody reads ahead, and nobody's blocks push out another's before they were read.
Fetches go by a store of lower priority than those that a consumer waits for. A reader that has
not read for a while is taken for gone when another reads: no timer runs for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from objectstore.errors import StoreError
from objectstore.store import ObjectStore

from .object_reader import ObjectReader
from .refs import ObjectRange

FIRST_WINDOW_BYTES = 1 << 20
MAX_WINDOW_BYTES = 32 << 20
CURSORS = 1024
# Longer than a consumer's pause between two polls that is worth keeping its blocks for.
GONE_AFTER_S = 30.0

RangesFrom = Callable[[int], Sequence[ObjectRange]]
"""The ranges of a stream in objects, from the one that holds an offset on; [] where none does."""


class ReadAhead:
    """store: of a lower priority than the reader's own. total_bytes: for all windows together."""

    def __init__(
        self,
        reader: ObjectReader,
        store: ObjectStore,
        *,
        total_bytes: int,
        max_window_bytes: int = MAX_WINDOW_BYTES,
    ) -> None:
        self._reader = reader
        self._store = store
        self._total_bytes = total_bytes
        self._max_window_bytes = max_window_bytes
        self._cursors: OrderedDict[tuple[int, int], _Cursor] = OrderedDict()  # by last use
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._closed = False

    @property
    def ahead_bytes(self) -> int:
        """Fetched or being fetched, and not read yet (an estimate: whole blocks are fetched)."""
        return sum(cursor.ahead_bytes for cursor in self._cursors.values())

    def note_read(
        self,
        stream_id: int,
        offset: int,
        next_offset: int,
        served_bytes: int,
        ranges_from: RangesFrom,
    ) -> None:
        """A reader got [offset, next_offset) out of objects; the next one begins at next_offset."""
        if self._closed or next_offset <= offset:
            return
        now = asyncio.get_running_loop().time()
        cursor = self._cursors.pop((stream_id, offset), None)
        if cursor is None:
            cursor = _Cursor(stream_id, ahead_to=next_offset)
        else:
            cursor.window_bytes = min(
                self._max_window_bytes, max(FIRST_WINDOW_BYTES, cursor.window_bytes * 2)
            )
        cursor.last_used_s = now
        cursor.ahead_bytes = max(0, cursor.ahead_bytes - served_bytes)
        if cursor.ahead_to <= next_offset:
            cursor.ahead_to, cursor.ahead_bytes = next_offset, 0
        # Two readers at the same offset are one from here on: what is ahead serves both.
        if (other := self._cursors.pop((stream_id, next_offset), None)) is not None:
            if other.ahead_to > cursor.ahead_to:
                cursor, other = other, cursor
            cursor.last_used_s = now
            self._drop(other)
        self._cursors[(stream_id, next_offset)] = cursor
        self._forget_gone(now)
        self._start(cursor, ranges_from)

    def forget_stream(self, stream_id: int) -> None:
        """The stream is closed here, or nobody reads it any more."""
        for place in [place for place in self._cursors if place[0] == stream_id]:
            self._drop(self._cursors.pop(place))

    async def close(self) -> None:
        """Cancels what is under way. Idempotent."""
        self._closed = True
        self._cursors.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_gone(self, now: float) -> None:
        while self._cursors:
            oldest = next(iter(self._cursors))
            cursor = self._cursors[oldest]
            if len(self._cursors) <= CURSORS and now - cursor.last_used_s < GONE_AFTER_S:
                return
            self._drop(self._cursors.pop(oldest))

    def _drop(self, cursor: _Cursor) -> None:
        if cursor.task is not None:
            cursor.task.cancel()

    def _start(self, cursor: _Cursor, ranges_from: RangesFrom) -> None:
        share = self._total_bytes // len(self._cursors)
        window = min(cursor.window_bytes, share)
        if window < FIRST_WINDOW_BYTES or cursor.task is not None:
            return
        if cursor.ahead_bytes > window // 2:
            return
        cursor.task = asyncio.get_running_loop().create_task(
            self._fetch(cursor, window - cursor.ahead_bytes, ranges_from),
            name=f"read-ahead stream {cursor.stream_id}",
        )
        self._tasks[cursor.task] = None

        def ended(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            cursor.task = None

        cursor.task.add_done_callback(ended)

    async def _fetch(self, cursor: _Cursor, size_bytes: int, ranges_from: RangesFrom) -> None:
        ranges = ranges_from(cursor.ahead_to)
        if not ranges:
            return
        cursor.ahead_bytes += size_bytes
        try:
            cursor.ahead_to = await self._reader.prefetch(
                cursor.stream_id, ranges, cursor.ahead_to, size_bytes, self._store
            )
        except StoreError:
            # The reader meets it himself, if it is still there when he comes.
            cursor.ahead_bytes, cursor.window_bytes = 0, 0


@dataclass(slots=True, eq=False)
class _Cursor:
    """One reader's place. ahead_to: offset up to which blocks were fetched for it."""

    stream_id: int
    ahead_to: int
    window_bytes: int = 0
    ahead_bytes: int = 0
    last_used_s: float = 0.0
    task: asyncio.Task[None] | None = None
