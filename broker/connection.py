"""One client connection: frames in, requests started in order, answers written in order.

A request is handled only after the one before it was; but a handler may return a `Deferred`
(Produce does, once its batches have their offsets), and then the next request is started while
the answer of this one still waits for storage. Answers leave in the order of the requests.

Reading stops, by not reading the socket, while the frame that was announced does not fit into
memory, or while `max_in_flight` requests have no answer yet. No request is started while the
client does not take the answers that it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from objectstore.store import Buffer
from protocol.errors import MalformedFrame
from protocol.frame import FrameReader

from .memory_pool import MemoryPool, Ticket
from .response_memory import Grant

log = logging.getLogger(__name__)

# Small answers that are ready together leave by one system call, up to about so many bytes.
WRITE_BYTES = 64 * 1024


class CloseConnection(Exception):
    """The request has no answer but a closed connection."""


@dataclass(slots=True, frozen=True)
class Deferred:
    """An answer that will be there later; `finish` gives its buffers, or None for no answer."""

    finish: Coroutine[Any, Any, list[Buffer] | None]


@dataclass(slots=True, frozen=True)
class WhenDone:
    """An answer that is there once all of `until` are done, or at `deadline` (loop time).

    until: at least one, each once. finish: called once then, gives the buffers; it does not
    suspend, so that a request that waits costs no task.
    """

    until: Sequence[asyncio.Future[Any]]
    deadline: float
    finish: Callable[[], list[Buffer] | None]


Outcome = list[Buffer] | Deferred | WhenDone | None


class Handler(Protocol):
    """What a connection asks of the broker."""

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        """Answer one request frame; raises MalformedFrame or CloseConnection to end it."""
        ...


@dataclass(slots=True, frozen=True)
class ConnectionLimits:
    """max_frame_bytes: `socket.request.max.bytes`. idle_s: `connections.max.idle.ms`.

    least_rate: bytes a second that a frame must keep, `frame_grace_s` after its memory was
    reserved; slowest_frame_s: and one of any size has come by then.
    unsent_bytes: of answers that wait for their turn to leave; beyond it no request is started.
    linger_s: for what was written to leave after the broker has closed its side.
    """

    max_frame_bytes: int
    idle_s: float
    max_in_flight: int
    least_rate: int = 16 * 1024
    frame_grace_s: float = 30.0
    slowest_frame_s: float = 300.0
    unsent_bytes: int = 1 << 20
    linger_s: float = 10.0


class _Answer:
    """A place in the order of answers. grants: memory that goes back when it has left.

    connection: who is told when the wait for `when_done` is over.
    """

    __slots__ = (
        "buffers",
        "close",
        "connection",
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
        self.connection: Connection | None = None
        self.when_done: WhenDone | None = None
        self.missing = 0

    def wait(self, connection: Connection, when_done: WhenDone) -> None:
        self.connection = connection
        self.when_done = when_done
        self.missing = len(when_done.until)
        for future in when_done.until:
            future.add_done_callback(self._landed)

    def _landed(self, _: asyncio.Future[Any]) -> None:
        self.missing -= 1
        if not self.missing and self.connection is not None:
            self.connection.waited(self)

    def forget(self) -> None:
        """Wait no more: the futures keep nothing of this alive."""
        if self.when_done is not None:
            for future in self.when_done.until:
                future.remove_done_callback(self._landed)
        self.connection = self.when_done = None

    def release(self) -> None:
        self.forget()
        self.buffers = None
        for grant in self.grants:
            grant.release()
        self.grants = ()


class Connection(asyncio.BufferedProtocol):
    """See the module. `listener` is the name of the listener that it came by.

    scratch: shared by all connections of a loop; holds nothing between two calls.
    """

    def __init__(
        self,
        listener: str,
        handler: Handler,
        pool: MemoryPool,
        limits: ConnectionLimits,
        on_open: Callable[[Connection], bool],
        on_close: Callable[[Connection], None],
        scratch: bytearray,
    ) -> None:
        self.listener = listener
        self.client_host = "?"
        self.client_port = 0
        self.principal = "User:ANONYMOUS"
        self.client_software: tuple[str, str] = ("unknown", "unknown")
        self._handler = handler
        self._pool = pool
        self._limits = limits
        self._on_open = on_open
        self._on_close = on_close
        self._reader = FrameReader(limits.max_frame_bytes, scratch)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        # Read and not started, each with what is reserved for it; started and not written.
        self._frames: deque[tuple[memoryview, int]] = deque()
        self._answers: deque[_Answer] = deque()
        self._current: _Answer | None = None
        self._leaving: list[_Answer] = []
        self._unsent_bytes = 0
        self._wake = asyncio.Event()
        # For the answers that wait: fires at the first deadline, if any still waits then.
        self._deadline: asyncio.TimerHandle | None = None
        self._write_soon: asyncio.Handle | None = None
        # In the order in which they began: a set has none.
        self._deferred: dict[asyncio.Task[None], Deferred] = {}
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reserved_frame = 0
        self._frame_started = 0.0
        self._last_active = self._loop.time()
        self._reading_paused = False
        self._memory_ticket: Ticket | None = None
        self._write_paused = False
        self._left_to_write = 0
        self._accepted = False
        self._closed = False
        self._draining = False

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.client_host, self.client_port = str(peer[0]), int(peer[1])
        if not self._on_open(self):
            self._closed = True
            transport.close()
            return
        self._accepted = True
        self._task = self._loop.create_task(self._serve(), name="connection")
        self._timer = self._loop.call_later(self._limits.idle_s, self._look)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._closed:
            return
        self._last_active = self._loop.time()
        self._reader.received(nbytes)
        self._pump()
        self._reader.put_aside()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()
        if self._timer is not None:
            self._timer.cancel()
        for answer in self._leaving:
            answer.release()
        self._leaving.clear()
        if self._accepted:
            self._accepted = False
            self._on_close(self)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._last_active = self._loop.time()
        leaving, self._leaving = self._leaving, []
        for answer in leaving:
            answer.release()
        self._write_ready()

    # -- reading

    def _pump(self) -> None:
        """Turn what was received into frames, as far as memory and order allow."""
        if self._closed or self._draining or self._memory_ticket is not None:
            return
        try:
            while len(self._frames) < self._limits.max_in_flight:
                announced = self._reader.announced
                if announced is not None:
                    if not self._pool.try_reserve(self.client_host, announced):
                        self._wait_for_memory(announced)
                        return
                    self._admit(announced)
                if not self._take_frame():
                    self._resume_reading()
                    return
            self._pause_reading()
        except MalformedFrame as error:
            log.info("closing %s:%s: %s", self.client_host, self.client_port, error)
            self.abort()

    def _take_frame(self) -> bool:
        frame = self._reader.next_frame()
        if frame is None:
            if self._reserved_frame:
                # Memory is held for what has not come yet: not for ever.
                self._arm(self._limits.frame_grace_s)
            return False
        self._frames.append((frame, self._reserved_frame))
        self._reserved_frame = 0
        self._wake.set()
        return True

    def _admit(self, size_bytes: int) -> None:
        self._reserved_frame = size_bytes
        self._frame_started = self._loop.time()
        self._reader.admit()

    def _wait_for_memory(self, size_bytes: int) -> None:
        self._pause_reading()

        def granted() -> None:
            self._memory_ticket = None
            assert not self._closed, "a closed connection waits for nothing"
            self._admit(size_bytes)
            self._take_frame()
            self._pump()

        ticket = self._pool.wait(self.client_host, size_bytes, granted)
        if ticket.queue is not None:
            self._memory_ticket = ticket

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._draining:
            self._reading_paused = False
            self._transport.resume_reading()

    # -- patience

    def _arm(self, delay_s: float) -> None:
        """Look after the connection in `delay_s` at the latest."""
        if self._timer is not None and self._timer.when() > self._loop.time() + delay_s:
            self._timer.cancel()
            self._timer = self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._reserved_frame and not self._reading_paused:
            due = self._frame_due()
            trouble = "a frame comes too slowly"
        else:
            due = self._last_active + self._limits.idle_s
            trouble = ""
            if self._write_paused:
                trouble = "it does not read its answers"
                left = self._bytes_to_write()
                if left != self._left_to_write:
                    self._left_to_write, due = left, now + self._limits.idle_s
            elif self._answers or self._frames or self._memory_ticket is not None:
                due = now + self._limits.idle_s
        if now < due:
            self._timer = self._loop.call_later(max(due - now, 1.0), self._look)
        elif trouble:
            log.info("closing %s:%s: %s", *self.peer, trouble)
            self.abort()
        else:
            self.close()

    def _frame_due(self) -> float:
        """When what has come of the frame was too little, by the least rate."""
        limits = self._limits
        rate = max(limits.least_rate, self._reserved_frame / limits.slowest_frame_s)
        return self._frame_started + limits.frame_grace_s + self._reader.filled_bytes / rate

    def _bytes_to_write(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def peer(self) -> tuple[str, int]:
        return self.client_host, self.client_port

    # -- handling

    def hold(self, grant: Grant) -> None:
        """Release it once the answer to the request that is being handled has left, or never will.

        Only a handler calls this, before its answer.
        """
        assert self._current is not None or self._closed
        if self._current is None:
            grant.release()
        else:
            self._current.grants += (grant,)

    def _may_start(self) -> bool:
        """Whether the next request is begun: not while the client takes no answers."""
        return (
            bool(self._frames)
            and not self._write_paused
            and len(self._answers) < self._limits.max_in_flight
            and self._unsent_bytes <= self._limits.unsent_bytes
        )

    async def _serve(self) -> None:
        try:
            while not self._closed:
                while not self._may_start():
                    if self._draining and not self._frames:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                frame, request_bytes = self._frames.popleft()
                self._current = answer = _Answer(request_bytes)
                self._answers.append(answer)
                self._pump()
                outcome = await self._handler.handle(self, frame)
                self._current = None
                del frame
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
        except (MalformedFrame, CloseConnection) as error:
            if str(error):
                log.info("closing %s:%s: %s", self.client_host, self.client_port, error)
            self._close_after_answers(answer)
        except Exception:
            log.exception("closing %s:%s", self.client_host, self.client_port)
            self.abort()

    def _deferred_done(self, task: asyncio.Task[None]) -> None:
        # Cancelled before its first step, it would be left unawaited.
        self._deferred.pop(task).finish.close()

    async def _finish_deferred(self, answer: _Answer, deferred: Deferred) -> None:
        try:
            buffers = await deferred.finish
        except CloseConnection:
            self._close_after_answers(answer)
        except Exception:
            log.exception("closing %s:%s", self.client_host, self.client_port)
            self.abort()
        else:
            self._answered(answer, buffers)

    def waited(self, answer: _Answer) -> None:
        """What the answer waited for is done, or its time is over."""
        when_done = answer.when_done
        assert when_done is not None
        answer.connection = answer.when_done = None
        try:
            buffers = when_done.finish()
        except Exception:
            log.exception("closing %s:%s", self.client_host, self.client_port)
            self.abort()
        else:
            self._answered(answer, buffers)

    def _watch_deadline(self, deadline: float) -> None:
        if self._deadline is not None:
            if self._deadline.when() <= deadline:
                return
            self._deadline.cancel()
        self._deadline = self._loop.call_at(deadline, self._deadline_passed)

    def _deadline_passed(self) -> None:
        self._deadline = None
        now = self._loop.time()
        for answer in list(self._answers):
            when_done = answer.when_done
            if when_done is None:
                continue
            if when_done.deadline <= now:
                answer.forget()
                answer.when_done = when_done
                self.waited(answer)
            else:
                self._watch_deadline(when_done.deadline)

    def _close_after_answers(self, answer: _Answer) -> None:
        """Answers that are owed to earlier requests still leave, then the connection closes."""
        answer.close = True
        self._answered(answer, None)

    def _answered(self, answer: _Answer, buffers: list[Buffer] | None) -> None:
        if self._closed:
            answer.release()
            return
        answer.done = True
        if buffers is not None:
            answer.buffers = buffers
            answer.size_bytes = sum(map(len, buffers))
            self._unsent_bytes += answer.size_bytes
        # Not at once: what becomes durable together is answered together.
        if self._write_soon is None and self._answers[0].done:
            self._write_soon = self._loop.call_soon(self._write_ready)

    def _write_ready(self) -> None:
        if self._write_soon is not None:
            self._write_soon.cancel()
            self._write_soon = None
        self._write_small()
        while self._answers and self._answers[0].done and not self._write_paused:
            answer = self._answers.popleft()
            self._pool.release(self.client_host, answer.request_bytes)
            self._unsent_bytes -= answer.size_bytes
            if answer.buffers is not None and self._transport is not None:
                self._last_active = self._loop.time()
                self._transport.writelines(answer.buffers)
                if self._closed:
                    answer.release()
                    return  # the transport met an error at once
            if answer.close:
                self.close()
            if self._write_paused and not self._closed:
                answer.buffers = None
                self._leaves_slowly(answer)
            else:
                answer.release()
            if self._closed:
                return
        self._wake.set()
        if self._draining and not self._answers and not self._frames:
            self.close()

    def _write_small(self) -> None:
        """The answers that are ready, as far as nothing hangs on when each one leaves: in one
        piece.
        """
        buffers: list[Buffer] = []
        size_bytes = 0
        while self._answers and size_bytes < WRITE_BYTES and not self._write_paused:
            answer = self._answers[0]
            if not answer.done or answer.grants or answer.close or not answer.buffers:
                break
            if answer.size_bytes >= WRITE_BYTES:
                break
            self._answers.popleft()
            self._pool.release(self.client_host, answer.request_bytes)
            self._unsent_bytes -= answer.size_bytes
            buffers += answer.buffers
            size_bytes += answer.size_bytes
        if buffers and self._transport is not None:
            self._last_active = self._loop.time()
            self._transport.write(b"".join(buffers))

    def _leaves_slowly(self, answer: _Answer) -> None:
        self._leaving.append(answer)
        self._left_to_write = self._bytes_to_write()
        for grant in answer.grants:
            grant.stalled(self._bytes_to_write, self.abort)

    # -- ending

    def drain(self) -> None:
        """Read no more; close once what was received is answered."""
        self._draining = True
        self._pause_reading()
        self._forget_memory()
        self._wake.set()
        if not self._answers and not self._frames:
            self.close()

    def close(self) -> None:
        """Close after what was written has left."""
        if self._closed:
            return
        self._finish()
        if self._transport is not None:
            # A client that does not read would keep it open for ever.
            self._timer = self._loop.call_later(self._limits.linger_s, self._transport.abort)
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._finish()
        if self._transport is not None:
            self._transport.abort()

    def _forget_memory(self) -> None:
        ticket, self._memory_ticket = self._memory_ticket, None
        if ticket is not None:
            self._pool.forget(ticket)

    def _finish(self) -> None:
        """Serve no more and give back all memory but that of what the transport still has."""
        if self._closed:
            return
        self._closed = True
        for handle in (self._timer, self._deadline, self._write_soon):
            if handle is not None:
                handle.cancel()
        self._current = None
        self._forget_memory()
        reserved = [self._reserved_frame, *(size for _, size in self._frames)]
        reserved += [answer.request_bytes for answer in self._answers]
        self._reserved_frame = 0
        self._frames.clear()
        for answer in self._answers:
            answer.release()
        self._answers.clear()
        for size_bytes in reserved:
            if size_bytes:
                self._pool.release(self.client_host, size_bytes)
        current = asyncio.current_task(self._loop)
        for task in [self._task, *self._deferred]:
            if task is not None and task is not current:
                task.cancel()

    async def wait_closed(self) -> None:
        """Until the tasks of this connection have ended."""
        tasks = [t for t in (self._task, *self._deferred) if t is not None]
        if tasks:
            await asyncio.wait(tasks)
