"""Reading a log back, as a log: from the trim of its last counted object to its end.

An object counts only when all before it (from the trim on) are there. Keys below the trim are
taken for absent, whatever LIST shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from objectstore.errors import Corrupt, NotFound, StoreUnavailable
from objectstore.store import ObjectStore

from .errors import HoleInLog, TrimmedAway
from .format.header import Kind, ObjectHeader
from .format.index import ObjectIndex
from .format.read import read_header, read_index
from .keys import LogName
from .parallel import each_of
from .seal import read_end
from .survey import check_place, survey

READS_AT_ONCE = 32
SAME_HOLE_ATTEMPTS = 3
ATTEMPTS = 64


@dataclass(frozen=True, slots=True)
class LogObject:
    """One counted object. size: bytes."""

    seq: int
    key: str
    write_id: bytes
    size: int
    header: ObjectHeader
    index: ObjectIndex


async def read_tail(
    store: ObjectStore,
    log: LogName,
    end: int | None,
    *,
    from_seq: int | None = None,
) -> list[LogObject]:
    """The counted objects of `log`, oldest first.

    end: exclusive, from its `end` object; None: look for that, and where there is none read as
    far as the objects are contiguous (or to the first seal: what lies beyond does not count).
    from_seq: leave out what is below.
    Raises TrimmedAway (from_seq lies below the trim), HoleInLog, Corrupt.
    """
    if end is None:
        found = await read_end(store, log)
        end = None if found is None else found.end
    met: Counter[int] = Counter()
    for _ in range(ATTEMPTS):
        # A LIST is no snapshot: of a log in use it can miss what its later pages speak of, and
        # what it shows may be trimmed before it is read. A real hole stays where it is.
        try:
            if end is not None:
                return await _read_ended(store, log, end, from_seq)
            return await _read_open(store, log, from_seq)
        except HoleInLog as hole:
            met[hole.seq] += 1
            if met[hole.seq] == SAME_HOLE_ATTEMPTS:
                raise
    raise StoreUnavailable(f"{log.prefix}: changes faster than it can be read; try again")


async def _read_ended(
    store: ObjectStore, log: LogName, end: int, from_seq: int | None
) -> list[LogObject]:
    if end == 0:
        return []
    trim = await _trim_of(store, log, end - 1)
    start = _start(log, trim, from_seq)
    sizes: dict[int, int] = {}
    if start < end:
        async for row in store.list(log.prefix, log.key(start - 1) if start else ""):
            seq = log.seq_of(row.key)
            if seq is None or seq >= end:
                break
            sizes[seq] = row.size_bytes
    return await _read_all(store, log, sizes, start, end)


async def _read_open(store: ObjectStore, log: LogName, from_seq: int | None) -> list[LogObject]:
    seen = await survey(store, log, 0 if from_seq is None else from_seq)
    if seen.has_end:
        found = await read_end(store, log)
        if found is not None:
            return await _read_ended(store, log, found.end, from_seq)
    if seen.newest is None:
        return []
    _start(log, seen.trim, from_seq)
    end = seen.first_missing
    if seen.durable > end:
        raise HoleInLog(log, end, f"object {seen.newest.seq} says it was durable")
    if end == seen.begin:
        if seen.trim > 0 and (from_seq is None or from_seq == seen.trim):
            # A trim never passes its checkpoint, and a checkpoint is durable before it is named.
            raise HoleInLog(log, end, f"object {seen.newest.seq} is trimmed to it")
        return []
    trim = await _trim_of(store, log, end - 1)
    start = trim if from_seq is None else max(trim, from_seq)
    return await _read_all(store, log, seen.sizes, start, end)


async def _trim_of(store: ObjectStore, log: LogName, last: int) -> int:
    try:
        header = await read_header(store, log.key(last))
    except NotFound as error:
        raise HoleInLog(log, last, "it is the last one before the end") from error
    _check_data(header, log, last)
    return header.trim


def _start(log: LogName, trim: int, from_seq: int | None) -> int:
    if from_seq is None:
        return trim
    if from_seq < trim:
        raise TrimmedAway(log, from_seq, trim)
    return from_seq


async def _read_all(
    store: ObjectStore,
    log: LogName,
    sizes: dict[int, int],
    start: int,
    end: int,
) -> list[LogObject]:
    for seq in range(start, end):
        if seq not in sizes:
            raise HoleInLog(log, seq, f"the log runs from {start} to {end}")

    async def one(seq: int) -> LogObject:
        key = log.key(seq)
        try:
            index = await read_index(store, key, sizes[seq])
        except NotFound as error:
            raise HoleInLog(log, seq, "it was listed a moment ago") from error
        header = index.decoded_header(key)
        _check_data(header, log, seq)
        return LogObject(seq, key, header.write_id, sizes[seq], header, index)

    return await each_of(one, range(start, end), READS_AT_ONCE)


def _check_data(header: ObjectHeader, log: LogName, seq: int) -> None:
    check_place(header, log, seq)
    if header.kind is not Kind.LOG:
        raise Corrupt(f"{log.key(seq)}: a {header.kind.name} below the end of the log")
