"""One client connection: frames in, requests started in order, answers written in order.

A request is handled only after the one before it was; but a handler may return a `Deferred`
(Produce does, once its batches have their offsets), and then the next request is started while
the answer of this one still waits for storage. Answers leave in the order of the requests.

Reading stops, by not reading the socket, while the frame that was announced does not fit into
memory, or while `max_in_flight` requests have no answer yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from objectstore.store import Buffer
from protocol.errors import MalformedFrame
from protocol.frame import FrameReader

from .memory_pool import MemoryPool

log = logging.getLogger(__name__)


class CloseConnection(Exception):
    """The request has no answer but a closed connection."""


@dataclass(slots=True, frozen=True)
class Deferred:
    """An answer that will be there later; `finish` gives its buffers, or None for no answer."""

    finish: Coroutine[Any, Any, list[Buffer] | None]


Outcome = list[Buffer] | Deferred | None


class Handler(Protocol):
    """What a connection asks of the broker."""

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        """Answer one request frame; raises MalformedFrame or CloseConnection to end it."""
        ...


@dataclass(slots=True, frozen=True)
class ConnectionLimits:
    """max_frame_bytes: `socket.request.max.bytes`. idle_s: `connections.max.idle.ms`.

    least_rate: bytes a second that a frame must keep once its memory is reserved.
    """

    max_frame_bytes: int
    idle_s: float
    max_in_flight: int
    least_rate: int = 16 * 1024
    frame_grace_s: float = 30.0
    scratch_bytes: int = 16 * 1024


class _Answer:
    """A place in the order of answers."""

    __slots__ = ("buffers", "close", "done", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.done = False
        self.close = False
        self.buffers: list[Buffer] | None = None


class Connection(asyncio.BufferedProtocol):
    """See the module. `listener` is the name of the listener that it came by."""

    def __init__(
        self,
        listener: str,
        handler: Handler,
        pool: MemoryPool,
        limits: ConnectionLimits,
        on_open: Callable[[Connection], bool],
        on_close: Callable[[Connection], None],
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
        self._reader = FrameReader(limits.max_frame_bytes, limits.scratch_bytes)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._frames: deque[tuple[memoryview, int]] = deque()
        self._answers: deque[_Answer] = deque()
        self._wake = asyncio.Event()
        self._slot = asyncio.Event()
        self._deferred: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reserved_frame = 0
        self._frame_started = 0.0
        self._last_active = self._loop.time()
        self._reading_paused = False
        self._waiting_for_memory = False
        self._write_paused = False
        self._closed = False
        self._draining = False

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "writelines")
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.client_host, self.client_port = str(peer[0]), int(peer[1])
        if not self._on_open(self):
            self._closed = True
            transport.close()
            return
        self._task = self._loop.create_task(self._serve(), name="connection")
        self._timer = self._loop.call_later(self._limits.idle_s, self._check_idle)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._reader.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._closed:
            return
        self._last_active = self._loop.time()
        self._reader.received(nbytes)
        self._pump()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._write_ready()

    # -- reading

    def _pump(self) -> None:
        """Turn what was received into frames, as far as memory and order allow."""
        if self._closed or self._waiting_for_memory:
            return
        try:
            while len(self._frames) < self._limits.max_in_flight:
                announced = self._reader.announced
                if announced is not None:
                    if not self._pool.try_reserve(self.client_host, announced):
                        self._waiting_for_memory = True
                        self._pause_reading()
                        self._pool.wait(self.client_host, announced, self._memory_released)
                        return
                    self._reserved_frame = announced
                    self._reader.admit()
                    self._frame_started = self._loop.time()
                    self._watch_frame(announced)
                frame = self._reader.next_frame()
                if frame is None:
                    self._resume_reading()
                    return
                self._frames.append((frame, self._reserved_frame))
                self._reserved_frame = 0
                self._wake.set()
            self._pause_reading()
        except MalformedFrame as error:
            log.info("closing %s:%s: %s", self.client_host, self.client_port, error)
            self.abort()

    def _memory_released(self) -> None:
        self._waiting_for_memory = False
        self._pump()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and self._transport is not None and not self._draining:
            self._reading_paused = False
            self._transport.resume_reading()

    def _watch_frame(self, size_bytes: int) -> None:
        """A frame that does not come at the least rate loses its memory, and its connection."""
        if size_bytes <= self._limits.scratch_bytes // 4:
            return
        due = self._limits.frame_grace_s + size_bytes / self._limits.least_rate
        self._arm(due)

    def _arm(self, delay_s: float) -> None:
        assert self._loop is not None
        if self._timer is not None and self._timer.when() > self._loop.time() + delay_s:
            self._timer.cancel()
            self._timer = self._loop.call_later(delay_s, self._check_idle)

    def _check_idle(self) -> None:
        now = self._loop.time()
        if self._reserved_frame and not self._reading_paused:
            due = self._frame_started + self._limits.frame_grace_s
            due += self._reserved_frame / self._limits.least_rate
            if now >= due:
                log.info("closing %s:%s: a frame comes too slowly", *self.peer)
                self.abort()
                return
        else:
            due = self._last_active + self._limits.idle_s
            if self._answers or self._frames:
                due = now + self._limits.idle_s
            if now >= due:
                self.close()
                return
        self._timer = self._loop.call_later(max(due - now, 0.1), self._check_idle)

    @property
    def peer(self) -> tuple[str, int]:
        return self.client_host, self.client_port

    # -- handling

    async def _serve(self) -> None:
        try:
            while not self._closed:
                while not self._frames:
                    if self._draining:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                while len(self._answers) >= self._limits.max_in_flight:
                    self._slot.clear()
                    await self._slot.wait()
                frame, size_bytes = self._frames.popleft()
                self._pump()
                answer = _Answer(size_bytes)
                self._answers.append(answer)
                outcome = await self._handler.handle(self, frame)
                del frame
                if isinstance(outcome, Deferred):
                    task = self._loop.create_task(self._finish_deferred(answer, outcome))
                    self._deferred.add(task)
                    task.add_done_callback(self._deferred.discard)
                else:
                    self._answered(answer, outcome)
        except (MalformedFrame, CloseConnection) as error:
            if str(error):
                log.info("closing %s:%s: %s", self.client_host, self.client_port, error)
            self._close_after_answers()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("closing %s:%s", self.client_host, self.client_port)
            self.abort()

    async def _finish_deferred(self, answer: _Answer, deferred: Deferred) -> None:
        try:
            buffers = await deferred.finish
        except CloseConnection:
            answer.close = True
            buffers = None
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("closing %s:%s", self.client_host, self.client_port)
            self.abort()
            return
        self._answered(answer, buffers)

    def _close_after_answers(self) -> None:
        """Answers that are owed to earlier requests still leave, then the connection closes."""
        if self._answers and not self._closed:
            last = self._answers[-1]
            last.close = True
            if not last.done:
                last.done = True
            self._write_ready()
        else:
            self.close()

    def _answered(self, answer: _Answer, buffers: list[Buffer] | None) -> None:
        answer.buffers = buffers
        answer.done = True
        self._write_ready()

    def _write_ready(self) -> None:
        while self._answers and self._answers[0].done and not self._write_paused:
            answer = self._answers.popleft()
            self._pool.release(self.client_host, answer.size_bytes)
            if answer.buffers is not None and self._transport is not None and not self._closed:
                self._last_active = self._loop.time()
                self._transport.writelines(answer.buffers)
            self._slot.set()
            if answer.close:
                self.close()
                return
        if self._draining and not self._answers and not self._frames:
            self.close()

    # -- ending

    def drain(self) -> None:
        """Read no more; close once what was received is answered."""
        self._draining = True
        self._pause_reading()
        self._wake.set()
        if not self._answers and not self._frames:
            self.close()

    def close(self) -> None:
        """Close after what was written has left."""
        if self._transport is not None:
            self._transport.close()
        self._finish()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
        self._finish()

    def _finish(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting_for_memory:
            self._pool.forget(self._memory_released)
        if self._reserved_frame:
            self._pool.release(self.client_host, self._reserved_frame)
            self._reserved_frame = 0
        for _, size_bytes in self._frames:
            self._pool.release(self.client_host, size_bytes)
        self._frames.clear()
        while self._answers:
            self._pool.release(self.client_host, self._answers.popleft().size_bytes)
        current = asyncio.current_task(self._loop)
        if self._task is not None and self._task is not current:
            self._task.cancel()
        for task in list(self._deferred):
            if task is not current:
                task.cancel()
        self._on_close(self)

    async def wait_closed(self) -> None:
        """Until the tasks of this connection have ended."""
        tasks = [t for t in (self._task, *self._deferred) if t is not None]
        if tasks:
            await asyncio.wait(tasks)
