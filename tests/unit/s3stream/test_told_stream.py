"""What was told of a stream that another broker leads."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from random import Random

import pytest

from objectstore.drivers.memory import MemoryStore
from s3stream.block_cache import BlockCache
from s3stream.errors import OffsetOutOfRange
from s3stream.object_reader import ObjectReader
from s3stream.read_ahead import ReadAhead
from s3stream.refs import ObjectRange, ObjectRef
from s3stream.told_stream import MOST_ADDED, ToldStream


def told_stream() -> ToldStream:
    store = MemoryStore(lambda: 0)
    reader = ObjectReader(store, BlockCache(1 << 20))
    return ToldStream(7, reader, ReadAhead(reader, store, total_bytes=0), lambda _: None)


def spans(*bounds: int) -> list[ObjectRange]:
    """Ranges without a gap between these offsets."""
    rng = Random(1)
    return [
        ObjectRange(
            ObjectRef(f"data/{low}", rng.randbytes(16), 100, 50, 20),
            low,
            high,
            10,
            high - low,
            1,
            0,
            0,
            0,
            low,
            bytes(16),
        )
        for low, high in pairwise(bounds)
    ]


def known(stream: ToldStream) -> list[tuple[int, int]]:
    assert stream._entry is not None
    return [(one.base_offset, one.end_offset) for one in stream._entry.ranges]


def test_nothing_is_known_before_it_was_told() -> None:
    stream = told_stream()
    assert (stream.high_watermark, stream.log_start_offset) == (-1, -1)
    assert not stream.tell_more(0, 5, spans(0, 5))
    stream.tell_whole(0, 0, [], [])
    assert (stream.high_watermark, stream.log_start_offset) == (0, 0)


def test_more_is_taken_only_where_it_follows_without_a_gap() -> None:
    stream = told_stream()
    stream.tell_whole(2, 10, [], spans(0, 4, 10))
    assert not stream.tell_more(8, 12, spans(8, 12)), "it was asked before the last came"
    assert not stream.tell_more(10, 15, spans(12, 15)), "a gap"
    assert not stream.tell_more(10, 15, spans(10, 14)), "an end beyond what is told"
    assert not stream.tell_more(10, 15, []), "records without a place"
    assert stream.high_watermark == 10 and known(stream) == [(0, 4), (4, 10)]
    assert stream.tell_more(10, 15, spans(10, 12, 15))
    assert stream.tell_more(15, 15, []), "the log start alone has moved"
    assert stream.high_watermark == 15
    assert known(stream) == [(0, 4), (4, 10), (10, 12), (12, 15)]


def test_neither_end_nor_start_goes_back_where_two_tellings_crossed() -> None:
    stream = told_stream()
    stream.tell_whole(5, 20, [], spans(0, 10, 20))
    stream.tell_whole(7, 15, [], spans(0, 15))
    assert (stream.high_watermark, stream.log_start_offset) == (20, 7)
    assert known(stream) == [(0, 10), (10, 20)]
    stream.tell_whole(3, 25, [], spans(0, 25))
    assert (stream.high_watermark, stream.log_start_offset) == (25, 7)
    assert known(stream) == [(0, 25)]


def test_what_is_trimmed_is_out_of_range_and_forgotten() -> None:
    stream = told_stream()
    stream.tell_whole(0, 20, [], spans(0, 10, 20))
    stream.trim(12)
    assert known(stream) == [(10, 20)]
    for offset in (11, 21):
        with pytest.raises(OffsetOutOfRange):
            asyncio.run(stream.fetch(offset, 30, 100))


def test_a_list_that_only_grew_is_to_be_told_anew() -> None:
    stream = told_stream()
    stream.tell_whole(0, 0, [], [])
    for offset in range(MOST_ADDED + 1):
        assert not stream.is_long
        assert stream.tell_more(offset, offset + 1, spans(offset, offset + 1))
    assert stream.is_long
    stream.tell_whole(0, MOST_ADDED + 1, [], spans(0, MOST_ADDED + 1))
    assert not stream.is_long
