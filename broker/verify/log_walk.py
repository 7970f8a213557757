"""Reading a log from its keys alone, by this command's own reading of the rules.

A log with an `end` counts up to there; another one as far as its objects are contiguous, and it
must reach as far as its newest header says that it was durable. Below the trim nothing is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from wal.format import HEADER_SIZE, Kind, ObjectHeader, ObjectIndex, read_blob, read_header
from wal.format import read_index as read_object_index
from wal.keys import LogName
from wal.parallel import each_of
from wal.seal import EndBody

from .fault import Fault

READS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class LogRecord:
    seq: int
    key: str
    size_bytes: int
    header: ObjectHeader
    index: ObjectIndex


@dataclass(frozen=True, slots=True)
class Log:
    """records: those that count, from the trim on. ended: its `end` is there."""

    name: LogName
    records: list[LogRecord]
    end: int
    ended: bool
    owner: bytes


async def read_log(store: ObjectStore, name: LogName, from_seq: int | None = None) -> Log:
    """from_seq: begin there, not at the trim. Raises Fault, and the store's errors."""
    sizes: dict[int, int] = {}
    ended = False
    async for info in store.list(name.prefix):
        if info.key == name.end_key:
            ended = True
            continue
        seq = name.seq_of(info.key)
        if seq is None:
            raise Fault(f"{info.key}: does not belong into a log")
        sizes[seq] = info.size_bytes
    owner = b""
    if ended:
        blob = await read_blob(store, name.end_key, Kind.END)
        body = msgspec.msgpack.decode(blob.body, type=EndBody)
        end, owner = body.end, body.maker
    else:
        end = await _open_end(store, name, sizes)
    start = 0
    if end:
        if end - 1 not in sizes:
            raise Fault(f"{name.key(end - 1)}: missing, though the log reaches to it")
        start = (await read_header(store, name.key(end - 1))).trim
    start = start if from_seq is None else max(start, from_seq)
    for seq in range(start, end):
        if seq not in sizes:
            raise Fault(f"{name.key(seq)}: missing; the log runs from {start} to {end}")

    async def read(seq: int) -> LogRecord:
        return await _read(store, name, seq, sizes[seq])

    records = await each_of(read, range(start, end), READS_AT_ONCE)
    _check_order(records)
    return Log(name, records, end, ended, owner)


async def _open_end(store: ObjectStore, name: LogName, sizes: dict[int, int]) -> int:
    seals: set[int] = set()
    newest: ObjectHeader | None = None
    for seq in sorted(sizes, reverse=True):
        header = await read_header(store, name.key(seq))
        if header.kind is Kind.LOG:
            newest = header
            break
        seals.add(seq)
    if newest is None:
        return 0
    end = newest.trim
    while end in sizes and end not in seals:
        if (await read_header(store, name.key(end))).kind is not Kind.LOG:
            break
        end += 1
    if end < newest.durable:
        raise Fault(
            f"{name.key(end)}: missing, though object {newest.seq} says that everything below "
            f"{newest.durable} was durable"
        )
    return end


async def _read(store: ObjectStore, name: LogName, seq: int, size: int) -> LogRecord:
    key = name.key(seq)
    first = await store.get_range(key, 0, HEADER_SIZE)
    index = await read_object_index(store, key, size)
    if bytes(first) != index.header:
        raise Corrupt(f"{key}: its header and the copy in its index differ")
    header = index.decoded_header(key)
    if header.kind is not Kind.LOG or (header.log_id, header.seq) != (name.log_id, seq):
        raise Fault(f"{key}: {header.kind.name} {header.log_id}/{header.seq} in its place")
    return LogRecord(seq, key, size, header, index)


def _check_order(records: list[LogRecord]) -> None:
    trim = durable = 0
    for one in records:
        header = one.header
        if header.trim < trim or header.durable < durable or header.durable > one.seq:
            raise Fault(
                f"{one.key}: trim {header.trim} and durable {header.durable} after {trim} and "
                f"{durable}"
            )
        trim, durable = header.trim, header.durable
