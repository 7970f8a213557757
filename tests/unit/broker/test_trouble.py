"""Trouble with the store: what `/readyz` and the log say of it, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from broker.trouble import GRACE_S, Trouble
from objectstore.errors import AccessDenied, StoreError, StoreUnavailable
from tests.simulation.loop import SimulatedLoop

AWAY = StoreUnavailable("create wal/0: connection refused")
DENIED = AccessDenied("create wal/0: check AWS_ACCESS_KEY_ID")


def lines(
    caplog: pytest.LogCaptureFixture, tell: Callable[[Trouble], Awaitable[None]]
) -> list[str]:
    trouble = Trouble()

    async def main() -> None:
        await tell(trouble)
        trouble.close()

    caplog.clear()
    SimulatedLoop(1).run(main())
    return [record.getMessage() for record in caplog.records if record.name == "broker.trouble"]


def test_a_request_that_fails_now_and_then_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def flicker(trouble: Trouble) -> None:
        for _ in range(100):
            trouble.tell("the log", AWAY)
            await asyncio.sleep(GRACE_S / 2)
            assert not trouble.reasons
            trouble.tell("the log", None)
            await asyncio.sleep(GRACE_S)

    assert lines(caplog, flicker) == []


def test_an_outage_is_one_line_whatever_it_hits_and_one_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def outage(trouble: Trouble) -> None:
        for _ in range(50):
            for part in ("the log", "the metadata log"):
                trouble.tell(part, AWAY)
            await asyncio.sleep(1)
        assert set(trouble.reasons) == {"the log", "the metadata log"}
        trouble.tell("the log", None)
        assert set(trouble.reasons) == {"the metadata log"}
        trouble.tell("the metadata log", None)
        assert not trouble.reasons

    told = lines(caplog, outage)
    assert len(told) == 2, told
    assert "connection refused" in told[0]
    assert "check that the store is up" in told[0]
    assert told[1] == "the store can be written again"


def test_another_remedy_is_told_and_the_newest_reason_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def turn(trouble: Trouble) -> None:
        errors: list[StoreError] = [AWAY, DENIED, AWAY, DENIED]
        for error in errors:
            trouble.tell("the log", error)
            await asyncio.sleep(GRACE_S + 1)
            assert str(error) in trouble.reasons["the log"]

    told = lines(caplog, turn)
    assert len(told) == 2, told
    assert "headwater doctor" in told[1]


def test_what_blocks_no_write_is_told_and_leaves_the_broker_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def uploads(trouble: Trouble) -> None:
        trouble.tell("data objects", DENIED, blocks=False)
        await asyncio.sleep(GRACE_S + 1)
        assert not trouble.reasons

    assert len(lines(caplog, uploads)) == 1


def test_a_broker_that_ended_tells_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    async def end(trouble: Trouble) -> None:
        trouble.tell("the log", AWAY)
        trouble.close()
        await asyncio.sleep(GRACE_S * 2)

    assert lines(caplog, end) == []
