"""Reading and writing a file whole, however little the system moves at a time."""

from __future__ import annotations

import os

from ..store import Chunks

_WRITE_BUFFERS = 512  # per writev(); the system's limit is 1024


def write_all(fd: int, chunks: Chunks) -> int:
    """Write buffers without joining them; returns the number of bytes."""
    buffers = [memoryview(chunk).cast("B") for chunk in chunks if len(chunk)]
    total = 0
    first = 0
    while first < len(buffers):
        written = os.writev(fd, buffers[first : first + _WRITE_BUFFERS])
        total += written
        while first < len(buffers) and written >= len(buffers[first]):
            written -= len(buffers[first])
            first += 1
        if written:
            buffers[first] = buffers[first][written:]
    return total


def read_range(fd: int, start: int, end: int) -> bytes:
    """Bytes [start, end), short at the end of the file."""
    pieces = []
    while start < end:
        piece = os.pread(fd, min(end - start, 1 << 30), start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
