"""What a LIST and a few headers tell about a log that may still be written to.

Only the newest objects can be anything but plain data of the log: a seal lies above every data
object, or among the last `window` of them. So their headers are read, and no others.

Below the trim many objects may lie that are no objects of the log any more, but somebody's data. A
LIST that is long looks for its end by bisection, and begins anew where a header near it says that
the log was trimmed to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from objectstore.errors import Corrupt, NotFound, StoreUnavailable
from objectstore.store import ObjectStore

from .format.header import NO_CHECKPOINT, Kind, ObjectHeader
from .format.read import read_header
from .keys import LogName
from .parallel import each_of

HEADERS_AT_ONCE = 32
ATTEMPTS = 8
# Ten pages of a LIST. On files each look costs a scan of the directory, so not too few.
PLAIN_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Survey:
    """A log as one LIST showed it.

    sizes: of the objects listed, by sequence, in bytes. seals: sequences that hold a seal.
    newest: header of the highest data object, whether or not it counts. first_missing: the first
    sequence from `begin` on that holds no data; begin: the newest object's trim, or where the
    listing started if that is later.
    """

    sizes: dict[int, int]
    seals: frozenset[int]
    newest: ObjectHeader | None
    begin: int
    first_missing: int
    has_end: bool

    @property
    def trim(self) -> int:
        return 0 if self.newest is None else self.newest.trim

    @property
    def durable(self) -> int:
        """Everything below was in the contiguous prefix when the newest object was composed."""
        return 0 if self.newest is None else self.newest.durable

    def is_void(self, seal: int) -> bool:
        """PROTOCOL 4.2. Trim and durable never fall, so the newest object speaks for all."""
        newest = self.newest
        return newest is not None and newest.seq > seal and max(newest.trim, newest.durable) > seal


async def survey(store: ObjectStore, log: LogName, start: int = 0) -> Survey:
    """start: list from this sequence on. Raises Corrupt, and StoreError for trouble."""
    for _ in range(ATTEMPTS):
        found = await _survey_once(store, log, start)
        if found is not None:
            return found
    raise StoreUnavailable(f"{log.prefix}: changes faster than it can be read; try again")


async def _survey_once(store: ObjectStore, log: LogName, start: int) -> Survey | None:
    """None: an object went away between LIST and GET, so there are newer ones."""
    sizes: dict[int, int] = {}
    has_end = False
    async for row in store.list(log.prefix, log.key(start - 1) if start else ""):
        if row.key == log.end_key:
            has_end = True
            continue
        seq = log.seq_of(row.key)
        if seq is None:
            raise Corrupt(f"{row.key}: not a name that belongs into a log")
        sizes[seq] = row.size_bytes
        if len(sizes) == PLAIN_KEYS and start == 0:
            trimmed_to = await _trim_near_the_end(store, log, seq)
            if trimmed_to > seq:
                return await _survey_once(store, log, trimmed_to)

    headers: dict[int, ObjectHeader] = {}
    newest: ObjectHeader | None = None
    descending = sorted(sizes, reverse=True)
    while descending:
        if newest is not None and descending[0] < newest.seq - newest.window:
            break
        some, descending = descending[:HEADERS_AT_ONCE], descending[HEADERS_AT_ONCE:]
        try:
            for header in await _headers(store, log, some):
                headers[header.seq] = header
        except NotFound:
            return None
        if newest is None:
            newest = next((h for s in some if (h := headers[s]).kind is Kind.LOG), None)

    seals = frozenset(seq for seq, header in headers.items() if header.kind is Kind.SEAL)
    begin = max(start, 0 if newest is None else newest.trim)
    missing = begin
    while missing in sizes and missing not in seals:
        missing += 1
    return Survey(sizes, seals, newest, begin, missing, has_end)


async def _trim_near_the_end(store: ObjectStore, log: LogName, listed: int) -> int:
    """What a data object was trimmed to that counts and is near the newest: not above the trim of
    the last one that counts, since that never falls. 0: not known. listed: a sequence that is
    there.
    """
    low, step = listed, PLAIN_KEYS
    while (found := await _first_from(store, log, low + step)) is not None:
        low, step = found, 2 * step
    high = low + step
    while high - low > PLAIN_KEYS:
        middle = (low + high) // 2
        found = await _first_from(store, log, middle)
        if found is None:
            high = middle
        else:
            low = found
    try:
        near = (await _headers(store, log, [low]))[0]
        if near.kind is not Kind.LOG or near.durable == 0:
            return 0
        # It may lie behind a hole itself; what it says to be durable does not.
        return (await _headers(store, log, [near.durable - 1]))[0].trim
    except NotFound:
        return 0  # deleted meanwhile


async def _first_from(store: ObjectStore, log: LogName, seq: int) -> int | None:
    """The lowest sequence from `seq` on that holds anything."""
    async for row in store.list(log.prefix, log.key(seq - 1)):
        return log.seq_of(row.key)  # None for `end`, which comes last
    return None


async def _headers(store: ObjectStore, log: LogName, seqs: Iterable[int]) -> list[ObjectHeader]:
    async def one(seq: int) -> ObjectHeader:
        key = log.key(seq)
        header = await read_header(store, key)
        check_place(header, log, seq)
        return header

    return await each_of(one, seqs, HEADERS_AT_ONCE)


def check_place(header: ObjectHeader, log: LogName, seq: int) -> None:
    """Raises Corrupt unless this is a data object or seal made for this place of this log."""
    key = log.key(seq)
    if header.kind not in (Kind.LOG, Kind.SEAL):
        raise Corrupt(f"{key}: kind {header.kind.name} in a log")
    if header.log_id != log.log_id or header.seq != seq:
        raise Corrupt(f"{key}: made for {header.log_id}/{header.seq}")
    if header.kind is Kind.LOG:
        none = header.checkpoint == NO_CHECKPOINT
        sound = header.trim == 0 if none else header.trim <= header.checkpoint <= seq
        if not sound or header.trim > header.durable or header.durable > seq:
            raise Corrupt(
                f"{key}: trim {header.trim}, checkpoint {header.checkpoint} and durable "
                f"{header.durable} do not go together"
            )
