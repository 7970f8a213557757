"""Several requests at once, a bounded number of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def each_of(
    request: Callable[[Item], Awaitable[Result]], items: Iterable[Item], limit: int
) -> list[Result]:
    """Results in the order of `items`. The first error cancels the rest and is raised bare."""
    todo = list(items)
    results: dict[int, Result] = {}
    waiting = iter(range(len(todo)))

    async def work() -> None:
        for position in waiting:
            results[position] = await request(todo[position])

    await all_of([work() for _ in range(min(limit, len(todo)))])
    return [results[position] for position in range(len(todo))]


async def all_of(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All of them at once. The first error cancels the rest and is raised bare.

    Not a TaskGroup: where a part fails while it is cancelled that raises the error and loses the
    cancellation, and an error leaves the caller counted as being cancelled (until Python 3.13), so
    that a time-out around it comes out as a cancellation.
    """
    if len(work) <= 1:
        return [await one for one in work]
    tasks = [asyncio.get_running_loop().create_task(one) for one in work]
    failed: list[asyncio.Task[Result]] = []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [one for one in tasks if _has_failed(one)]
    finally:
        unfinished = [one for one in tasks if not one.done()]
        for one in unfinished:
            one.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
        for one in tasks:
            _has_failed(one)  # looked at, all of them, though only one error is told
    if failed:
        error = failed[0].exception()
        assert error is not None
        raise error
    return [one.result() for one in tasks]


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of the errors in a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
