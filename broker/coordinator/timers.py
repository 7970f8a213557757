"""Deadlines of groups, which wait while the log cannot append.

A heartbeat only moves a number: the loop's timer is set anew when it fires too early. With no
deadline set, nothing is scheduled at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

TimerKey = tuple[str, ...]


@dataclass(slots=True)
class _Deadline:
    at_s: float
    delay_ms: int
    expels: bool
    action: Callable[[], None]
    handle: asyncio.TimerHandle | None
    handle_at_s: float


class Timers:
    """Named deadlines; setting one again replaces it.

    paused: asked when a deadline that expels members has come; True keeps it until `resume`.
    """

    def __init__(self, paused: Callable[[], bool]) -> None:
        self._paused = paused
        self._deadlines: dict[TimerKey, _Deadline] = {}

    def __contains__(self, key: TimerKey) -> bool:
        return key in self._deadlines

    def __len__(self) -> int:
        return len(self._deadlines)

    def set(
        self, key: TimerKey, delay_ms: int, action: Callable[[], None], *, expels: bool = True
    ) -> None:
        """Run the action in `delay_ms`; expels: members may lose their place by it."""
        loop = asyncio.get_running_loop()
        at_s = loop.time() + delay_ms / 1000
        known = self._deadlines.get(key)
        if known is not None and known.handle is not None and known.handle_at_s <= at_s:
            known.at_s, known.delay_ms = at_s, delay_ms
            known.action, known.expels = action, expels
            return
        self.cancel(key)
        deadline = _Deadline(at_s, delay_ms, expels, action, None, 0.0)
        self._deadlines[key] = deadline
        self._arm(loop, key, deadline)

    def cancel(self, key: TimerKey) -> None:
        deadline = self._deadlines.pop(key, None)
        if deadline is not None and deadline.handle is not None:
            deadline.handle.cancel()

    def clear(self) -> None:
        for key in list(self._deadlines):
            self.cancel(key)

    def resume(self) -> None:
        """The log appends again: every deadline that expels starts from here, in full.

        Clients may have been waiting for the log as long as we have, unable to report.
        """
        loop = asyncio.get_running_loop()
        for key, deadline in self._deadlines.items():
            if not deadline.expels:
                continue
            deadline.at_s = max(deadline.at_s, loop.time() + deadline.delay_ms / 1000)
            if deadline.handle is None:
                self._arm(loop, key, deadline)

    def _arm(self, loop: asyncio.AbstractEventLoop, key: TimerKey, deadline: _Deadline) -> None:
        deadline.handle_at_s = deadline.at_s
        deadline.handle = loop.call_at(deadline.at_s, self._fire, key)

    def _fire(self, key: TimerKey) -> None:
        deadline = self._deadlines[key]
        loop = asyncio.get_running_loop()
        deadline.handle = None
        # at_s moves only forward of the handle, so anything later means "set again since".
        if deadline.at_s > deadline.handle_at_s:
            self._arm(loop, key, deadline)
        elif not (deadline.expels and self._paused()):
            del self._deadlines[key]
            deadline.action()
