"""The answers of one connection: they leave in the order of the requests.

An answer may wait for storage (`Deferred`, `WhenDone`) while later requests are handled already; it
keeps its place, and the memory of its request, until it was written. Small answers that are ready
together leave by one system call.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from objectstore.store import Buffer

from .outcome import CloseConnection, Deferred, Outcome, WhenDone
from .response_memory import Grant

log = logging.getLogger(__name__)

# Small answers that are ready together leave by one system call, up to about so many bytes.
WRITE_BYTES = 64 * 1024


class Writing(Protocol):
    """What the answers ask of their connection."""

    def write(self, buffers: Sequence[Buffer]) -> bool:
        """Hand it to the transport; False: the connection has ended by this."""
        ...

    def bytes_to_write(self) -> int:
        """Handed over and not taken by the client's machine yet."""
        ...

    def written(self) -> None:
        """All that could leave for now was written: another request may start."""
        ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Answer:
    """A place in the order of answers. grants: memory that goes back when it has left.

    answers: who is told when the wait for `when_done` is over.
    """

    __slots__ = (
        "answers",
        "buffers",
        "close",
        "done",
        "grants",
        "missing",
        "request_bytes",
        "size_bytes",
        "when_done",
    )

    def __init__(self, request_bytes: int) -> None:
        self.request_bytes = request_bytes
        self.size_bytes = 0
        self.done = False
        self.close = False
        self.buffers: list[Buffer] | None = None
        self.grants: tuple[Grant, ...] = ()
        self.answers: Answers | None = None
        self.when_done: WhenDone | None = None
        self.missing = 0

    def wait(self, answers: Answers, when_done: WhenDone) -> None:
        self.answers = answers
        self.when_done = when_done
        self.missing = len(when_done.until)
        for future in when_done.until:
            future.add_done_callback(self._landed)

    def _landed(self, _: asyncio.Future[Any]) -> None:
        self.missing -= 1
        if not self.missing and self.answers is not None:
            self.answers.waited(self)

    def forget(self) -> None:
        """Wait no more: the futures keep nothing of this alive."""
        if self.when_done is not None:
            for future in self.when_done.until:
                future.remove_done_callback(self._landed)
        self.answers = self.when_done = None

    def release(self) -> None:
        self.forget()
        self.buffers = None
        for grant in self.grants:
            grant.release()
        self.grants = ()


class Answers:
    """See the module. peer: for the log. release: gives the memory of a request back."""

    def __init__(
        self, writing: Writing, release: Callable[[int], None], peer: Callable[[], str]
    ) -> None:
        self.unsent_bytes = 0
        self.write_paused = False
        self._writing = writing
        self._release = release
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Answer] = deque()
        self._leaving: list[Answer] = []
        # For the answers that wait: fires at the first deadline, if any still waits then.
        # (Its time is kept beside it: for what is due at once uvloop gives a handle without one.)
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_at = 0.0
        self._write_soon: asyncio.Handle | None = None
        # In the order in which they began: a set has none.
        self._deferred: dict[asyncio.Task[None], Deferred] = {}
        self._closed = False

    def __len__(self) -> int:
        """Requests that were started and whose answers were not written."""
        return len(self._waiting)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Of deferred answers."""
        return list(self._deferred)

    def begin(self, request_bytes: int) -> Answer:
        """A place behind all others. request_bytes: reserved for the request."""
        answer = Answer(request_bytes)
        self._waiting.append(answer)
        return answer

    def settle(self, answer: Answer, outcome: Outcome) -> None:
        """What the handler gave back."""
        if isinstance(outcome, WhenDone):
            if not self._closed:
                answer.wait(self, outcome)
                self._watch_deadline(outcome.deadline)
        elif isinstance(outcome, Deferred):
            task = self._loop.create_task(self._finish_deferred(answer, outcome))
            self._deferred[task] = outcome
            task.add_done_callback(self._deferred_done)
        else:
            self._answered(answer, outcome)

    def close_after(self, answer: Answer) -> None:
        """Answers that are owed to earlier requests still leave, then the connection closes."""
        answer.close = True
        self._answered(answer, None)

    # Waiting.

    def _deferred_done(self, task: asyncio.Task[None]) -> None:
        # Cancelled before its first step, it would be left unawaited.
        self._deferred.pop(task).finish.close()

    async def _finish_deferred(self, answer: Answer, deferred: Deferred) -> None:
        try:
            buffers = await deferred.finish
        except CloseConnection:
            self.close_after(answer)
        except Exception:
            log.exception("closing %s", self._peer())
            self._writing.abort()
        else:
            self._answered(answer, buffers)

    def waited(self, answer: Answer) -> None:
        """What the answer waited for is done, or its time is over."""
        when_done = answer.when_done
        assert when_done is not None
        answer.answers = answer.when_done = None
        try:
            buffers = when_done.finish()
        except Exception:
            log.exception("closing %s", self._peer())
            self._writing.abort()
        else:
            self._answered(answer, buffers)

    def _watch_deadline(self, deadline: float) -> None:
        if self._deadline is not None:
            if self._deadline_at <= deadline:
                return
            self._deadline.cancel()
        self._deadline_at = deadline
        self._deadline = self._loop.call_at(deadline, self._deadline_passed)

    def _deadline_passed(self) -> None:
        self._deadline = None
        now = self._loop.time()
        for answer in list(self._waiting):
            when_done = answer.when_done
            if when_done is None:
                continue
            if when_done.deadline <= now:
                answer.forget()
                answer.when_done = when_done
                self.waited(answer)
            else:
                self._watch_deadline(when_done.deadline)

    # Leaving.

    def _answered(self, answer: Answer, buffers: list[Buffer] | None) -> None:
        if self._closed:
            answer.release()
            return
        answer.done = True
        if buffers is not None:
            answer.buffers = buffers
            answer.size_bytes = sum(map(len, buffers))
            self.unsent_bytes += answer.size_bytes
        # Not at once: what becomes durable together is answered together.
        if self._write_soon is None and self._waiting[0].done:
            self._write_soon = self._loop.call_soon(self.write_ready)

    def write_ready(self) -> None:
        """Write what is ready and in turn, as far as the client takes it."""
        if self._write_soon is not None:
            self._write_soon.cancel()
            self._write_soon = None
        self._write_small()
        while self._waiting and self._waiting[0].done and not self.write_paused:
            answer = self._next()
            if answer.buffers is not None and not self._writing.write(answer.buffers):
                answer.release()
                return  # the transport met an error at once
            if answer.close:
                self._writing.close()
            if self.write_paused and not self._closed:
                answer.buffers = None
                self._leaves_slowly(answer)
            else:
                answer.release()
            if self._closed:
                return
        self._writing.written()

    def _next(self) -> Answer:
        answer = self._waiting.popleft()
        self._release(answer.request_bytes)
        self.unsent_bytes -= answer.size_bytes
        return answer

    def _write_small(self) -> None:
        """The answers that are ready, as far as nothing hangs on when each one leaves: in one
        piece.
        """
        buffers: list[Buffer] = []
        size_bytes = 0
        while self._waiting and size_bytes < WRITE_BYTES and not self.write_paused:
            answer = self._waiting[0]
            if not answer.done or answer.grants or answer.close or not answer.buffers:
                break
            if answer.size_bytes >= WRITE_BYTES:
                break
            buffers += answer.buffers
            size_bytes += answer.size_bytes
            self._next().release()
        if buffers:
            self._writing.write((b"".join(buffers),))

    def _leaves_slowly(self, answer: Answer) -> None:
        self._leaving.append(answer)
        for grant in answer.grants:
            grant.stalled(self._writing.bytes_to_write, self._writing.abort)

    def resume(self) -> None:
        """The client has taken what was written."""
        self.write_paused = False
        self.transport_gone()
        self.write_ready()

    def transport_gone(self) -> None:
        """What was handed over has left, or never will."""
        leaving, self._leaving = self._leaving, []
        for answer in leaving:
            answer.release()

    # Ending.

    def end(self) -> list[int]:
        """Nobody waits any more; the bytes of the requests that had no answer."""
        self._closed = True
        for handle in (self._deadline, self._write_soon):
            if handle is not None:
                handle.cancel()
        unanswered = [answer.request_bytes for answer in self._waiting]
        for answer in self._waiting:
            answer.release()
        self._waiting.clear()
        return unanswered
