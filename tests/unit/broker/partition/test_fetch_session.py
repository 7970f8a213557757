"""Fetch sessions by the table of KIP-227, and what is told in one."""

from __future__ import annotations

from random import Random

import pytest

from broker.partition.fetch_session import (
    EVICTION_MS,
    MAX_EPOCH,
    FetchContext,
    FetchSessions,
    SessionPartition,
)
from protocol.errors import ErrorCode, KafkaError

NOW = 1_000_000


def sessions(slots: int = 4) -> FetchSessions:
    return FetchSessions(slots, Random(1))


def wanted(*indexes: int, offset: int = 0) -> list[SessionPartition]:
    return [SessionPartition("t", index, offset, 100) for index in indexes]


def ask(
    all_of_them: FetchSessions,
    session_id: int,
    epoch: int,
    partitions: list[SessionPartition],
    forgotten: tuple[int, ...] = (),
    now_ms: int = NOW,
    by_id: bool = False,
) -> FetchContext:
    gone = [("t", index) for index in forgotten]
    return all_of_them.context(session_id, epoch, partitions, gone, by_id, now_ms)  # type: ignore[arg-type]


def indexes(context: FetchContext) -> list[int]:
    return [p.index for p in context.partitions()]


@pytest.mark.parametrize(
    ("known", "epoch", "code"),
    [
        (False, 1, ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
        (True, 2, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        (True, 5, ErrorCode.INVALID_FETCH_SESSION_EPOCH),
    ],
)
def test_an_epoch_or_id_out_of_step_is_refused(known: bool, epoch: int, code: ErrorCode) -> None:
    table = sessions()
    made = ask(table, 0, 0, wanted(0)).session_id
    with pytest.raises(KafkaError) as caught:
        ask(table, made if known else made + 1, epoch, [])
    assert caught.value.code is code
    assert indexes(ask(table, made, 1, [])) == [0], "the session is not harmed"


def test_a_full_fetch_without_a_session_stays_without() -> None:
    table = sessions()
    context = ask(table, 0, -1, wanted(0, 1))
    assert (context.session_id, context.incremental, indexes(context)) == (0, False, [0, 1])
    assert len(table) == 0


def test_changes_are_taken_over_and_the_rest_is_remembered() -> None:
    table = sessions()
    made = ask(table, 0, 0, wanted(0, 1, 2)).session_id
    assert made != 0
    context = ask(table, made, 1, wanted(1, 3, offset=9), forgotten=(0,))
    assert context.incremental
    assert [(p.index, p.fetch_offset) for p in context.partitions()] == [(1, 9), (2, 0), (3, 9)]


def test_a_session_with_nothing_left_to_watch_ends() -> None:
    table = sessions()
    made = ask(table, 0, 0, wanted(0)).session_id
    context = ask(table, made, 1, [], forgotten=(0,))
    assert context.session_id == 0 and len(table) == 0


def test_a_full_fetch_ends_the_session_that_it_names() -> None:
    table = sessions()
    made = ask(table, 0, 0, wanted(0)).session_id
    again = ask(table, made, 0, wanted(1)).session_id
    assert again not in (0, made) and len(table) == 1
    assert ask(table, again, -1, wanted(1)).session_id == 0
    assert len(table) == 0


def test_names_and_ids_do_not_mix_in_a_session() -> None:
    table = sessions()
    made = ask(table, 0, 0, wanted(0)).session_id
    with pytest.raises(KafkaError) as caught:
        ask(table, made, 1, [], by_id=True)
    assert caught.value.code is ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR


def test_the_epoch_wraps_to_one() -> None:
    table = sessions()
    context = ask(table, 0, 0, wanted(0))
    assert context.session is not None
    context.session.epoch = MAX_EPOCH
    ask(table, context.session_id, MAX_EPOCH, [])
    assert context.session.epoch == 1


def test_only_what_is_stale_or_small_makes_room() -> None:
    table = sessions(slots=2)
    first = ask(table, 0, 0, wanted(0, 1)).session_id
    second = ask(table, 0, 0, wanted(0)).session_id
    assert ask(table, 0, 0, wanted(0, 1, 2)).session_id == 0, "nobody is old enough"
    later = NOW + EVICTION_MS + 1
    ask(table, first, 1, [], now_ms=later)
    ask(table, second, 1, [], now_ms=later)
    assert ask(table, 0, 0, wanted(0), now_ms=later).session_id == 0, "no larger than the smallest"
    third = ask(table, 0, 0, wanted(0, 1), now_ms=later).session_id
    assert third != 0 and len(table) == 2
    with pytest.raises(KafkaError):
        ask(table, second, 2, [], now_ms=later)
    much_later = later + EVICTION_MS + 1
    ask(table, third, 1, [], now_ms=much_later)
    assert ask(table, 0, 0, wanted(0), now_ms=much_later).session_id != 0, "the stalest goes"
    with pytest.raises(KafkaError):
        ask(table, first, 2, [], now_ms=much_later)


def test_without_slots_there_are_no_sessions() -> None:
    assert ask(sessions(0), 0, 0, wanted(0)).session_id == 0


def test_only_changes_are_told_and_errors_until_they_are_gone() -> None:
    (one,) = wanted(0)

    def told(error: ErrorCode = ErrorCode.NONE, data: bool = False, high: int = 5) -> bool:
        return one.changed(error, data, high, 0, always=False)

    assert told()
    assert not told()
    assert told(data=True)
    assert told(high=6)
    assert not told(high=6)
    assert told(ErrorCode.NOT_LEADER_OR_FOLLOWER, high=6)
    assert told(ErrorCode.NOT_LEADER_OR_FOLLOWER, high=6)
    assert told(high=6)
    assert not told(high=6)


def test_who_gave_data_is_served_last_next_time() -> None:
    table = sessions()
    context = ask(table, 0, 0, wanted(0, 1, 2))
    assert context.session is not None
    context.session.rotate(("t", 0))
    assert indexes(ask(table, context.session_id, 1, [])) == [1, 2, 0]
