"""The simulated loop itself: what every other simulation believes of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from .loop import STEPS_PER_COLLECTION, Deadlock, Livelock, SimulatedLoop, start_on


def test_an_hour_passes_at_once() -> None:
    loop = SimulatedLoop(1)

    async def main() -> float:
        before = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - before

    assert loop.run(main()) == 3600


def test_one_seed_gives_one_trace_and_seeds_differ() -> None:
    def run(seed: int) -> tuple[str, list[int]]:
        loop = SimulatedLoop(seed)
        order: list[int] = []

        async def one(number: int) -> None:
            await asyncio.sleep(0)
            order.append(number)

        async def main() -> None:
            async with asyncio.TaskGroup() as tasks:
                for number in range(8):
                    tasks.create_task(one(number))

        loop.run(main())
        return loop.trace, order

    assert run(5) == run(5)
    assert len({tuple(run(seed)[1]) for seed in range(10)}) > 1


def test_deadlock_names_who_waits() -> None:
    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="waits_for_ever"):
        SimulatedLoop(1).run(waits_for_ever())


def test_a_loop_that_never_lets_time_pass_is_found() -> None:
    async def spins() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match="spins"):
        SimulatedLoop(1).run(spins())


def test_a_crashed_node_runs_nothing_more_not_even_finally() -> None:
    seen: list[str] = []
    loop = SimulatedLoop(1)

    async def victim() -> None:
        try:
            await asyncio.sleep(1)
            seen.append("lived")
        finally:
            seen.append("finally")

    async def main() -> None:
        start_on("a", victim())
        await asyncio.sleep(0.5)
        loop.crash("a")
        await asyncio.sleep(10)
        assert seen == []

    loop.run(main())


def test_a_paused_node_wakes_up_late_and_others_go_on() -> None:
    loop = SimulatedLoop(1)

    async def tick(at: list[float]) -> None:
        for _ in range(4):
            await asyncio.sleep(1)
            at.append(loop.time())

    async def main() -> tuple[list[float], list[float]]:
        a: list[float] = []
        b: list[float] = []
        begin = loop.time()
        tasks = [start_on("a", tick(a)), start_on("b", tick(b))]
        await asyncio.sleep(1.5)
        loop.pause("a", 10)
        await asyncio.gather(*tasks)
        return [t - begin for t in a], [t - begin for t in b]

    assert loop.run(main()) == ([1, 11.5, 12.5, 13.5], [1, 2, 3, 4])


def test_executor_results_and_errors_come_back() -> None:
    loop = SimulatedLoop(1)

    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.get_running_loop().run_in_executor(None, lambda: 1 // 0)
        return await asyncio.to_thread(lambda: 42)

    assert loop.run(main()) == 42


def test_an_error_that_nobody_looks_at_fails_the_run() -> None:
    async def fails() -> None:
        raise ValueError("lost")

    async def main() -> None:
        asyncio.get_running_loop().create_task(fails())
        await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="never retrieved"):
        SimulatedLoop(1).run(main())


def test_the_garbage_collector_changes_nothing_whenever_it_comes() -> None:
    """It ends generators that nobody holds, and their ends are steps."""

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0.1)
            ended.append(loop.time())

    async def main() -> None:
        for _ in range(200):
            around: list[Any] = [numbers()]
            around.append(around)
            await anext(around[0])
            del around
            await asyncio.sleep(0.01)
        for _ in range(STEPS_PER_COLLECTION):
            await asyncio.sleep(0)
        await asyncio.sleep(1)

    before = gc.get_threshold()
    told = []
    for threshold in (1, 10_000_000):
        ended: list[float] = []
        loop = SimulatedLoop(1)
        gc.set_threshold(threshold)
        try:
            loop.run(main())
        finally:
            gc.set_threshold(*before)
        assert ended
        told.append((loop.trace, ended))
    assert told[0] == told[1]
