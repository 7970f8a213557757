"""An asyncio loop without network whose clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Everybody waits and no timer is set: nothing would ever happen again."""


class _Jump(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.loop: VirtualLoop | None = None

    def select(self, timeout: float | None = None) -> list[Any]:
        assert self.loop is not None
        if timeout is None:
            raise Stuck
        self.loop.now_s += max(timeout, 0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _Jump()
        self.now_s = 0.0
        super().__init__(selector)
        selector.loop = self
        # Timers of one instant must fire together, whatever rounding says.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.now_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time; unhandled errors of callbacks fail the caller."""
    loop = VirtualLoop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    try:
        result = loop.run_until_complete(main)
        loop.run_until_complete(asyncio.sleep(0))
        assert not errors, errors
        return result
    finally:
        loop.close()
