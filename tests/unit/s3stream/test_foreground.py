"""When what can wait must wait for clients."""

from __future__ import annotations

from s3stream.foreground import Foreground

MB = 1_000_000


def test_only_more_than_the_rate_makes_others_wait() -> None:
    foreground = Foreground(10 * MB, 600.0)
    for tick in range(100):
        foreground.note(tick / 10, MB)
        assert foreground.put_off_s(tick / 10) == 0
    for tick in range(100, 125):
        foreground.note(tick / 10, 2 * MB)
    assert 0 < foreground.put_off_s(12.4) <= 1


def test_one_large_piece_is_no_load() -> None:
    foreground = Foreground(10 * MB, 600.0)
    foreground.note(0.0, 9 * MB)
    assert foreground.put_off_s(0.0) == 0


def test_a_calm_moment_comes_when_the_answer_said() -> None:
    foreground = Foreground(10 * MB, 600.0)
    foreground.note(0.0, 500 * MB)
    wait_s = foreground.put_off_s(0.0)
    assert wait_s == 1.0
    assert foreground.put_off_s(0.5) == 0.5
    assert foreground.put_off_s(1.0) == 0


def test_load_that_never_ends_holds_nobody_up_for_ever() -> None:
    foreground = Foreground(10 * MB, 60.0)
    now = 0.0
    while now < 60:
        foreground.note(now, 100 * MB)
        assert foreground.put_off_s(now) > 0
        now += 0.5
    foreground.note(now, 100 * MB)
    assert foreground.put_off_s(now) == 0
    # After a calm moment they wait again.
    assert foreground.put_off_s(now + 5) == 0
    foreground.note(now + 5, 100 * MB)
    assert foreground.put_off_s(now + 5) > 0
