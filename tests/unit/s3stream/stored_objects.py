"""Batches and objects for the tests of reading, merging, collecting and proving."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

from objectstore.drivers.memory import MemoryStore
from protocol.record_batch import parse_header, seal_crc
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import BatchEntry, Kind, ObjectIndex, add_sums, compose
from wal.format.index import FOOTER_SIZE
from wal.keys import data_key

_HEADER = struct.Struct(">qiibIhiqqqhii")


def new_store() -> MemoryStore:
    return MemoryStore(lambda: 1_000_000)


def batch(
    base_offset: int,
    record_count: int = 1,
    *,
    body_bytes: int = 100,
    epoch: int = 0,
    timestamp: int = 1000,
    seed: int = 0,
) -> bytes:
    """A batch whose records are random bytes: nothing below the broker looks at them."""
    body = Random(base_offset * 31 + seed).randbytes(body_bytes)
    head = _HEADER.pack(
        base_offset,
        _HEADER.size + body_bytes - 12,
        epoch,
        2,
        0,
        0,
        record_count - 1,
        timestamp,
        timestamp,
        -1,
        -1,
        -1,
        record_count,
    )
    out = bytearray(head + body)
    seal_crc(out)
    return bytes(out)


def entry(stream_id: int, data: bytes) -> BatchEntry:
    header = parse_header(data)
    return BatchEntry(
        stream_id=stream_id,
        base_offset=header.base_offset,
        last_offset=header.last_offset,
        leader_epoch=header.leader_epoch,
        record_count=header.record_count,
        max_timestamp=header.max_timestamp,
        size_bytes=len(data),
        crc=header.crc,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        is_transactional=False,
        marker=None,
        buffer=memoryview(data),
        timestamp_ms=header.max_timestamp,
    )


def put_object(
    store: MemoryStore,
    n: int,
    entries: Sequence[BatchEntry],
    *,
    incarnation: int = 1,
    kind: Kind = Kind.DATA,
    write_id: bytes | None = None,
    key: str | None = None,
) -> tuple[ObjectRef, ObjectIndex]:
    write_id = write_id or Random(incarnation * 1000 + n).randbytes(16)
    key = key or data_key(incarnation, n)
    chunks, index, size = compose(kind, incarnation, n, 0, 0, None, 0, write_id, entries)
    store.put_now(key, chunks)
    index_size = len(bytes(chunks[-2]))
    ref = ObjectRef(key, write_id, size, size - FOOTER_SIZE - index_size, index_size)
    return ref, index


def object_range(ref: ObjectRef, index: ObjectIndex, stream_id: int) -> ObjectRange:
    own = [one for one in index.ranges if one.stream_id == stream_id]
    newest = max(own, key=lambda one: one.max_timestamp)
    return ObjectRange(
        ref,
        own[0].base_offset,
        own[-1].end_offset,
        sum(one.size_bytes for one in own),
        sum(one.record_count for one in own),
        sum(one.batch_count for one in own),
        own[0].leader_epoch,
        own[-1].leader_epoch,
        newest.max_timestamp,
        newest.max_timestamp_offset,
        add_sums(*(one.sum for one in own)),
    )
