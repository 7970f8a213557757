"""When producers wait: before memory runs out, first come first served.

`admit` is asked before a batch is sequenced. Who was admitted holds its bytes until the batch is in
the log cache, which counts it from then on. A part of the bound is kept for the broker's own
writes. Uploads and control records never ask, so what makes room cannot be held up.

A batch larger than the bound goes when at most the broker's own part is taken: it waits, it does
not hang.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Admission:
    """Bytes that were let in; given back by `release`, at the latest when it is forgotten."""

    __slots__ = ("_owner", "size_bytes")

    def __init__(self, owner: BackPressure, size_bytes: int) -> None:
        self._owner: BackPressure | None = owner
        self.size_bytes = size_bytes

    def release(self) -> None:
        """Idempotent."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner._give_back(self.size_bytes)

    def __enter__(self) -> Admission:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


class BackPressure:
    """limit_bytes: of what is pinned and admitted together; own_bytes: of it, for own writes only.

    pinned_bytes: what cannot be evicted, asked at each decision. overdue: whether too many log
    objects await upload. on_wait: called when somebody has to wait, so that an upload starts.
    """

    def __init__(
        self,
        limit_bytes: int,
        own_bytes: int,
        *,
        pinned_bytes: Callable[[], int],
        overdue: Callable[[], bool],
        on_wait: Callable[[], None],
    ) -> None:
        assert 0 <= own_bytes < limit_bytes, (own_bytes, limit_bytes)
        self._own_bytes = own_bytes
        self._limits = (limit_bytes - own_bytes, limit_bytes)
        self._pinned_bytes = pinned_bytes
        self._overdue = overdue
        self._on_wait = on_wait
        self._admitted_bytes = 0
        # Of clients and of the broker itself, each in the order of arrival.
        self._queues: tuple[deque[_Waiter], deque[_Waiter]] = (deque(), deque())
        self._failure: BaseException | None = None

    @property
    def admitted_bytes(self) -> int:
        return self._admitted_bytes

    @property
    def waiting(self) -> int:
        return len(self._queues[0]) + len(self._queues[1])

    def try_admit(self, size_bytes: int, *, own: bool = False) -> Admission | None:
        """At once or not at all; never past somebody who waits."""
        if self._failure is not None or self._queues[own] or not self._fits(size_bytes, own):
            return None
        return self._let_in(size_bytes)

    async def admit(self, size_bytes: int, *, own: bool = False) -> Admission:
        """Wait for room. Cancelled: nothing is held. Raises what `fail` was given."""
        if (admission := self.try_admit(size_bytes, own=own)) is not None:
            return admission
        if self._failure is not None:
            raise self._failure
        queue = self._queues[own]
        waiter = _Waiter(size_bytes, asyncio.get_running_loop().create_future())
        queue.append(waiter)
        self._on_wait()
        try:
            # Its turn comes by name, and it leaves the queue itself: nobody slips in between.
            await waiter.turn
            admission = self._let_in(size_bytes)
        finally:
            queue.remove(waiter)
            self.changed()
        return admission

    def changed(self) -> None:
        """Bytes were unpinned or given back: the first that now fit have their turn."""
        for own in (True, False):
            queue = self._queues[own]
            if queue and not queue[0].turn.done() and self._fits(queue[0].size_bytes, own):
                queue[0].turn.set_result(None)

    def fail(self, error: BaseException) -> None:
        """The log has ended: nobody is admitted any more."""
        self._failure = error
        for queue in self._queues:
            for waiter in queue:
                if not waiter.turn.done():
                    waiter.turn.set_exception(error)

    def _fits(self, size_bytes: int, own: bool) -> bool:
        held = self._pinned_bytes() + self._admitted_bytes
        if held == 0:
            return True
        if not own and self._overdue():
            return False
        if size_bytes > self._limits[own]:
            return held <= self._own_bytes
        return held + size_bytes <= self._limits[own]

    def _let_in(self, size_bytes: int) -> Admission:
        self._admitted_bytes += size_bytes
        return Admission(self, size_bytes)

    def _give_back(self, size_bytes: int) -> None:
        self._admitted_bytes -= size_bytes
        self.changed()


class _Waiter:
    __slots__ = ("size_bytes", "turn")

    def __init__(self, size_bytes: int, turn: asyncio.Future[None]) -> None:
        self.size_bytes = size_bytes
        self.turn = turn
