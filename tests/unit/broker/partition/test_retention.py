"""What retention lets go: whole parts from the oldest on, as Kafka goes by segments."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from broker.partition.retention import reached, runs
from s3stream.spans import Span

NOW = 1_000_000


def parts(*rows: tuple[int, int]) -> list[Span]:
    """rows: (size in bytes, newest timestamp); each has ten offsets."""
    return [Span(10 * n, 10 * n + 10, size, 5, newest) for n, (size, newest) in enumerate(rows)]


def test_what_is_too_old_goes_up_to_the_first_that_is_not() -> None:
    found = reached(parts((1, 100), (1, 200), (1, 990_000), (1, 100)), 0, -1, 50_000, NOW)
    assert (found.start, found.stays) == (20, 2)


def test_a_part_goes_only_when_it_is_older_than_the_bound() -> None:
    assert reached(parts((1, NOW - 500)), 0, -1, 500, NOW).start == 0
    assert reached(parts((1, NOW - 501)), 0, -1, 500, NOW).start == 10


def test_the_newest_goes_too_when_it_is_too_old() -> None:
    assert reached(parts((1, 1), (1, 2)), 0, -1, 500, NOW) == (20, -3, 2)


def test_size_never_takes_what_would_leave_less_than_the_bound() -> None:
    three = parts((400, NOW), (400, NOW), (400, NOW))
    assert reached(three, 0, 1200 - 1000, None, NOW).start == 0
    assert reached(three, 0, 1200 - 800, None, NOW).start == 10
    assert reached(three, 0, 1200 - 0, None, NOW).start == 30


def test_what_lies_below_the_log_start_counts_as_gone() -> None:
    three = parts((400, NOW), (400, NOW), (400, NOW))
    assert reached(three, 10, 1200 - 400, None, NOW).start == 20
    assert reached(three, 15, 1200 - 800, None, NOW) == (15, 0, 1)
    assert reached(three, 10, -1, 500, NOW).start == 10


def test_what_has_no_time_goes_with_what_was_written_after_it() -> None:
    some = parts((1, -1), (1, 100), (1, -1), (1, NOW))
    assert reached(some, 0, -1, 500, NOW).start == 20
    assert reached(parts((1, -1), (1, -1)), 0, -1, 500, NOW).start == 0


def batches(*newest: int) -> list[Span]:
    return [Span(n, n + 1, 100, 1, one) for n, one in enumerate(newest)]


def test_runs_begin_anew_when_they_would_span_too_much() -> None:
    found = runs(batches(0, 30, 60, 61, 100, 121, 122), 60, 1 << 20)
    assert [(one.base_offset, one.end_offset, one.max_timestamp) for one in found] == [
        (0, 3, 60),
        (3, 6, 121),
        (6, 7, 122),
    ]
    assert [one.batch_count for one in found] == [3, 3, 1]


def test_runs_begin_anew_when_they_are_full_and_may_be_one_batch() -> None:
    assert [one.size_bytes for one in runs(batches(1, 1, 1, 1, 1), 60, 250)] == [200, 200, 100]
    assert [one.size_bytes for one in runs(batches(1, 1), 60, 50)] == [100, 100]


@given(
    st.lists(st.integers(-1, 10_000), max_size=30),
    st.integers(1, 5000),
    st.integers(100, 2000),
)
def test_runs_are_the_batches_once_and_within_the_bounds(
    newest: list[int], segment_ms: int, segment_bytes: int
) -> None:
    all_of_it = batches(*newest)
    found = runs(all_of_it, segment_ms, segment_bytes)
    assert sum(one.batch_count for one in found) == len(all_of_it)
    assert all(one.end_offset == two.base_offset for one, two in pairwise(found))
    for one in found:
        within = [b for b in all_of_it if one.base_offset <= b.base_offset < one.end_offset]
        assert one.max_timestamp == max(b.max_timestamp for b in within)
        assert one.size_bytes <= segment_bytes
        dated = [b.max_timestamp for b in within if b.max_timestamp >= 0]
        assert not dated or max(dated) - dated[0] <= segment_ms
