"""Making sure that nobody has ended a log: one GET of its next sequence (PROTOCOL 10).

A GET is shared by those who ask before it is sent, never by those who ask after. An object of our
own that became durable says the same, without a request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Protocol

from objectstore.errors import Corrupt, NotFound, StoreError
from objectstore.store import ObjectStore

from .durable_future import DurableFuture
from .errors import LogError
from .format.read import read_header
from .keys import LogName


class Writing(Protocol):
    """What is asked of the log's writer."""

    @property
    def next_seq(self) -> int: ...

    @property
    def durable_seq(self) -> int: ...

    def in_flight_as(self, seq: int) -> bytes | None:
        """The write id of our own object that is under way to this sequence."""
        ...

    async def stop_fenced(self, seq: int) -> None:
        """Raises Fenced."""
        ...


class Confirming:
    """last_at: loop time; as of then no other process had ended the log. -inf before the first.

    why_stopped: what who still waits is told when the writer stops.
    """

    def __init__(
        self,
        store: ObjectStore,
        log: LogName,
        writing: Writing,
        why_stopped: Callable[[], LogError],
    ) -> None:
        self.last_at = -math.inf
        self._store = store
        self._log = log
        self._writing = writing
        self._why_stopped = why_stopped
        self._next: DurableFuture | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._running = False

    def ask(self) -> Awaitable[int]:
        """Done once nobody had ended the log when this was called; fails with Fenced, LogClosed,
        or StoreError: not known.
        """
        if self._next is None:
            self._next = DurableFuture(loop=asyncio.get_running_loop())
            self._start()
        return self._next

    def note(self, sent_at: float) -> None:
        """Something that was sent then proves it."""
        self.last_at = max(self.last_at, sent_at)

    def begin(self, tasks: asyncio.TaskGroup) -> None:
        """From now on requests may be sent, by tasks of this group."""
        self._tasks = tasks
        self._start()

    def stop(self) -> None:
        if self._next is not None:
            self._next.fail(self._why_stopped())

    def _start(self) -> None:
        if self._tasks is not None and self._next is not None and not self._running:
            self._running = True
            self._tasks.create_task(self._confirm_all(), name=f"confirm {self._log}")

    async def _confirm_all(self) -> None:
        while (waiting := self._next) is not None:
            self._next = None
            try:
                await self._confirm_once()
            except StoreError as error:
                waiting.fail(error)
            except BaseException:
                waiting.fail(self._why_stopped())
                raise
            else:
                waiting.resolve(self._writing.next_seq)
        self._running = False

    async def _confirm_once(self) -> None:
        """The place asked for is the next to be cut, not the first that is not durable: what is
        in flight may be in the ended log, and collected since, and would be found missing. The
        place behind it holds a seal for ever once the log has an end: seals cover all of
        [end, end + window], and the end is no more than `window` below it.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        while self.last_at < asked_at:
            seq = self._writing.next_seq
            sent_at = loop.time()
            try:
                found = await read_header(self._store, self._log.key(seq))
            except NotFound:
                self.note(sent_at)
                return
            except Corrupt:
                await self._writing.stop_fenced(seq)  # not of our making
                return
            # Our own, when it was cut while the GET was under way: that proves nothing, ask again.
            ours = self._writing.in_flight_as(seq) == found.write_id
            if seq >= self._writing.durable_seq and not ours:
                await self._writing.stop_fenced(seq)
