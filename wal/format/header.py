"""The 80 bytes that every object begins with.

All integers big-endian.

    position  size  field
    0         4     magic, b"HWOB"              \\
    4         2     format version, 1            | objectstore.header
    6         1     kind, see Kind               |
    7         1     flags, 0                     |
    8         16    write id                    /
    24        8     log id: incarnation or term; of a data object, its maker's incarnation
    32        8     sequence number in the log; of a data object, its number n
    40        8     trim: first sequence still needed
    48        8     durable: first sequence not in the contiguous prefix when this was composed
    56        8     checkpoint: sequence of the newest one; 2^64-1 where there is none
    64        4     window: PUTs in flight at most, the same for the whole log
    68        8     reserved, 0
    76        4     crc32c of the 76 bytes before
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

from crc32c import crc32c

from objectstore.errors import Corrupt
from objectstore.header import FORMAT_VERSION, MAGIC, decode_prefix
from objectstore.store import Buffer

NO_CHECKPOINT = 2**64 - 1

_HEADER = struct.Struct(">4sHBB16sQQQQQI8x")
_FIELDS = struct.Struct(">QQQQQI")
_CRC = struct.Struct(">I")
HEADER_SIZE = _HEADER.size + _CRC.size
assert HEADER_SIZE == 80


class Kind(IntEnum):
    """What an object holds. LOG, DATA, MERGED and BATCH hold records; the rest one blob."""

    LOG = 1
    SEAL = 2
    END = 3
    DATA = 4
    MERGED = 5
    PAGE = 6
    RECOVERY = 7
    SNAPSHOT = 8
    REPORT = 9
    BATCH = 10
    PROBE = 11
    DELTA = 12
    HISTORY = 13


RECORD_KINDS = frozenset({Kind.LOG, Kind.DATA, Kind.MERGED, Kind.BATCH})


class ObjectHeader(NamedTuple):
    kind: Kind
    write_id: bytes
    log_id: int
    seq: int
    trim: int = 0
    durable: int = 0
    checkpoint: int = NO_CHECKPOINT
    window: int = 0


def encode_header(header: ObjectHeader) -> bytes:
    """80 bytes."""
    assert len(header.write_id) == 16, header.write_id
    head = _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        header.kind,
        0,
        header.write_id,
        header.log_id,
        header.seq,
        header.trim,
        header.durable,
        header.checkpoint,
        header.window,
    )
    return head + _CRC.pack(crc32c(head))


def decode_header(data: Buffer, key: str) -> ObjectHeader:
    """Reads the first 80 bytes of `data`. Raises Corrupt naming `key`."""
    prefix = decode_prefix(memoryview(data)[:HEADER_SIZE], key)
    if prefix.version != FORMAT_VERSION:
        raise Corrupt(
            f"{key}: format version {prefix.version}; this release reads {FORMAT_VERSION}"
        )
    if len(data) < HEADER_SIZE:
        raise Corrupt(f"{key}: header cut short at {len(data)} bytes")
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if crc32c(memoryview(data)[: _HEADER.size]) != crc:
        raise Corrupt(f"{key}: checksum of the header does not fit")
    try:
        kind = Kind(prefix.kind)
    except ValueError:
        raise Corrupt(f"{key}: unknown kind {prefix.kind}") from None
    log_id, seq, trim, durable, checkpoint, window = _FIELDS.unpack_from(data, 24)
    return ObjectHeader(kind, prefix.write_id, log_id, seq, trim, durable, checkpoint, window)
