"""When the next object is cut."""

from __future__ import annotations

import pytest

from wal.config import WalConfig
from wal.group_commit import Decision, GroupCommit, Pending, PutTimes, Reason, TokenBucket

TARGET_S = 0.25


def committer(budget: float | None = None) -> GroupCommit:
    return GroupCommit(WalConfig(latency_target_s=TARGET_S, put_budget_per_s=budget))


def pending(
    oldest_at: float = 0.0,
    *,
    full: bool = False,
    urgent: bool = False,
    in_flight: int = 1,
    window: int = 4,
) -> Pending:
    return Pending(oldest_at, full, urgent, in_flight, window)


def assert_waits_until(decision: Decision, at: float) -> None:
    assert decision.reason is None
    assert decision.again_at == pytest.approx(at)


def test_an_idle_log_writes_at_once() -> None:
    assert committer().decide(0.0, pending(in_flight=0)) == Decision(Reason.IDLE)


def test_while_a_put_is_under_way_it_waits_for_the_target_less_what_a_put_takes() -> None:
    commit = committer()
    commit.put_returned(0.05)
    commit.cut(0.0, Reason.IDLE)
    assert_waits_until(commit.decide(1.0, pending(1.0)), 1.2)
    assert commit.decide(1.2001, pending(1.0)) == Decision(Reason.TARGET)


def test_a_put_that_takes_longer_than_the_target_leaves_nothing_to_wait_for() -> None:
    commit = committer()
    commit.put_returned(2.0)
    commit.cut(0.0, Reason.IDLE)
    assert commit.decide(1.0, pending(1.0)) == Decision(Reason.TARGET)


def test_a_put_that_returned_lets_one_object_go() -> None:
    commit = committer()
    assert commit.decide(0.0, pending()).reason is None
    commit.put_returned(0.01)
    assert commit.decide(0.0, pending()) == Decision(Reason.RETURNED)
    commit.cut(0.0, Reason.RETURNED)
    assert commit.decide(0.0, pending()).reason is None


def test_full_and_urgent_objects_wait_for_nothing_but_the_window() -> None:
    commit = committer(budget=0.1)
    commit.cut(0.0, Reason.IDLE)
    assert commit.decide(0.0, pending(full=True)) == Decision(Reason.FULL)
    assert commit.decide(0.0, pending(urgent=True)) == Decision(Reason.URGENT)
    assert commit.decide(9.0, pending(full=True, in_flight=4)) == Decision(None, None)
    commit.cut(0.0, Reason.FULL)
    assert commit.counts.over_budget == 1


def test_the_budget_delays_an_idle_log_too_and_the_conflict_is_counted() -> None:
    commit = committer(budget=2.0)
    for _ in range(4):  # a burst of two seconds
        assert commit.decide(0.0, pending(in_flight=0)) == Decision(Reason.IDLE)
        commit.cut(0.0, Reason.IDLE)
    waiting = commit.decide(0.0, pending(in_flight=0))
    assert_waits_until(waiting, 0.5)
    assert waiting.again_at is not None
    assert commit.decide(waiting.again_at, pending(in_flight=0)) == Decision(Reason.IDLE)
    assert commit.counts.conflicts == 0
    commit.cut(waiting.again_at, Reason.IDLE)
    assert commit.counts.conflicts == 1
    assert commit.counts.over_budget == 0


def test_a_budget_that_does_not_cross_the_target_is_no_conflict() -> None:
    commit = committer(budget=10.0)
    for _ in range(20):
        commit.cut(0.0, Reason.IDLE)
    waiting = commit.decide(0.0, pending(in_flight=0))
    assert_waits_until(waiting, 0.1)
    commit.cut(0.1, Reason.IDLE)
    assert commit.counts.conflicts == 0


def test_over_any_time_small_objects_keep_to_the_budget() -> None:
    commit = committer(budget=5.0)
    now, cuts = 0.0, 0
    while now < 100.0:
        decision = commit.decide(now, pending(now, in_flight=0))
        if decision.reason is None:
            assert decision.again_at is not None
            assert decision.again_at > now
            now = decision.again_at
        else:
            commit.cut(now, decision.reason)
            cuts += 1
    assert 500 <= cuts <= 511


def test_full_objects_leave_no_debt_behind() -> None:
    bucket = TokenBucket(1.0)
    for _ in range(50):
        bucket.take(0.0)
    assert bucket.next_at(0.0) == pytest.approx(1.0)


def test_a_budget_can_change_and_go() -> None:
    commit = committer(budget=1.0)
    for _ in range(2):
        commit.cut(0.0, Reason.IDLE)
    commit.set_budget(10.0, 0.0)
    assert_waits_until(commit.decide(0.0, pending(in_flight=0)), 0.1)
    commit.set_budget(None, 0.0)
    assert commit.decide(0.0, pending(in_flight=0)) == Decision(Reason.IDLE)


def test_the_median_follows_the_last_puts() -> None:
    times = PutTimes(samples=3)
    assert times.p50_s == 0.0
    for duration in (1.0, 9.0, 2.0):
        times.add(duration)
    assert times.p50_s == 2.0
    for _ in range(2):
        times.add(0.5)
    assert times.p50_s == 0.5


def test_a_config_that_cannot_work_is_refused() -> None:
    for wrong in (
        {"object_max_bytes": 0},
        {"latency_target_s": -1.0},
        {"put_budget_per_s": 0.0},
        {"outstanding_limit_bytes": 5},
    ):
        with pytest.raises(ValueError, match="must"):
            WalConfig(**wrong)
