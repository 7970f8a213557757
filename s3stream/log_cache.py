"""Recent batches of every stream in memory, as the slices of the frames that brought them.

    add     a batch that was appended, not durable yet
    seal    the batches of one durable log object become a segment
    upload  segments up to a sequence number may go; until then they are pinned, unless their
            object is to stay where it is: an upload will not ask for them

The oldest segments go first and whole, once they may, when the bytes exceed the bound. So each
stream has a contiguous run of its newest batches here, found by bisection; and what lies behind a
pinned segment is as good as pinned.

Bytes charged are those really kept alive: a slice keeps its whole frame, counted once for each
object that the frame's batches went into, and every batch costs its bookkeeping.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

from wal.format import BatchEntry

# A BatchEntry, its memoryview and its places in two lists.
BATCH_OVERHEAD_BYTES = 512
_COMPACT_AT = 64


class CachedStream:
    """One stream's run of batches; `head` is how many were evicted from the lists' front."""

    __slots__ = ("bases", "entries", "head")

    def __init__(self) -> None:
        self.bases: list[int] = []
        self.entries: list[BatchEntry] = []
        self.head = 0

    @property
    def first_offset(self) -> int | None:
        """None when nothing is cached."""
        return self.bases[self.head] if self.head < len(self.bases) else None

    def position(self, offset: int) -> int | None:
        """Place of the batch that contains `offset`; None when it is not here."""
        found = bisect_right(self.bases, offset, self.head) - 1
        if found < self.head or self.entries[found].last_offset < offset:
            return None
        return found

    def read(self, offset: int, end_offset: int, max_bytes: int) -> list[memoryview] | None:
        """Whole batches from the one that contains `offset` on, at least one; None: not here.

        Stops before the first that ends above `end_offset` and before `max_bytes` are exceeded;
        neither holds the first one back.
        """
        position = self.position(offset)
        if position is None:
            return None
        entries = self.entries
        entry = entries[position]
        found = [entry.buffer]
        left = max_bytes - entry.size_bytes
        position += 1
        while left > 0 and position < len(entries):
            entry = entries[position]
            left -= entry.size_bytes
            if left < 0 or entry.last_offset >= end_offset:
                break
            found.append(entry.buffer)
            position += 1
        return found

    def between(self, base_offset: int, end_offset: int) -> list[BatchEntry] | None:
        """The batches that make up exactly [base_offset, end_offset); None: not all are here."""
        first = self.position(base_offset)
        last = self.position(end_offset - 1)
        if first is None or last is None:
            return None
        return self.entries[first : last + 1]

    def _append(self, entry: BatchEntry) -> None:
        self.bases.append(entry.base_offset)
        self.entries.append(entry)

    def _evict(self, count: int) -> None:
        head = self.head
        # The buffers must go at once, the places in the lists may stay a while.
        if head + count >= _COMPACT_AT and 2 * (head + count) >= len(self.bases):
            del self.bases[: head + count]
            del self.entries[: head + count]
            self.head = 0
            return
        self.entries[head : head + count] = [_EVICTED] * count
        self.head = head + count


@dataclass(slots=True)
class _Segment:
    seq: int
    charged_bytes: int
    stays_home: bool
    parts: list[tuple[CachedStream, int]]


class LogCache:
    """max_bytes: what eviction keeps the whole below, as far as it is not pinned."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._streams: dict[int, CachedStream] = {}
        # Oldest first: those that may go, then the first that may not and all after it.
        self._free: deque[_Segment] = deque()
        self._pinned: deque[_Segment] = deque()
        self._uploaded_seq = -1
        self._open_count = 0
        self._open_bytes = 0
        self._frames: dict[int, object] = {}
        self._pinned_bytes = 0
        self._total_bytes = 0

    @property
    def pinned_bytes(self) -> int:
        """Cannot be evicted: not uploaded yet, durable or not, or behind what is not."""
        return self._pinned_bytes

    @property
    def open_bytes(self) -> int:
        """Not durable yet; a part of what is pinned."""
        return self._open_bytes

    @property
    def total_bytes(self) -> int:
        return self._total_bytes

    def stream(self, stream_id: int) -> CachedStream:
        found = self._streams.get(stream_id)
        if found is None:
            found = self._streams[stream_id] = CachedStream()
        return found

    def drop(self, stream_id: int) -> None:
        """Readers find nothing of it from now on; its bytes go with their segments."""
        self._streams.pop(stream_id, None)

    def add(self, stream: CachedStream, entry: BatchEntry) -> None:
        """entry: appended to the log just now, and directly behind the stream's last."""
        stream._append(entry)
        charge = BATCH_OVERHEAD_BYTES
        frame = entry.buffer.obj
        identity = id(frame)
        if identity not in self._frames:
            self._frames[identity] = frame  # kept, so that no other object gets its id
            charge += memoryview(frame).nbytes
        self._open_count += 1
        self._open_bytes += charge
        self._pinned_bytes += charge
        self._total_bytes += charge

    def seal(self, seq: int, counts: dict[int, int], *, stays_home: bool = False) -> None:
        """The oldest batches that are in no segment are durable in the log's object `seq`.

        counts: how many of each stream. stays_home: no upload will copy them.
        """
        count = sum(counts.values())
        assert count <= self._open_count, (seq, count, self._open_count)
        # Objects are cut in the order of the appends: shares need no look at each batch.
        charged = self._open_bytes
        if count < self._open_count:
            charged = charged * count // self._open_count
        self._open_count -= count
        self._open_bytes -= charged
        self._frames.clear()
        if count:
            parts = [(self.stream(stream_id), number) for stream_id, number in counts.items()]
            self._pinned.append(_Segment(seq, charged, stays_home, parts))
            self._unpin()

    def uploaded(self, seq: int) -> None:
        """Segments up to and including the log's object `seq` are needed no more."""
        self._uploaded_seq = max(self._uploaded_seq, seq)
        self._unpin()

    def _unpin(self) -> None:
        pinned = self._pinned
        while pinned and (pinned[0].stays_home or pinned[0].seq <= self._uploaded_seq):
            segment = pinned.popleft()
            self._pinned_bytes -= segment.charged_bytes
            self._free.append(segment)
        self._make_room()

    def shrink(self, max_bytes: int) -> None:
        """Evict down to `max_bytes` now, as far as may be; the bound stays as it is."""
        self._make_room(max_bytes)

    def _make_room(self, max_bytes: int | None = None) -> None:
        bound = self.max_bytes if max_bytes is None else max_bytes
        while self._total_bytes > bound and self._free:
            segment = self._free.popleft()
            self._total_bytes -= segment.charged_bytes
            for stream, count in segment.parts:
                stream._evict(count)


_EVICTED = BatchEntry(
    -1, -1, -1, -1, 0, -1, 0, 0, -1, -1, -1, False, None, memoryview(b""), -1, None
)
