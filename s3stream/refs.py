"""How one object names another, and how a stream names its part of an object.

Both are written as msgpack arrays, so fields are only ever added at the end, with a default.
"""

from __future__ import annotations

from typing import NewType

import msgspec

StreamId = NewType("StreamId", int)
Incarnation = NewType("Incarnation", int)

SUM_BYTES = 16
SUM_MODULUS = 1 << 128


class ObjectRef(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """An object with records, exactly: the key alone could name another's write.

    write_id: 16 bytes of its header. size_bytes: the whole object.
    index_position, index_size: bytes; where its index lies, so that one ranged GET reads it.
    """

    key: str
    write_id: bytes
    size_bytes: int
    index_position: int
    index_size: int


class ObjectRange(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The contiguous batches of one stream in one object.

    end_offset is exclusive. size_bytes: its batches together. max_timestamp: Unix milliseconds;
    max_timestamp_offset: the last offset of the batch that has it. sum: 16 bytes big-endian, the
    sum modulo 2^128 over its batches.
    """

    object: ObjectRef
    base_offset: int
    end_offset: int
    size_bytes: int
    record_count: int
    batch_count: int
    first_leader_epoch: int
    last_leader_epoch: int
    max_timestamp: int
    max_timestamp_offset: int
    sum: bytes


def add_sums(left: bytes, right: bytes) -> bytes:
    """16 bytes each."""
    total = int.from_bytes(left, "big") + int.from_bytes(right, "big")
    return (total % SUM_MODULUS).to_bytes(SUM_BYTES, "big")
