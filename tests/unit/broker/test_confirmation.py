"""How long an answer waits to know that this broker still leads."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from broker.confirmation import Confirmation
from objectstore.errors import StoreUnavailable
from protocol.errors import ErrorCode, KafkaError
from tests.simulation.loop import SimulatedLoop
from wal.errors import LogClosed


class Storage:
    """The log's side: `answer` decides when and how a question ends."""

    def __init__(self) -> None:
        self.wal = SimpleNamespace(fenced=None, last_confirmed_at=float("-inf"))
        self.asked = 0
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def confirm(self) -> None:
        self.asked += 1
        await asyncio.shield(self.answer)


def run(main: Coroutine[Any, Any, None]) -> None:
    SimulatedLoop(1).run(main)


def test_who_asks_a_store_that_hangs_hears_so_in_time_and_the_question_goes_on() -> None:
    async def main() -> None:
        storage = Storage()
        confirmation = Confirmation(storage, 3.0)  # type: ignore[arg-type]
        began = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailable, match=r"not known after 0\.5 s"):
            await confirmation.confirm(0.5)
        assert asyncio.get_running_loop().time() - began < 1
        assert not storage.answer.cancelled()
        storage.answer.set_result(None)
        await confirmation.confirm(0.5)

    run(main())


def test_a_confirmation_holds_for_the_session_and_not_longer() -> None:
    async def main() -> None:
        storage = Storage()
        storage.answer.set_result(None)
        confirmation = Confirmation(storage, 3.0)  # type: ignore[arg-type]
        storage.wal.last_confirmed_at = asyncio.get_running_loop().time()
        await confirmation.confirm()
        assert storage.asked == 0
        await asyncio.sleep(3.5)
        await confirmation.confirm()
        assert storage.asked == 1

    run(main())


def test_who_was_replaced_leads_no_more() -> None:
    async def main() -> None:
        storage = Storage()
        storage.answer.set_exception(LogClosed("the log has ended"))
        with pytest.raises(KafkaError) as told:
            await Confirmation(storage, 3.0).confirm()  # type: ignore[arg-type]
        assert told.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(main())
