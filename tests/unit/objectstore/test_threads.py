"""Blocking calls in an executor: cancelled while they wait, harmless when they end late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from objectstore.threads import in_thread


class Held(Executor):
    """Runs what it was given when it is told to, as a thread that gets to it late."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        work: Future[Any] = Future()
        self.given.append((work, lambda: fn(*args, **kwargs)))
        return work

    def run(self) -> int:
        """How many were run: not those that were cancelled."""
        ran = 0
        for work, call in self.given:
            if work.set_running_or_notify_cancel():
                work.set_result(call())
                ran += 1
        self.given.clear()
        return ran


def test_what_the_call_gives_and_raises_comes_back() -> None:
    def divide(a: int, b: int) -> float:
        return a / b

    async def main() -> None:
        with ThreadPoolExecutor(2) as executor:
            assert await in_thread(executor, divide, 6, 3) == 2
            with pytest.raises(ZeroDivisionError):
                await in_thread(executor, divide, 6, 0)
            several = await asyncio.gather(*(in_thread(executor, divide, n, 1) for n in range(50)))
            assert several == list(range(50))

    asyncio.run(main())


def test_a_call_whose_caller_left_before_it_began_is_not_made() -> None:
    made: list[int] = []

    async def main() -> None:
        executor = Held()
        first = asyncio.create_task(in_thread(executor, made.append, 1))
        second = asyncio.create_task(in_thread(executor, made.append, 2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert executor.run() == 1
        await second
        assert made == [2]

    asyncio.run(main())


def test_a_call_that_ends_after_its_caller_left_disturbs_nobody() -> None:
    executor = Held()
    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        tasks.append(asyncio.create_task(in_thread(executor, list[int].append, [], 1)))
        await asyncio.sleep(0)
        ((work, call),) = executor.given
        assert work.set_running_or_notify_cancel()
        tasks[0].cancel()
        await asyncio.wait(tasks)
        call()  # tells a future that is cancelled
        await asyncio.sleep(0)
        executor.given = [(work, call)]

    asyncio.run(main())
    assert tasks[0].cancelled()
    executor.given[0][1]()  # tells a loop that is closed
