"""What a round of deletion is told."""

from __future__ import annotations

from s3stream.references import ObjectNumbers, References
from wal.keys import data_key


def test_a_report_names_what_was_held_at_any_moment_since_the_last_one() -> None:
    held = References()
    held.hold_all(["a", "b", "b"])
    held.release("a")
    held.release("b")
    number, keys = held.begin_report()
    assert keys == {"a", "b"}
    assert held.held() == {"b"}
    # Held for a moment while the report is written: the next one names it.
    held.hold("c")
    held.release("c")
    held.release("b")
    held.report_durable(number)
    number, keys = held.begin_report()
    assert keys == {"b", "c"}
    held.report_durable(number)
    assert held.begin_report()[1] == set()


def test_a_report_that_never_became_durable_forgets_nothing() -> None:
    held = References()
    held.hold("a")
    held.release("a")
    held.begin_report()
    assert held.begin_report()[1] == {"a"}


def test_numbers_are_settled_in_any_order_and_the_lowest_is_told() -> None:
    numbers = ObjectNumbers(incarnation=5)
    assert numbers.lowest_unsettled == 0
    assert [numbers.draw() for _ in range(4)] == [0, 1, 2, 3]
    numbers.settle([1, 3])
    assert numbers.lowest_unsettled == 0
    numbers.settle_keys([data_key(5, 0), data_key(6, 2), "wal/x"])
    assert numbers.lowest_unsettled == 2
    numbers.settle([2, 2])
    assert numbers.lowest_unsettled == 4
