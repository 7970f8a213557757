"""A stream that another broker leads, read by the ranges that its leader told.

Nothing here is referred to from anywhere: an object may have been let go of and deleted since it
was told. Who meets NotFound, or an object that is not the one that was named (Corrupt: the key of
a trimmed log object is free for another), has the whole told anew, then reads again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from objectstore.errors import Corrupt, NotFound

from .entries import StreamEntry
from .errors import OffsetOutOfRange
from .object_reader import ObjectReader
from .read_ahead import ReadAhead
from .refs import ObjectRange
from .stream import RANGES_AT_ONCE

# A reader's part of the list grows by a range for each log object, where the leader's shrinks with
# every upload and merge: after so many the whole is told anew.
MOST_ADDED = 512


class ToldStream:
    """on_read: is told how many bytes a client was given.

    high_watermark: up to where the ranges go; -1: nothing was told yet.
    """

    def __init__(
        self,
        stream_id: int,
        reader: ObjectReader,
        read_ahead: ReadAhead,
        on_read: Callable[[int], None],
    ) -> None:
        self.stream_id = stream_id
        self._reader = reader
        self._read_ahead = read_ahead
        self._on_read = on_read
        self._entry: StreamEntry | None = None
        self._added = 0

    @property
    def high_watermark(self) -> int:
        return -1 if self._entry is None else self._entry.next_offset

    @property
    def log_start_offset(self) -> int:
        return -1 if self._entry is None else self._entry.start_offset

    @property
    def is_long(self) -> bool:
        """So much was added that the whole is better told anew."""
        return self._added > MOST_ADDED

    def tell_whole(
        self,
        start_offset: int,
        end_offset: int,
        history: Sequence[ObjectRange],
        ranges: Sequence[ObjectRange],
    ) -> None:
        """Offsets never go back: of two tellings that crossed, the further one is right."""
        start_offset = max(start_offset, self.log_start_offset)
        if end_offset < self.high_watermark:
            self.trim(start_offset)
            return
        self._entry = StreamEntry(
            self.stream_id,
            0,
            (0, 0, 0),
            start_offset=start_offset,
            next_offset=end_offset,
            ranges=list(ranges),
            history=list(history),
        )
        self._added = 0

    def tell_more(self, since: int, end_offset: int, ranges: Sequence[ObjectRange]) -> bool:
        """Ranges that follow what is known; False where they do not, and nothing was taken."""
        entry = self._entry
        if entry is None or since != entry.next_offset:
            return False
        if ranges and (ranges[0].base_offset != since or ranges[-1].end_offset != end_offset):
            return False
        if not ranges and end_offset != since:
            return False
        entry.ranges.extend(ranges)
        entry.next_offset = end_offset
        self._added += len(ranges)
        return True

    def trim(self, start_offset: int) -> None:
        """What lies below is gone."""
        entry = self._entry
        if entry is None or start_offset <= entry.start_offset:
            return
        entry.start_offset = start_offset
        gone = entry.first_range(start_offset)
        if gone and not entry.history:
            del entry.ranges[:gone]

    async def fetch(
        self, offset: int, end_offset: int, max_bytes: int, within_s: float | None = None
    ) -> list[memoryview]:
        """As `Stream.fetch`, of what was told.

        Raises OffsetOutOfRange, NotFound and Corrupt (see the module), or what the store raises.
        """
        self._check_in_range(offset)
        loop = asyncio.get_running_loop()
        enough_at = math.inf if within_s is None else loop.time() + within_s
        found: list[memoryview] = []
        left, position = max_bytes, offset
        while position < (end := min(end_offset, self.high_watermark)):
            if found and (left <= 0 or position < self.log_start_offset):
                break
            if found and loop.time() >= enough_at:
                break
            try:
                batches, next_offset = await self._fetch_run(position, end, left, first=not found)
            except (NotFound, Corrupt):
                if found:
                    break  # whoever asks next for what follows meets it first
                raise
            if not batches:
                break
            size_bytes = sum(map(len, batches))
            self._on_read(size_bytes)
            self._read_ahead.note_read(
                self.stream_id, position, next_offset, size_bytes, self._ranges_from
            )
            found += batches
            left -= size_bytes
            position = next_offset
        return found

    async def _fetch_run(
        self, offset: int, end_offset: int, max_bytes: int, *, first: bool
    ) -> tuple[list[memoryview], int]:
        ranges = (await self._ranges_at(offset, end_offset))[:RANGES_AT_ONCE]
        if not ranges or ranges[0].base_offset > offset:
            self._check_in_range(offset)
            raise Corrupt(f"stream {self.stream_id}: no range was told for offset {offset}")
        until = min(end_offset, ranges[-1].end_offset)
        batches, next_offset = await self._reader.read_run(
            self.stream_id, ranges, offset, until, max_bytes
        )
        if not batches and first:
            # The batch with `offset` goes on beyond the end that was asked for.
            batches, next_offset = await self._reader.read_run(
                self.stream_id, ranges, offset, ranges[-1].end_offset, 1
            )
        if not batches or (not first and len(batches[0]) > max_bytes):
            return [], offset
        return batches, next_offset

    async def _ranges_at(self, offset: int, end_offset: int) -> list[ObjectRange]:
        entry = self._entry
        assert entry is not None, self.stream_id
        archived = entry.archived(offset)
        if archived is None:
            return entry.ranges_between(offset, end_offset)
        within = await self._reader.history(archived, self.stream_id)
        return [one for one in within if offset < one.end_offset and one.base_offset < end_offset]

    def _ranges_from(self, offset: int) -> list[ObjectRange]:
        entry = self._entry
        if entry is None or offset >= entry.next_offset:
            return []
        archived = entry.archived(offset)
        if archived is None:
            return entry.ranges_between(offset, entry.next_offset)
        known = self._reader.known_history(archived)
        return [] if known is None else [one for one in known if offset < one.end_offset]

    def _check_in_range(self, offset: int) -> None:
        if not self.log_start_offset <= offset <= self.high_watermark:
            raise OffsetOutOfRange(
                self.stream_id, offset, self.log_start_offset, self.high_watermark
            )
