"""The C library's heap, set for a process whose buffers are large and short-lived.

By default glibc gives every buffer above some size back to the system when it is freed, and the
next one is filled with fresh pages, one fault for each 4 KiB. Frames, log objects and blocks of
history are such buffers: reading history cost a third of its processor time that way, producing a
sixth (`bench/README.md`). So they are kept for reuse while there is traffic, and given back when it
stops. Elsewhere (musl, macOS) nothing is done.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from pathlib import Path

# Source: mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# The largest that glibc takes; buffers above it are rare (a batch out of line).
REUSED_UP_TO_BYTES = 32 << 20
# Free memory at the end of the heap that is kept for the next burst.
KEPT_BYTES = 256 << 20

QUIET_S = 10.0
QUIET_REQUESTS = 100
WORTH_BYTES = 16 << 20


def keep_freed_buffers(environment: Iterable[str] = ()) -> bool:
    """Once, before the first large buffer; whether it was done.

    environment: names in the process's; an operator who sets the allocator there has decided.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in environment):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One arena: what the executor's threads free, the loop's thread uses again.
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, REUSED_UP_TO_BYTES),
        (_M_TRIM_THRESHOLD, KEPT_BYTES),
    )
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)


def give_back() -> None:
    """All pages that nothing lies in, to the system. Some milliseconds; the lock is not held."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(0)


def resident_bytes() -> int:
    """Of this process; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class QuietHeap:
    """Gives memory back some seconds after a burst of requests. Idle, it has no timer."""

    def __init__(
        self,
        executor: Executor | None,
        *,
        resident: Callable[[], int] = resident_bytes,
        give_back: Callable[[], None] = give_back,
    ) -> None:
        self._executor = executor
        self._resident = resident
        self._give_back = give_back
        self._after_last = resident()
        self._was_busy = False
        self._requests = 0
        self._timer: asyncio.TimerHandle | None = None

    def touched(self) -> None:
        """A request came."""
        self._requests += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._look)

    def _look(self) -> None:
        self._timer = None
        requests, self._requests = self._requests, 0
        if requests > QUIET_REQUESTS:
            self._was_busy = True
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._look)
            return
        if not self._was_busy and self._resident() <= self._after_last + WORTH_BYTES:
            return
        self._was_busy = False
        done = asyncio.get_running_loop().run_in_executor(self._executor, self._give_back)
        done.add_done_callback(self._given_back)

    def _given_back(self, _: asyncio.Future[None]) -> None:
        self._after_last = self._resident()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
