"""The checker of `make chaos` finds each fault where it is, and none where none is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chaos.checker import judge, longest_gap, measure, percentile
from tests.chaos.history import ClientHistory, add_events, java_events


def history(name: str, group: str, *events: dict[str, Any]) -> ClientHistory:
    found = ClientHistory(name, group)
    add_events(found, map(json.dumps, events))
    return found


def acknowledged(t: float, offset: int | None, value: str, partition: int = 0) -> dict[str, Any]:
    return {
        "e": "acknowledged", "t": t, "partition": partition, "offset": offset, "value": value,
        "took_s": 0.5,
    }  # fmt: skip


def delivered(t: float, offset: int, value: str, partition: int = 0) -> dict[str, Any]:
    return {"e": "delivered", "t": t, "partition": partition, "offset": offset, "value": value}


def assigned(t: float, *partitions: int) -> dict[str, Any]:
    return {"e": "assigned", "t": t, "partitions": partitions}


def committed(t: float, offset: int, partition: int = 0) -> dict[str, Any]:
    return {"e": "committed", "t": t, "partition": partition, "offset": offset}


STORED = {0: {0: "a.0", 1: "b.0", 2: "a.2"}, 1: {0: "a.1"}}


def test_a_history_without_fault_is_clean() -> None:
    verdict = judge(
        [
            history("a", "", acknowledged(1, 0, "a.0"), acknowledged(2, 0, "a.1", 1)),
            history("b", "", acknowledged(1, None, "b.0")),
            history(
                "c", "g", assigned(0, 0, 1), delivered(1, 0, "a.0"), delivered(1, 1, "b.0"),
                committed(2, 2), delivered(3, 2, "a.2"), delivered(3, 0, "a.1", 1),
            ),
        ],
        STORED,
    )  # fmt: skip
    assert verdict.is_clean, verdict


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (acknowledged(1, 1, "a.0"), "acknowledged at 0@1: there is b.0"),
        (acknowledged(1, 9, "a.9"), "acknowledged at 0@9: there is None"),
        (acknowledged(1, None, "a.9"), "is nowhere"),
        (acknowledged(1, None, "a.1", 0), "is nowhere"),
    ],
    ids=["another is there", "nothing is there", "no offset, nowhere", "in another partition"],
)
def test_what_is_not_where_it_was_acknowledged_is_lost(event: dict[str, Any], words: str) -> None:
    (found,) = judge([history("a", "", event)], STORED).lost
    assert words in found


def test_a_hole_in_a_partition_is_lost() -> None:
    assert judge([], {0: {0: "a.0", 2: "a.2"}}).lost == [
        "1 offsets below 3 of partition 0 are missing"
    ]


def test_what_was_delivered_and_is_not_stored_there_is_lost() -> None:
    all_of_it = [delivered(1, o, v, p) for p, records in STORED.items() for o, v in records.items()]
    (found,) = judge([history("c", "g", *all_of_it, delivered(2, 0, "b.9"))], STORED).lost
    assert found == "b.9 was delivered to c from 0@0: there is a.0"


def test_what_never_came_to_a_group_is_lost_also_where_another_group_has_it() -> None:
    all_of_it = [delivered(1, o, v, p) for p, records in STORED.items() for o, v in records.items()]
    whole = history("c", "g", *all_of_it)
    (found,) = judge([whole, history("d", "h", *all_of_it[1:])], STORED).lost
    assert "1 records of partition 0 never came to group h" in found


def test_a_value_that_is_stored_twice_is_duplicated_wherever_it_is() -> None:
    assert judge([], {0: {0: "a.0", 1: "a.0"}}).duplicated == ["a.0 is at 0@0 and at 0@1"]
    assert judge([], {0: {0: "a.0"}, 1: {0: "a.0"}}).duplicated == ["a.0 is at 0@0 and at 1@0"]


def test_a_record_behind_a_later_one_of_its_producer_is_reordered() -> None:
    assert judge([], {0: {0: "a.1", 1: "b.0", 2: "a.0"}}).reordered == [
        "a.0 at 0@2 is behind a.1 at 0@0"
    ]


def test_who_begins_before_what_was_committed_went_back() -> None:
    first = history(
        "c", "g", assigned(0, 0), delivered(1, 0, "a.0"), delivered(1, 1, "b.0"), committed(2, 2)
    )
    again = history("d", "g", assigned(3, 0), delivered(4, 1, "b.0"), delivered(4, 2, "a.2"))
    verdict = judge([first, again], {0: STORED[0]})
    assert verdict.went_back == ["d of g began partition 0 at 1, where 2 was committed"]
    fine = history("d", "g", assigned(3, 0), delivered(4, 2, "a.2"))
    assert judge([first, fine], {0: STORED[0]}).is_clean


def test_what_comes_again_without_a_commit_went_not_back() -> None:
    first = history("c", "g", assigned(0, 0), delivered(1, 0, "a.0"), delivered(1, 1, "b.0"))
    again = history(
        "d", "g", assigned(3, 0), delivered(4, 0, "a.0"), delivered(4, 1, "b.0"),
        delivered(4, 2, "a.2"), committed(5, 3),
    )  # fmt: skip
    assert judge([first, again], {0: STORED[0]}).is_clean


def test_a_gap_is_of_one_partition_and_reaches_over_the_ends_of_the_time_looked_at() -> None:
    both = [(0, 0.0), (0, 1.0), (0, 6.0), (0, 7.0), (1, 0.5), (1, 2.0), (1, 3.0), (1, 7.0)]
    assert longest_gap(both, 0.0, 7.0) == 5.0
    assert longest_gap([(0, 1.0), (0, 9.0)], 4.0, 5.0) == 8.0, "it began before and ended after"
    assert longest_gap([(0, 1.0)], 2.0, 5.0) == 4.0, "it never came back"
    assert longest_gap([], 0.0, 5.0) == 0.0


def test_percentiles_are_values_that_were_there() -> None:
    assert percentile([float(one) for one in range(1, 101)], 0.99) == 99.0
    assert percentile([3.0], 0.99) == 3.0
    assert percentile([2.0, 1.0], 0.5) == 1.0


def test_figures_count_what_was_sent_after_the_fault_and_every_error() -> None:
    error = {"e": "error", "t": 4.0, "what": "produce", "text": "x"}
    one = history("a", "", *(acknowledged(float(t), t, f"a.{t}") for t in (1, 2, 9)), error)
    figures = measure([one], 1.5, 9.0)
    assert figures.acknowledged == 3
    assert figures.acknowledgement_gaps_s == {"a": 7.0}
    assert figures.p99_s == 0.5
    assert [error.text for error in figures.errors] == ["x"]
    assert measure([one], 20.0, 30.0).p99_s is None


def test_how_a_client_ended_is_known() -> None:
    assert not history("a", "").has_ended
    ended = history("a", "", {"e": "ended", "t": 1.0, "unanswered": 2})
    assert ended.has_ended and ended.unanswered == 2


def test_an_event_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="no such event: lost"):
        history("a", "", {"e": "lost", "t": 1.0})


def test_events_of_kafkas_verifiable_tools_are_understood() -> None:
    lines = [
        {"timestamp": 5000, "name": "startup_complete"},
        {
            "timestamp": 6000, "name": "producer_send_success", "key": None, "value": "1.7",
            "offset": 3, "topic": "t", "partition": 2,
        },
        {
            "timestamp": 6500, "name": "partitions_assigned",
            "partitions": [{"topic": "t", "partition": 2}],
        },
        {
            "timestamp": 7000, "name": "record_data", "key": None, "value": "1.7", "topic": "t",
            "partition": 2, "offset": 3,
        },
        {
            "timestamp": 8000, "name": "offsets_committed", "success": True,
            "offsets": [{"topic": "t", "partition": 2, "offset": 4}],
        },
        {"timestamp": 8500, "name": "offsets_committed", "success": False, "error": "no"},
        {"timestamp": 9000, "name": "shutdown_complete"},
    ]  # fmt: skip
    events = java_events([*map(json.dumps, lines), "a line of its log"], 4.0)
    found = history("java", "g", *events)
    assert [(a.at, a.offset, a.value) for a in found.acknowledged] == [(2.0, 3, "1.7")]
    assert [a.partitions for a in found.assigned] == [(2,)]
    assert [(d.offset, d.value) for d in found.delivered] == [(3, "1.7")]
    assert [(c.partition, c.offset) for c in found.committed] == [(2, 4)]
    assert [f.text for f in found.failed] == ["no"]
    assert found.has_ended
