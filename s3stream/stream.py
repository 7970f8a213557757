"""One stream: an append-only sequence of batches with an epoch.

    start_offset <= high_watermark <= next_offset
    what is below the high watermark is durable; what is above is on its way

Recent batches come from the log cache, older ones from objects. What is durable is the registry's
entry, which the fold alone changes.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from objectstore.errors import Corrupt, NotFound
from protocol.record_batch import iter_headers, parse_header
from wal.format import BatchEntry

from .entries import StreamEntry
from .errors import OffsetOutOfRange, StreamClosed
from .log_cache import CachedStream
from .object_reader import ObjectReader
from .read_ahead import ReadAhead
from .refs import ObjectRange
from .spans import Aged, Span, spans_of_batches, spans_of_entries

if TYPE_CHECKING:
    from .node_log import StreamStorage

OnAdvance = Callable[["Stream"], None]
_WHOLE = 1 << 62
# Pieces of history that one read looks up and fetches together.
RANGES_AT_ONCE = 64


class Stream:
    """Made by `StreamStorage.open_streams`. on_advance: called after high watermark or start moved.

    The callbacks are called from the log's own path: they must be quick and must not raise.
    """

    def __init__(
        self,
        storage: StreamStorage,
        entry: StreamEntry,
        cached: CachedStream,
        reader: ObjectReader,
        read_ahead: ReadAhead,
    ) -> None:
        self._storage = storage
        self._cached = cached
        self._reader = reader
        self._read_ahead = read_ahead
        self.entry = entry
        self.stream_id = entry.stream_id
        self.next_offset = entry.next_offset
        self.closing = False
        self.on_advance: list[OnAdvance] = []
        self._last_append: asyncio.Future[int] | None = None

    @property
    def epoch(self) -> int:
        return self.entry.epoch

    @property
    def start_offset(self) -> int:
        return self.entry.start_offset

    @property
    def high_watermark(self) -> int:
        """End of the durable contiguous prefix; never goes back."""
        return self.entry.next_offset

    @property
    def size_bytes(self) -> int:
        """Of what lies at or above the start offset; of the range that holds it an estimate, by
        the share of the offsets.
        """
        entry = self.entry
        size = entry.live.size_bytes
        for one in entry.history or entry.ranges:
            below = min(entry.start_offset, one.end_offset) - one.base_offset
            if below <= 0:
                break
            size -= one.size_bytes * below // (one.end_offset - one.base_offset)
        return size

    # Appending

    def append(self, entry: BatchEntry) -> asyncio.Future[int]:
        """Take a batch that begins at `next_offset`; the future of the log object it will be in.

        The batch's base offset and leader epoch are set in its buffer, which is not copied: it must
        not change any more. Raises StreamClosed, Fenced or LogClosed; then nothing was taken.
        """
        if self.closing:
            raise StreamClosed(f"stream {self.stream_id}: closed here")
        assert entry.base_offset == self.next_offset, (entry.base_offset, self.next_offset)
        assert entry.stream_id == self.stream_id, (entry.stream_id, self.stream_id)
        assert entry.leader_epoch == self.entry.epoch, (entry.leader_epoch, self.entry.epoch)
        future = self._storage.append_batch(entry, self._cached)
        self.next_offset = entry.last_offset + 1
        self._last_append = future
        return future

    async def drained(self) -> None:
        """Until everything appended so far is durable. Raises Fenced or LogClosed."""
        last = self._last_append
        if last is not None:
            await last

    # Reading

    def fetch_cached(self, offset: int, end_offset: int, max_bytes: int) -> list[memoryview] | None:
        """As `fetch`, at once, from memory alone; None when `offset` is not in memory."""
        end = min(end_offset, self.entry.next_offset)
        if offset >= end:
            return []
        if offset < self.entry.start_offset:
            return None
        return self._cached.read(offset, end, max_bytes)

    async def fetch(
        self, offset: int, end_offset: int, max_bytes: int, within_s: float | None = None
    ) -> list[memoryview]:
        """Durable batches in order without a gap, from the one that contains `offset` on.

        Each view holds one or more whole batches. Stops before the first batch that ends above
        `end_offset`, and before `max_bytes` are exceeded; neither holds the first batch back.
        [] when there is nothing in [offset, end_offset).
        within_s: after so long what was found is enough: where history lies in many small pieces,
        all that was asked for may take longer than who asks waits.
        Raises OffsetOutOfRange, Corrupt (naming stream and offset where batches are missing), or
        what the store raises.
        """
        self._storage.touch()
        self._check_in_range(offset)
        found: list[memoryview] = []
        left = max_bytes
        position = offset
        loop = asyncio.get_running_loop()
        enough_at = math.inf if within_s is None else loop.time() + within_s
        while position < (end := min(end_offset, self.entry.next_offset)):
            if found and (left <= 0 or position < self.entry.start_offset):
                break
            if found and (loop.time() >= enough_at or left < parse_header(found[-1]).size_bytes):
                # (The next batch is most likely as large: not worth a wait for the store.)
                break
            batches = self._cached.read(position, end, left)
            if batches is None:
                batches, position = await self._fetch_stored(position, end, left, first=not found)
            elif found and (len(batches[0]) > left or _next_offset(batches[0]) > end):
                break
            else:
                position = _next_offset(batches[-1])
            if not batches:
                break
            found += batches
            left -= sum(map(len, batches))
        return found

    async def _fetch_stored(
        self, offset: int, end_offset: int, max_bytes: int, *, first: bool
    ) -> tuple[list[memoryview], int]:
        """(batches, offset behind them)."""
        for attempt in range(3):
            cached_from = self._cached.first_offset
            until = end_offset
            if cached_from is not None and offset < cached_from:
                until = min(until, cached_from)
            if not first and max_bytes <= 0:
                return [], offset
            ranges: list[ObjectRange] = []
            try:
                ranges = await self.ranges_at(offset, until)
                if not ranges or ranges[0].base_offset > offset:
                    self._check_in_range(offset)
                    raise Corrupt(f"stream {self.stream_id}: nothing is stored for offset {offset}")
                ranges = ranges[:RANGES_AT_ONCE]
                until = min(until, ranges[-1].end_offset)
                batches, next_offset = await self._reader.read_run(
                    self.stream_id, ranges, offset, until, max_bytes, first=first
                )
                if not batches and first:
                    # The batch with `offset` goes on beyond the end that was asked for.
                    batches, next_offset = await self._reader.read_run(
                        self.stream_id, ranges, offset, ranges[-1].end_offset, 1
                    )
            except NotFound:
                # Compacted away between look-up and read, perhaps: look where it lies now.
                self._check_in_range(offset)
                if attempt == 2 or (ranges and await self.ranges_at(offset, until) == ranges):
                    raise
                continue
            if not batches:
                return [], offset
            size_bytes = sum(map(len, batches))
            self._storage.read_from_store(size_bytes)
            self._read_ahead.note_read(
                self.stream_id, offset, next_offset, size_bytes, self._stored_from
            )
            return batches, next_offset
        raise AssertionError("unreachable")

    async def ranges_at(self, offset: int, end_offset: int) -> list[ObjectRange]:
        """Those that overlap [offset, end_offset), from the one that holds `offset` on; at the end
        of an index object of the history perhaps not all.

        Asks the store for that index object at most. Raises as `ObjectReader.history`.
        """
        archived = self.entry.archived(offset)
        if archived is None:
            return self.entry.ranges_between(offset, end_offset)
        return _between(await self.history_of(archived), offset, end_offset)

    async def history_of(self, archived: ObjectRange) -> list[ObjectRange]:
        """The ranges that one of the entry's history stands for; raises as `ranges_at`."""
        return await self._reader.history(archived, self.stream_id)

    def _stored_from(self, offset: int) -> list[ObjectRange]:
        """The ranges from `offset` on that the log cache does not have."""
        archived = self.entry.archived(offset)
        if archived is not None:
            known = self._reader.known_history(archived)
            return _between(known, offset, archived.end_offset) if known is not None else []
        cached_from = self._cached.first_offset
        end = self.entry.next_offset if cached_from is None else cached_from
        return self.entry.ranges_between(offset, end) if offset < end else []

    def _check_in_range(self, offset: int) -> None:
        entry = self.entry
        if not entry.start_offset <= offset <= entry.next_offset:
            raise OffsetOutOfRange(self.stream_id, offset, entry.start_offset, entry.next_offset)

    # By time

    async def find_batch_by_timestamp(
        self, timestamp_ms: int, from_offset: int = 0
    ) -> memoryview | None:
        """The first durable batch at or after `from_offset` whose maximum timestamp is
        `timestamp_ms` or later.
        """
        offset = from_offset
        while True:
            offset = max(self.start_offset, offset)
            entry = self.entry
            archived = _late_enough(entry.history, offset, timestamp_ms)
            one = archived or _late_enough(entry.ranges, offset, timestamp_ms)
            if one is None:
                return None
            named = one
            try:
                if archived is not None:
                    within = await self.history_of(archived)
                    one = _late_enough(within, offset, timestamp_ms)
                    if one is None:
                        # Only what lies below the start was late enough.
                        offset = archived.end_offset
                        continue
                batch = await self._first_of(one, offset, timestamp_ms)
            except OffsetOutOfRange:
                continue  # trimmed meanwhile
            except NotFound:
                if named in (entry.ranges if archived is None else entry.history):
                    raise
                continue  # compacted away meanwhile
            if batch is not None:
                return batch
            # Only what was trimmed of that range was late enough.
            offset = one.end_offset

    async def _first_of(
        self, one: ObjectRange, offset: int, timestamp_ms: int
    ) -> memoryview | None:
        for narrow in await self.parts_of(one):
            if narrow.max_timestamp < timestamp_ms or narrow.end_offset <= offset:
                continue
            start = max(narrow.base_offset, offset)
            batch = await self._first_in(start, narrow.end_offset, timestamp_ms)
            if batch is not None:
                return batch
        return None

    async def max_timestamp(self) -> tuple[int, int, memoryview] | None:
        """(timestamp, last offset of the first batch that has it, that batch); None when empty."""
        while True:
            try:
                return await self._max_timestamp(self.start_offset)
            except OffsetOutOfRange:
                continue  # trimmed meanwhile

    async def _max_timestamp(self, start: int) -> tuple[int, int, memoryview] | None:
        best: tuple[int, int] | None = None
        left = [*self.entry.history, *self.entry.ranges][::-1]
        while left:
            one = left.pop()
            if one.end_offset <= start or (best is not None and one.max_timestamp <= best[0]):
                continue
            if one.max_timestamp_offset >= start:
                best = (one.max_timestamp, one.max_timestamp_offset)
                continue
            if one in self.entry.history:
                left += (await self.history_of(one))[::-1]
                continue
            for view in await self.fetch(start, one.end_offset, _WHOLE):
                for _, header in iter_headers(view):
                    if best is None or header.max_timestamp > best[0]:
                        best = (header.max_timestamp, header.last_offset)
        if best is None:
            return None
        batches = await self.fetch(best[1], best[1] + 1, 1)
        return best[0], best[1], batches[0]

    async def parts_of(self, one: ObjectRange) -> Sequence[Aged]:
        """The blocks of one of its ranges, by offset; its batches where they are in memory.

        Asks the store for the object's index at most, and is nothing that a client does. Raises
        NotFound (merged or trimmed meanwhile, or missing), Corrupt, or what else the store raises.
        """
        cached = self._cached.between(one.base_offset, one.end_offset)
        if cached is not None:
            return spans_of_entries(cached)
        return [
            part
            for part in await self._reader.stream_ranges(one.object, self.stream_id)
            if one.base_offset <= part.base_offset and part.end_offset <= one.end_offset
        ]

    async def batches_of(self, one: ObjectRange, base_offset: int, end_offset: int) -> list[Span]:
        """The batches of a part of one of its ranges; errors as of `parts_of`."""
        cached = self._cached.between(base_offset, end_offset)
        if cached is not None:
            return spans_of_entries(cached)
        views = await self._reader.read_stream(
            self.stream_id, [one], base_offset, end_offset, _WHOLE
        )
        return spans_of_batches(views)

    async def _first_in(self, start: int, end: int, timestamp_ms: int) -> memoryview | None:
        for view in await self.fetch(start, end, _WHOLE):
            for position, header in iter_headers(view):
                if header.max_timestamp >= timestamp_ms:
                    return view[position : position + header.size_bytes]
        return None

    # Trimming and closing

    def trim(self, new_start_offset: int) -> asyncio.Future[int]:
        """Forget what is below; the future resolves when the record of it is durable.

        new_start_offset: at most the high watermark (OffsetOutOfRange else); one that is not above
        the start offset changes nothing. Raises StreamClosed, Fenced or LogClosed.
        """
        if self.closing:
            raise StreamClosed(f"stream {self.stream_id}: closed here")
        if not 0 <= new_start_offset <= self.high_watermark:
            raise OffsetOutOfRange(
                self.stream_id, new_start_offset, self.start_offset, self.high_watermark
            )
        return self._storage.trim_streams([(self.stream_id, new_start_offset)])

    def advanced(self) -> None:
        """The fold changed the entry."""
        for callback in self.on_advance:
            callback(self)


def _between(ranges: Sequence[ObjectRange], offset: int, end_offset: int) -> list[ObjectRange]:
    first = bisect_right(ranges, offset, key=_end_offset)
    return [one for one in ranges[first:] if one.base_offset < end_offset]


def _late_enough(
    ranges: Sequence[ObjectRange], offset: int, timestamp_ms: int
) -> ObjectRange | None:
    """The first that reaches beyond `offset` and has a batch of that time or later."""
    for one in ranges[bisect_right(ranges, offset, key=_end_offset) :]:
        if one.max_timestamp >= timestamp_ms:
            return one
    return None


def _end_offset(one: ObjectRange) -> int:
    return one.end_offset


def _next_offset(batch: memoryview) -> int:
    """Behind the one batch of a view out of the log cache."""
    return parse_header(batch).next_offset
