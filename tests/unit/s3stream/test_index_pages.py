"""Entries as bytes, and which pages a checkpoint writes anew."""

from __future__ import annotations

import copy
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectstore.errors import Corrupt
from s3stream.control import Checkpoint, Dropped, Trimmed, decode_control, encode_control
from s3stream.entries import (
    AbortedTransaction,
    LargeBatch,
    PageRef,
    ProducerEntry,
    StreamEntry,
)
from s3stream.index_pages import decode_entries, delta_limit_bytes, encode_entries, rewrite, split
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import LargeBatchRef


def entry(stream_id: int, ranges: int = 2) -> StreamEntry:
    made = StreamEntry(stream_id, 3, (1, 2, 3), start_offset=min(4, 10 * ranges))
    for n in range(ranges):
        ref = ObjectRef(f"data/{n}", bytes([n]) * 16, 1000 + n, 900, 50)
        made.ranges.append(
            ObjectRange(ref, 10 * n, 10 * n + 10, 500, 10, 2, 0, 3, 99, 10 * n + 9, bytes(16))
        )
        made.total.add(made.ranges[-1])
        made.live.add(made.ranges[-1])
    made.next_offset = 10 * ranges
    made.uploaded_to = 10 * max(ranges - 1, 0)
    made.producers[7] = ProducerEntry(7, 1, [(0, 0, 5, 5, 77)], 77, 5, 2)
    made.aborted.append(AbortedTransaction(7, 1, 4))
    made.leader_epochs = [(0, 0), (3, 10)]
    made.large.append(LargeBatch(15, LargeBatchRef("data/large", bytes(16), 10)))
    return made


def test_entries_come_back_as_they_were() -> None:
    entries = [entry(1), entry(5, 0), entry(9, 30)]
    body = encode_entries(entries, gone=[2, 3])
    expected = copy.deepcopy(entries)
    for one in entries:
        one.ranges.clear()
        one.producers.clear()
    assert decode_entries(body, "page") == (expected, [2, 3])


def test_streams_of_one_upload_name_its_object_once() -> None:
    many = encode_entries([entry(n) for n in range(100)])
    assert many.count(b"data/0") == 1


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_flipped_and_cut_bytes_are_corrupt_or_harmless(rng: Random, flips: int) -> None:
    body = bytearray(encode_entries([entry(1), entry(2)]))
    for _ in range(flips):
        body[rng.randrange(len(body))] = rng.randrange(256)
    cut = bytes(body[: rng.choice((len(body), rng.randrange(len(body))))])
    try:
        entries, _ = decode_entries(cut, "the page")
    except Corrupt as error:
        assert "the page" in str(error)
    else:
        assert all(isinstance(one, StreamEntry) for one in entries)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder_of_control_records(data: bytes) -> None:
    for body in (data, b"\x01" + data):
        try:
            decode_control(body, "wal/1")
        except Corrupt as error:
            assert "wal/1" in str(error)


def test_control_records_come_back_and_unknown_ones_are_refused() -> None:
    for record in (
        Trimmed([(1, 5)]),
        Dropped([1, 2]),
        Checkpoint(7, 5, [PageRef("data/p", bytes(16), 10, 1, 9)], b"delta"),
    ):
        assert decode_control(encode_control(record), "x") == record
    newer = b"\x02" + encode_control(Dropped([1]))[1:]
    with pytest.raises(Corrupt, match="start the newer version"):
        decode_control(newer, "x")
    unknown = encode_control(Dropped([1])).replace(b"dropped", b"unheard")
    with pytest.raises(Corrupt, match="unreadable"):
        decode_control(unknown, "x")


def test_entries_with_a_gap_are_corrupt() -> None:
    gap = entry(4)
    del gap.ranges[0]
    gap.ranges.insert(0, entry(4, 1).ranges[0])
    assert decode_entries(encode_entries([gap]), "page")[0] == [gap]
    gap.ranges[1] = entry(4, 3).ranges[2]
    with pytest.raises(Corrupt, match="page: stream 4 has a range at 20, expected at 10"):
        decode_entries(encode_entries([gap]), "page")


@given(
    first=st.sets(st.integers(0, 60), min_size=1),
    rounds=st.lists(
        st.tuples(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60))), max_size=4
    ),
    streams=st.integers(1, 7),
)
def test_pages_together_always_hold_every_stream_as_it_is(
    first: set[int], rounds: list[tuple[set[int], set[int]]], streams: int
) -> None:
    bodies: dict[str, bytes] = {}
    entries = {n: StreamEntry(n, 0, (0, 0, 0)) for n in sorted(first)}
    pages: list[PageRef] = []
    changed = set(first)
    for epoch in range(len(rounds) + 1):
        kept, parts = rewrite(pages, entries, changed, streams=streams, size_bytes=1 << 20)
        assert all(page in pages for page in kept)
        for part in parts:
            key = f"data/{len(bodies)}"
            bodies[key] = part.body
            kept.append(PageRef(key, bytes(16), len(part.body), part.low, part.high))
        pages = sorted(kept, key=lambda page: page.low)
        assert all(a.high < b.low for a, b in pairwise(pages))
        found = [one for page in pages for one in decode_entries(bodies[page.key], page.key)[0]]
        assert found == [entries[n] for n in sorted(entries)]
        if epoch == len(rounds):
            break
        put, gone = rounds[epoch]
        for n in put:
            entries[n] = StreamEntry(n, epoch + 1, (0, 0, 0))
        for n in gone:
            entries.pop(n, None)
        changed = put | gone


def test_parts_are_bounded_by_streams_and_by_size() -> None:
    parts = list(split([entry(n, 20) for n in range(10)], 4, 1 << 30))
    assert [(one.low, one.high) for one in parts] == [(0, 3), (4, 7), (8, 9)]
    assert len(list(split([entry(n, 20) for n in range(10)], 100, 3000))) == 5
    assert list(split([], 4, 100)) == []


def test_a_delta_may_grow_with_the_pages() -> None:
    assert delta_limit_bytes([], 1000) == 1000
    assert delta_limit_bytes([PageRef("k", bytes(16), 80_000, 0, 1)], 1000) == 20_000
