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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from objectstore.store import Buffer
from protocol.errors import MalformedFrame
from protocol.frame import FrameReader

from .answers import Answer, Answers
from .memory_pool import MemoryPool, Ticket
from .outcome import CloseConnection, Handler
from .response_memory import Grant
from .turns import Turns

log = logging.getLogger(__name__)

# Produce and Fetch: cheap for what they bring, and bounded by memory. All others take turns.
_UNQUEUED = (b"\x00\x00", b"\x00\x01")


@dataclass(slots=True, frozen=True)
class ConnectionLimits:
    """max_frame_bytes: `socket.request.max.bytes`. idle_s: `connections.max.idle.ms`.

    least_rate: bytes a second that a frame must keep, `frame_grace_s` after its memory was
    reserved; slowest_frame_s: and one of any size has come by then. first_grace_s: instead of the
    grace, while no request of the connection has been answered.
    unsent_bytes: of answers that wait for their turn to leave; beyond it no request is started.
    linger_s: for what was written to leave after the broker has closed its side.
    """

    max_frame_bytes: int
    idle_s: float
    max_in_flight: int
    least_rate: int = 16 * 1024
    frame_grace_s: float = 30.0
    first_grace_s: float = 5.0
    slowest_frame_s: float = 300.0
    unsent_bytes: int = 1 << 20
    linger_s: float = 10.0


class Connection(asyncio.BufferedProtocol):
    """See the module. `listener` is the name of the listener that it came by.

    scratch: shared by all connections of a loop; holds nothing between two calls. turns: too; not
    given: for this connection alone.
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
        turns: Turns | None = None,
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
        # Read and not started, each with what is reserved for it.
        self._frames: deque[tuple[memoryview, int]] = deque()
        self._answers = Answers(
            self,
            lambda size: pool.release(self.client_host, size),
            lambda: "{}:{}".format(*self.peer),
        )
        self._current: Answer | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reserved_frame = 0
        # Where that is reserved, and where this connection waits.
        self._reserved_in = pool
        self._waits_in = pool
        self._known = False
        self._turns = turns or Turns()
        self._frame_started = 0.0
        self._last_active = self._loop.time()
        self._reading_paused = False
        self._memory_ticket: Ticket | None = None
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
        self._answers.transport_gone()
        if self._accepted:
            self._accepted = False
            self._on_close(self)

    def pause_writing(self) -> None:
        self._answers.write_paused = True
        self._left_to_write = self.bytes_to_write()

    def resume_writing(self) -> None:
        self._last_active = self._loop.time()
        self._answers.resume()

    # -- reading

    def _pump(self) -> None:
        """Turn what was received into frames, as far as memory and order allow."""
        if self._closed or self._draining or self._memory_ticket is not None:
            return
        try:
            while len(self._frames) < self._limits.max_in_flight:
                announced = self._reader.announced
                if announced is not None:
                    memory = self._pool.for_frame(announced, known=self._known)
                    if not memory.try_reserve(self.client_host, announced):
                        self._wait_for_memory(announced, memory)
                        return
                    self._admit(announced, memory)
                if not self._take_frame():
                    if self._memory_ticket is None:
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
                self._arm(self._frame_grace_s)
            return False
        if self._reserved_in is not self._pool and not self._move_in(frame):
            return False
        self._frames.append((frame, self._reserved_frame))
        self._reserved_frame = 0
        self._wake.set()
        return True

    def _move_in(self, frame: memoryview) -> bool:
        """A stranger's frame has come whole; False while it waits for its place among all."""

        def granted() -> None:
            self._memory_ticket = None
            self._moved_in()
            self._frames.append((frame, self._reserved_frame))
            self._reserved_frame = 0
            self._wake.set()
            self._pump()

        if self._pool.try_reserve(self.client_host, self._reserved_frame):
            self._moved_in()
            return True
        self._pause_reading()
        self._wait_in(self._pool, self._reserved_frame, granted)
        return False

    def _moved_in(self) -> None:
        memory, self._reserved_in = self._reserved_in, self._pool
        memory.release(self.client_host, self._reserved_frame)

    def _admit(self, size_bytes: int, memory: MemoryPool) -> None:
        self._reserved_frame = size_bytes
        self._reserved_in = memory
        self._frame_started = self._loop.time()
        self._reader.admit()

    def _wait_for_memory(self, size_bytes: int, memory: MemoryPool) -> None:
        self._pause_reading()

        def granted() -> None:
            self._memory_ticket = None
            assert not self._closed, "a closed connection waits for nothing"
            self._admit(size_bytes, memory)
            self._take_frame()
            self._pump()

        self._wait_in(memory, size_bytes, granted)

    def _wait_in(self, memory: MemoryPool, size_bytes: int, granted: Callable[[], None]) -> None:
        self._waits_in = memory
        ticket = memory.wait(self.client_host, size_bytes, granted)
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
            if self._answers.write_paused:
                trouble = "it does not read its answers"
                left = self.bytes_to_write()
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
        return self._frame_started + self._frame_grace_s + self._reader.filled_bytes / rate

    @property
    def _frame_grace_s(self) -> float:
        return self._limits.frame_grace_s if self._known else self._limits.first_grace_s

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
            and not self._answers.write_paused
            and len(self._answers) < self._limits.max_in_flight
            and self._answers.unsent_bytes <= self._limits.unsent_bytes
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
                self._current = answer = self._answers.begin(request_bytes)
                if self._reading_paused:
                    self._pump()
                if frame[:2] not in _UNQUEUED and not self._turns.try_take():
                    await self._turns.wait(self.client_host)
                outcome = await self._handler.handle(self, frame)
                self._current = None
                self._known = True
                del frame
                self._answers.settle(answer, outcome)
                # Or what was answered would be kept until the next request comes.
                del outcome
        except (MalformedFrame, CloseConnection) as error:
            if str(error):
                log.info("closing %s:%s: %s", self.client_host, self.client_port, error)
            self._answers.close_after(answer)
        except Exception:
            log.exception("closing %s:%s", self.client_host, self.client_port)
            self.abort()

    # -- answering (see answers.Writing)

    def write(self, buffers: Sequence[Buffer]) -> bool:
        if self._transport is not None:
            self._last_active = self._loop.time()
            if len(buffers) == 1:
                self._transport.write(buffers[0])
            else:
                self._transport.writelines(buffers)
        return not self._closed

    def bytes_to_write(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def written(self) -> None:
        self._wake.set()
        if self._draining and not self._answers and not self._frames:
            self.close()

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
            self._waits_in.forget(ticket)

    def _finish(self) -> None:
        """Serve no more and give back all memory but that of what the transport still has."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._current = None
        self._forget_memory()
        # Now, and not when the collector of cycles finds this connection.
        self._reader.give_up()
        if self._reserved_frame:
            self._reserved_in.release(self.client_host, self._reserved_frame)
        reserved = [size for _, size in self._frames]
        reserved += self._answers.end()
        self._reserved_frame = 0
        self._frames.clear()
        for size_bytes in reserved:
            if size_bytes:
                self._pool.release(self.client_host, size_bytes)
        current = asyncio.current_task(self._loop)
        for task in [self._task, *self._answers.tasks]:
            if task is not None and task is not current:
                task.cancel()

    async def wait_closed(self) -> None:
        """Until the tasks of this connection have ended."""
        tasks = [t for t in (self._task, *self._answers.tasks) if t is not None]
        if tasks:
            await asyncio.wait(tasks)
