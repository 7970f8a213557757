"""Reading and writing a file whole, however little the system moves at a time."""

from __future__ import annotations

import os

from ..store import Chunks

_WRITE_BUFFERS = 512  # per writev(); the system's limit is 1024
# Per writev() too. More at once lets the page cache look for as large contiguous pieces of memory,
# which on a machine that has been up for a while costs several times what the copy does.
_WRITE_BYTES = 256 << 10


def write_all(fd: int, chunks: Chunks) -> int:
    """Write buffers without joining them; returns the number of bytes."""
    total = 0
    group: list[memoryview] = []
    room = _WRITE_BYTES
    for chunk in chunks:
        rest = memoryview(chunk).cast("B")
        total += len(rest)
        while len(rest) >= room:
            group.append(rest[:room])
            rest = rest[room:]
            _write_group(fd, group)
            group, room = [], _WRITE_BYTES
        if len(rest):
            group.append(rest)
            room -= len(rest)
            if len(group) == _WRITE_BUFFERS:
                _write_group(fd, group)
                group, room = [], _WRITE_BYTES
    _write_group(fd, group)
    return total


def _write_group(fd: int, buffers: list[memoryview]) -> None:
    while buffers:
        written = os.writev(fd, buffers)
        while buffers and written >= len(buffers[0]):
            written -= len(buffers.pop(0))
        if written:
            buffers[0] = buffers[0][written:]


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
