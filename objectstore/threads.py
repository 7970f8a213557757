"""A blocking call in an executor's thread, awaited: `run_in_executor` for what is called often.

asyncio's own chains a second future to the executor's and looks closely at what it is to call;
here the thread tells the loop's future itself. That is half of the cost of the way there and back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(executor: Executor, call: Callable[..., T], *arguments: object) -> T:
    """What `call(*arguments)` gives or raises.

    Cancelled: the call does not begin any more; one that has begun goes on, and nobody is told.
    (An executor that is shut down with `cancel_futures` tells nobody either: who waits must be
    cancelled, as the end of a loop does.)
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    work = executor.submit(_run, loop, done, call, arguments)
    try:
        return await done
    except asyncio.CancelledError:
        work.cancel()
        raise


def _run(
    loop: asyncio.AbstractEventLoop,
    done: asyncio.Future[Any],
    call: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    try:
        result = call(*arguments)
    except BaseException as error:
        _tell(loop, _fail, done, error)
    else:
        _tell(loop, _succeed, done, result)


def _tell(
    loop: asyncio.AbstractEventLoop,
    how: Callable[[asyncio.Future[Any], Any], None],
    done: asyncio.Future[Any],
    what: Any,
) -> None:
    try:
        loop.call_soon_threadsafe(how, done, what)
    except RuntimeError:
        if not loop.is_closed():
            raise
        # Nobody waits any more.


def _succeed(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
