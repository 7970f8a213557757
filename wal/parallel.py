"""Several requests at once, a bounded number of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

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

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(limit, len(todo))):
                tasks.create_task(work())
    except BaseExceptionGroup as group:
        raise first_error(group) from group
    return [results[position] for position in range(len(todo))]


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of the errors in a group, however deep."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
