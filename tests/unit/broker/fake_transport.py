"""A connection's transport under the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


class FakeTransport(asyncio.Transport):
    """Takes what is written; `slow` keeps it unsent, as a client does that does not read."""

    def __init__(self, host: str = "10.0.0.1", port: int = 5000) -> None:
        super().__init__({"peername": (host, port)})
        self.protocol: Any = None
        self.sent = bytearray()
        self.unsent = bytearray()
        self.slow = False
        self.reading = True
        self.closing = False
        self.aborted = False
        self.lost = False

    def open(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def receive(self, data: bytes, piece_bytes: int = 1 << 30) -> int:
        """Give the protocol what came, as far as it reads; how much that was."""
        position = 0
        while position < len(data) and self.reading and not self.closing:
            buffer = self.protocol.get_buffer(-1)
            n = min(len(buffer), piece_bytes, len(data) - position)
            buffer[:n] = data[position : position + n]
            self.protocol.buffer_updated(n)
            position += n
        return position

    def take(self, size_bytes: int | None = None) -> None:
        """The client reads so much; all when None."""
        size = len(self.unsent) if size_bytes is None else size_bytes
        self.sent += self.unsent[:size]
        del self.unsent[:size]
        if not self.unsent:
            self.protocol.resume_writing()
            if self.closing:
                self._lose()

    # asyncio's side

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        data = b"".join(list_of_data)
        if self.closing:
            return
        if self.slow:
            first = not self.unsent
            self.unsent += data
            if first:
                self.protocol.pause_writing()
        else:
            self.sent += data

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.unsent:
                asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.aborted = True
        self.closing = True
        self.unsent.clear()
        asyncio.get_running_loop().call_soon(self._lose)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)
