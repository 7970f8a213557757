"""Recent batches in memory, and what they are charged."""

from __future__ import annotations

from s3stream.log_cache import BATCH_OVERHEAD_BYTES, CachedStream, LogCache
from wal.format import BatchEntry


def entry(stream_id: int, base: int, last: int, buffer: memoryview) -> BatchEntry:
    return BatchEntry(
        stream_id, base, last, 0, last - base + 1, 0, len(buffer), 0, -1, -1, -1, False, None,
        buffer, 0,
    )  # fmt: skip


class Filled:
    """Batches of two offsets and 100 bytes, each in a frame of its own."""

    def __init__(self, max_bytes: int) -> None:
        self.cache = LogCache(max_bytes)
        self.ends: dict[int, int] = {}
        self.seq = 0

    def add(self, stream_id: int, frame_bytes: int = 100) -> None:
        base = self.ends.get(stream_id, 0)
        self.ends[stream_id] = base + 2
        buffer = memoryview(bytearray(frame_bytes))[:100]
        self.cache.add(self.cache.stream(stream_id), entry(stream_id, base, base + 1, buffer))

    def seal(self, **counts: int) -> int:
        self.cache.seal(self.seq, {int(name[1:]): count for name, count in counts.items()})
        self.seq += 1
        return self.seq - 1

    def firsts(self, *stream_ids: int) -> list[int | None]:
        return [self.cache.stream(one).first_offset for one in stream_ids]


def test_the_batch_with_the_offset_comes_first_however_large() -> None:
    filled = Filled(1 << 20)
    for _ in range(5):
        filled.add(1)
    stream = filled.cache.stream(1)

    def bases(offset: int, end: int, max_bytes: int) -> list[int] | None:
        found = stream.read(offset, end, max_bytes)
        if found is None:
            return None
        first = stream.position(offset)
        assert first is not None
        assert all(a is b.buffer for a, b in zip(found, stream.entries[first:], strict=False))
        return stream.bases[first : first + len(found)]

    assert bases(3, 10, 1) == [2]
    assert bases(3, 10, 1000) == [2, 4, 6, 8]
    assert bases(0, 10, 299) == [0, 2]
    assert bases(0, 10, 300) == [0, 2, 4]
    assert bases(0, 5, 1000) == [0, 2]
    assert bases(0, 6, 1000) == [0, 2, 4]
    assert bases(10, 20, 1000) is None
    assert CachedStream().read(0, 10, 10) is None


def test_only_uploaded_segments_go_oldest_first_and_whole() -> None:
    charge = 100 + BATCH_OVERHEAD_BYTES
    filled = Filled(4 * charge)
    cache = filled.cache
    for stream_id in (1, 2, 1, 1, 2, 2):
        filled.add(stream_id)
    filled.seal(s1=1, s2=1)
    filled.seal(s1=2)
    assert cache.pinned_bytes == cache.total_bytes == 6 * charge
    assert cache.open_bytes == 2 * charge
    assert filled.firsts(1, 2) == [0, 0]
    cache.uploaded(0)
    assert (cache.pinned_bytes, cache.total_bytes) == (4 * charge, 4 * charge)
    assert filled.firsts(1, 2) == [2, 2]
    cache.uploaded(1)
    assert (cache.pinned_bytes, cache.total_bytes) == (2 * charge, 4 * charge)
    assert filled.firsts(1, 2) == [2, 2]
    filled.add(1)
    filled.seal(s2=2, s1=1)
    assert filled.firsts(1, 2) == [6, 2]
    assert cache.total_bytes == 3 * charge
    cache.uploaded(2)
    cache.shrink(0)
    assert (cache.pinned_bytes, cache.total_bytes, cache.open_bytes) == (0, 0, 0)
    assert filled.firsts(1, 2) == [None, None]


def test_what_no_upload_will_ask_for_may_go_unless_it_is_behind_what_one_will() -> None:
    charge = 100 + BATCH_OVERHEAD_BYTES
    filled = Filled(2 * charge)
    cache = filled.cache
    for _ in range(5):
        filled.add(1)
    cache.seal(0, {1: 1}, stays_home=True)
    assert (cache.pinned_bytes, filled.firsts(1)) == (4 * charge, [2])
    cache.seal(1, {1: 1})
    cache.seal(2, {1: 1}, stays_home=True)
    cache.seal(3, {1: 1}, stays_home=True)
    assert (cache.pinned_bytes, cache.total_bytes) == (4 * charge, 4 * charge)
    cache.uploaded(1)
    assert (cache.pinned_bytes, cache.total_bytes) == (charge, 2 * charge)
    assert filled.firsts(1) == [6]
    cache.seal(4, {1: 1}, stays_home=True)
    assert (cache.pinned_bytes, cache.total_bytes) == (0, 2 * charge)


def test_a_slice_is_charged_with_the_whole_frame_that_it_keeps_alive_once() -> None:
    cache = LogCache(1 << 20)
    frame = memoryview(bytearray(10_000))
    stream = cache.stream(1)
    for n in range(3):
        cache.add(stream, entry(1, n, n, frame[n * 100 : n * 100 + 100]))
    assert cache.total_bytes == 10_000 + 3 * BATCH_OVERHEAD_BYTES


def test_evicted_buffers_are_let_go() -> None:
    filled = Filled(0)
    for _ in range(200):
        filled.add(1)
        filled.cache.uploaded(filled.seal(s1=1))
    stream = filled.cache.stream(1)
    assert sum(len(one.buffer) for one in stream.entries) == 0
    assert len(stream.entries) < 100
    filled.add(1)
    assert stream.read(400, 402, 1) == [stream.entries[-1].buffer]


def test_a_dropped_stream_is_gone_for_readers_and_its_successor_is_not_evicted() -> None:
    filled = Filled(0)
    filled.add(1)
    first = filled.seal(s1=1)
    filled.cache.drop(1)
    assert filled.firsts(1) == [None]
    filled.add(1)
    filled.cache.uploaded(first)
    assert filled.firsts(1) == [2]
    assert filled.cache.stream(1).between(2, 4) == filled.cache.stream(1).entries


def test_between_gives_exactly_the_range_or_nothing() -> None:
    filled = Filled(1 << 20)
    for _ in range(4):
        filled.add(1)
    stream = filled.cache.stream(1)
    found = stream.between(2, 6)
    assert found is not None and [one.base_offset for one in found] == [2, 4]
    assert stream.between(6, 10) is None
