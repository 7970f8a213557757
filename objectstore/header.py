"""The first bytes of every object that Headwater writes: enough to tell whose write it was.

    position  size  field
    0         4     magic, b"HWOB"
    4         2     format version, big-endian
    6         1     kind (see wal.format)
    7         1     flags
    8         16    write id: random, drawn once per logical write

`create_once` compares the write id; what follows is the business of wal.format.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .errors import Corrupt

MAGIC = b"HWOB"
FORMAT_VERSION = 1
PREFIX = struct.Struct(">4sHBB16s")
PREFIX_SIZE = PREFIX.size
assert PREFIX_SIZE == 24


class HeaderPrefix(NamedTuple):
    version: int
    kind: int
    flags: int
    write_id: bytes


def encode_prefix(kind: int, write_id: bytes, flags: int = 0) -> bytes:
    """24 bytes; write_id: 16 bytes."""
    assert len(write_id) == 16, write_id
    return PREFIX.pack(MAGIC, FORMAT_VERSION, kind, flags, write_id)


def decode_prefix(data: bytes | memoryview, key: str) -> HeaderPrefix:
    """Raises Corrupt naming `key` where the bytes are no header of ours."""
    if len(data) < PREFIX_SIZE:
        raise Corrupt(f"{key}: {len(data)} bytes are too few for a header")
    magic, version, kind, flags, write_id = PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt(f"{key}: not an object of Headwater (magic {magic!r})")
    return HeaderPrefix(version, kind, flags, write_id)
