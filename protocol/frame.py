"""Bytes in, whole frames out.

    length  int32, big endian; not part of what is handed out
    body    `length` bytes

The reader owns no socket: asyncio's BufferedProtocol asks `get_buffer()` where the next bytes
go and says `received(n)` when they are there. One frame at a time is *announced* (its length is
known, nothing is allocated), then *admitted* by whoever keeps the memory budget, then complete:

    reader.received(n)
    while True:
        if reader.announced is not None:
            if not budget.try_reserve(reader.announced):
                transport.pause_reading()
                break
            reader.admit()
        frame = reader.next_frame()
        if frame is None:
            break
    reader.put_aside()

Before admission at most one scratch buffer of a frame is in memory. What is missing of a large
frame is received straight into the frame's own memory; what is missing of a small one passes
through scratch, so that one system call can bring many small frames.

Many readers may share one scratch buffer, if each puts aside what it has not used before another
receives: so a connection that waits for its next request costs no buffer.
"""

from __future__ import annotations

import mmap

from protocol.errors import MalformedFrame

_LENGTH_BYTES = 4
# From here on a frame gets pages that are there once something is written to them: to announce
# much costs nothing, neither time to clear it nor memory.
_PAGES_FROM_BYTES = 4 << 20


def _memory(size_bytes: int) -> memoryview:
    if size_bytes < _PAGES_FROM_BYTES:
        return memoryview(bytearray(size_bytes))
    return memoryview(mmap.mmap(-1, size_bytes))


class FrameReader:
    """Assembles the frames of one connection.

    max_frame_bytes: longest body accepted (Kafka's socket.request.max.bytes).
    scratch: at least 4 bytes, shared or not, or how many of its own; the most that is received at
    once for small frames.
    """

    __slots__ = ("_direct", "_end", "_filled", "_frame", "_max", "_scratch", "_start", "_view")

    def __init__(self, max_frame_bytes: int, scratch: bytearray | int = 64 * 1024) -> None:
        self._max = max_frame_bytes
        self._scratch = memoryview(
            scratch if isinstance(scratch, bytearray) else bytearray(scratch)
        )
        assert len(self._scratch) >= _LENGTH_BYTES
        # Received and not yet used: _view[_start:_end], of scratch or of what was put aside.
        self._view = self._scratch
        self._start = 0
        self._end = 0
        # The admitted frame, and how much of it has arrived.
        self._frame: memoryview | None = None
        self._filled = 0
        # Whether the buffer given last is the frame's own memory.
        self._direct = False

    @property
    def announced(self) -> int | None:
        """Size of the frame that waits to be admitted.

        Raises MalformedFrame: a negative length, or one above the limit.
        """
        if self._frame is not None or self._end - self._start < _LENGTH_BYTES:
            return None
        length = int.from_bytes(
            self._view[self._start : self._start + _LENGTH_BYTES], "big", signed=True
        )
        if not 0 <= length <= self._max:
            raise MalformedFrame(f"a frame of {length} bytes; the limit is {self._max}")
        return length

    def admit(self) -> None:
        """Give the announced frame its memory and move there what has already come."""
        length = self.announced
        assert length is not None, "nothing is announced"
        self._start += _LENGTH_BYTES
        self._frame = _memory(length)
        self._filled = 0
        self._drain_scratch()

    def get_buffer(self) -> memoryview:
        """Where the next received bytes go; never empty."""
        frame = self._frame
        self._direct = frame is not None and self._missing(frame) >= len(self._scratch) // 4
        if frame is not None and self._direct:
            return frame[self._filled :]
        pending = self._end - self._start
        if pending and (self._view is not self._scratch or self._start > 0):
            self._scratch[:pending] = bytes(self._view[self._start : self._end])
        if self._view is self._scratch:
            self._start, self._end = 0, pending
        assert pending < len(self._scratch), "reading goes on though a frame is not admitted"
        return self._scratch[pending:]

    def received(self, n: int) -> None:
        """`n` bytes were put into the buffer that `get_buffer` gave last."""
        if self._direct:
            self._filled += n
            return
        # What was put aside has been copied before what came now.
        self._view, self._start, self._end = self._scratch, 0, self._end - self._start + n
        if self._frame is not None:
            self._drain_scratch()

    def next_frame(self) -> memoryview | None:
        """The admitted frame once it is whole: a writable view of memory of its own.

        Raises MalformedFrame: the length that follows is not acceptable.
        """
        frame = self._frame
        if frame is None:
            _ = self.announced
            return None
        if self._filled < len(frame):
            return None
        self._frame = None
        return frame

    def put_aside(self) -> None:
        """Keep what was received and not used out of scratch, which others may use now."""
        if self._start == self._end:
            self._view, self._start, self._end = self._scratch, 0, 0
        elif self._view is self._scratch:
            self._view = memoryview(bytes(self._view[self._start : self._end]))
            self._start, self._end = 0, len(self._view)

    def give_up(self) -> None:
        """No more is read: keep nothing of what has come, nor the memory for what has not."""
        self._frame = None
        self._filled = 0
        self._direct = False
        self._view, self._start, self._end = self._scratch, 0, 0

    @property
    def filled_bytes(self) -> int:
        """Of the admitted frame, what has come."""
        return self._filled

    @property
    def pending_bytes(self) -> int:
        """Bytes received of a frame that is not whole; 0 between frames."""
        return self._end - self._start + (self._filled if self._frame is not None else 0)

    def _missing(self, frame: memoryview) -> int:
        return len(frame) - self._filled

    def _drain_scratch(self) -> None:
        frame = self._frame
        assert frame is not None
        n = min(self._missing(frame), self._end - self._start)
        frame[self._filled : self._filled + n] = self._view[self._start : self._start + n]
        self._filled += n
        self._start += n
