"""The one future that all who wait for the same object share."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any


class DurableFuture(asyncio.Future[int]):
    """Resolves to an object's sequence number once it is durable, or fails with a LogError.

    Many wait on it, so no one of them can cancel it: `await` shields, and `cancel()` does
    nothing. To wait for a bounded time use `async with asyncio.timeout(...)` or `asyncio.wait`
    (`wait_for` on the bare future would, on Python 3.11, wait for it all the same).
    """

    def cancel(self, msg: Any = None) -> bool:
        return False

    def __await__(self) -> Generator[Any, None, int]:
        if not self.done():
            yield from asyncio.shield(self)
        return self.result()

    def resolve(self, seq: int) -> None:
        if not self.done():
            self.set_result(seq)

    def fail(self, error: Exception) -> None:
        if not self.done():
            self.set_exception(error)
            self.exception()  # seen: nobody may be waiting, and that is no mistake
