"""Several requests at once: whose error is told, and what a cancellation or a time-out does."""

from __future__ import annotations

import asyncio

import pytest

from wal.parallel import all_of, each_of


async def fail(after_s: float, name: str) -> None:
    await asyncio.sleep(after_s)
    raise ValueError(name)


async def stubborn() -> None:
    """Meets an error of its own when it is cancelled."""
    try:
        await asyncio.sleep(60)
    finally:
        raise ValueError("closed meanwhile")


def test_the_first_error_is_told_and_the_rest_is_cancelled() -> None:
    async def run() -> None:
        with pytest.raises(ValueError, match="first"):
            await all_of([stubborn(), fail(0.02, "second"), fail(0.0, "first")])
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        assert not rest

    asyncio.run(run())


def test_a_cancellation_is_not_lost_in_an_error_that_it_causes() -> None:
    async def run() -> None:
        task = asyncio.create_task(all_of([stubborn(), stubborn()]))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(run())


def test_a_time_out_after_an_error_is_a_time_out() -> None:
    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                with pytest.raises(ValueError, match="2"):
                    await each_of(lambda n: fail(0.001 * n, str(n)), [9, 2, 5], 3)
                await asyncio.sleep(60)

    asyncio.run(run())


def test_results_come_in_the_order_of_the_items() -> None:
    async def run() -> None:
        async def back(n: int) -> int:
            await asyncio.sleep(0.001 * (5 - n))
            return n

        assert await each_of(back, range(5), 2) == [0, 1, 2, 3, 4]
        assert await each_of(back, (), 2) == []

    asyncio.run(run())
