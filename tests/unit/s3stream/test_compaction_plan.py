from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from s3stream.compaction import (
    CompactionConfig,
    ObjectUse,
    object_uses,
    plan_compaction,
    space_amplification,
)
from s3stream.compaction.plan import mostly_trimmed, without
from s3stream.entries import StreamEntry
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import HEADER_SIZE
from wal.keys import data_key

MIB = 1 << 20
CONFIG = CompactionConfig()


def ref(n: int, size_bytes: int) -> ObjectRef:
    """size_bytes: of all batches in it."""
    position = HEADER_SIZE + size_bytes
    return ObjectRef(data_key(1, n), Random(n).randbytes(16), position + 200, position, 152)


def span(one: ObjectRef, base: int, end: int, size_bytes: int) -> ObjectRange:
    return ObjectRange(one, base, end, size_bytes, end - base, 1, 0, 0, 0, end - 1, bytes(16))


def streams(objects: list[tuple[int, dict[int, int]]]) -> dict[int, StreamEntry]:
    """objects: (dead bytes, {stream id: bytes in it}) in order; ten offsets for each range."""
    entries: dict[int, StreamEntry] = {}
    for n, (dead, held) in enumerate(objects):
        one = ref(n, dead + sum(held.values()))
        for stream_id, size in held.items():
            entry = entries.setdefault(stream_id, StreamEntry(stream_id, 0, (0, 0, 0), ranges=[]))
            entry.ranges.append(span(one, entry.next_offset, entry.next_offset + 10, size))
            entry.next_offset += 10
            entry.uploaded_to = entry.next_offset
    return entries


def uses_of(objects: list[tuple[int, dict[int, int]]]) -> list[ObjectUse]:
    return object_uses(streams(objects).values())


def test_eight_mixed_uploads_become_one_object_sorted_by_stream() -> None:
    uses = uses_of([(0, {5: MIB, 1: MIB, 3: 2 * MIB}) for _ in range(8)])
    plan = plan_compaction(uses, CONFIG)
    assert plan is not None
    assert len(plan.removed) == 8
    (output,) = plan.outputs
    order = [(stream_id, one.base_offset) for stream_id, one in output.ranges]
    assert order == sorted(order)
    assert output.size_bytes == 32 * MIB


def test_seven_are_left_alone() -> None:
    assert plan_compaction(uses_of([(0, {1: MIB, 2: MIB})] * 7), CONFIG) is None


def test_oldest_go_first_whatever_the_hash_in_their_key() -> None:
    uses = uses_of([(0, {1: 100, 2: 100})] * 30)
    plan = plan_compaction(uses, CONFIG)
    assert plan is not None
    assert [one.key for one in plan.removed] == [data_key(1, n) for n in range(16)]


def test_stream_of_64_mib_gets_an_object_of_its_own() -> None:
    uses = uses_of([(0, {1: MIB, 2: 20 * MIB, 3: MIB})] * 8)
    plan = plan_compaction(uses, CONFIG)
    assert plan is not None
    assert [{stream_id for stream_id, _ in one.ranges} for one in plan.outputs] == [{2}, {1, 3}]


def test_large_stream_is_cut_so_that_history_can_leave_piece_by_piece() -> None:
    uses = uses_of([(0, {1: 100 * MIB, 2: MIB})] * 8)
    plan = plan_compaction(uses, CONFIG)
    assert plan is not None
    own = [one for one in plan.outputs if one.ranges[0][0] == 1]
    assert len(own) == 4
    assert all(one.size_bytes <= CONFIG.own_object_max_bytes for one in own)


def test_object_less_than_half_alive_is_rewritten() -> None:
    uses = uses_of([(100, {1: 60, 2: 30}), (10, {1: 60, 2: 30})])
    plan = plan_compaction(uses, CONFIG)
    assert plan is not None
    assert [one.key for one in plan.removed] == [data_key(1, 0)]


def test_tail_that_awaits_upload_and_closed_streams_are_not_touched() -> None:
    entries = streams([(0, {1: 100, 2: 100})] * 8)
    entries[1].uploaded_to -= 10
    uses = object_uses(entries.values())
    assert len(uses) == 7
    entries[2].closed = True
    assert object_uses(entries.values()) == []


def test_a_stream_of_which_half_lies_below_its_start_is_noticed() -> None:
    entry = streams([(0, {1: 100}), (0, {1: 20})])[1]
    for one in entry.ranges:
        entry.live.add(one)
    for start, noticed in ((0, False), (5, False), (6, True), (9, True)):
        entry.start_offset = start
        # One batch cannot be cut.
        assert mostly_trimmed(entry, 0.5) is None
        first = replace(entry.ranges[0], batch_count=3)
        entry.ranges[0] = first
        assert (mostly_trimmed(entry, 0.5) is first) == noticed
        entry.closed = True
        assert mostly_trimmed(entry, 0.5) is None
        entry.closed, entry.uploaded_to = False, 9
        assert mostly_trimmed(entry, 0.5) is None
        entry.uploaded_to = 20
        entry.ranges[0] = replace(first, batch_count=1)


def test_the_rest_of_a_range_takes_its_place_in_what_an_object_is_used_for() -> None:
    (use,) = uses_of([(0, {1: 100, 2: 50})])
    whole = use.ranges[0][1]
    rest = replace(whole, base_offset=7, size_bytes=30)
    less = without(use, 1, whole, rest)
    assert less.ranges == ((1, rest), use.ranges[1])
    assert (use.alive_bytes, less.alive_bytes) == (150, 80)
    assert less.alive_share > 0.5
    assert without(less, 2, use.ranges[1][1], replace(rest, size_bytes=0)).alive_share < 0.5


def test_space_amplification_counts_dead_bytes() -> None:
    assert space_amplification([]) == 1.0
    assert space_amplification(uses_of([(100, {1: 100}), (0, {1: 100})])) == pytest.approx(1.5)


def test_impossible_settings_are_refused() -> None:
    for wrong in ({"fan_in": 1}, {"least_alive": 0.0}, {"bytes_per_s": 0.0}):
        with pytest.raises(ValueError):
            CompactionConfig(**wrong)  # type: ignore[arg-type]


sizes = st.sampled_from([1, 1000, 100_000, MIB, 30 * MIB, 90 * MIB])
objects = st.lists(
    st.tuples(sizes, st.dictionaries(st.integers(1, 5), sizes, min_size=1)), max_size=40
)


@given(objects)
@settings(max_examples=150, deadline=None)
def test_planning_ends_keeps_every_range_and_bounds_the_waste(
    stored: list[tuple[int, dict[int, int]]],
) -> None:
    entries = streams(stored)
    before = {s: [(r.base_offset, r.end_offset) for r in e.ranges] for s, e in entries.items()}
    next_n, rounds = len(stored), 0
    while (plan := plan_compaction(object_uses(entries.values()), CONFIG)) is not None:
        rounds += 1
        assert rounds <= 2 * len(stored), "planning does not come to an end"
        moved = [(s, r) for output in plan.outputs for s, r in output.ranges]
        removed = {one.key for one in plan.removed}
        held = [(s, r) for s, e in entries.items() for r in e.ranges if r.object.key in removed]
        assert sorted(moved, key=str) == sorted(held, key=str)
        for output in plan.outputs:
            new = ref(next_n, output.size_bytes)
            next_n += 1
            for stream_id, one in output.ranges:
                ranges = entries[stream_id].ranges
                at = ranges.index(one)
                ranges[at] = span(new, one.base_offset, one.end_offset, one.size_bytes)
    after = {s: [(r.base_offset, r.end_offset) for r in e.ranges] for s, e in entries.items()}
    assert after == before
    assert space_amplification(object_uses(entries.values())) <= 1 / CONFIG.least_alive + 0.01
