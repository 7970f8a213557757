"""Ending a log that another process may still be writing (PROTOCOL 4).

    1. LIST; read the newest objects' headers; the first sequence without data is k
    2. create seals at k ... k + window, all at once; wait until each place is decided
    3. LIST again: where the first sequence without data holds a seal, and so do the places up
       to `window` above it (or late data), the log ends there; otherwise data came in
       meanwhile, and this begins again at 1
    4. create `<log>/end`, which names the end and its maker: whoever creates it owns what follows

A writer that never rests can fill all of those places between 1 and 2, again and again. So each
further attempt puts one more seal ahead, twice as far as the writer went since the last one: it
cannot write past that.

Every step can be repeated by anybody at any time. A seal at a key that had been trimmed is void
and does no harm: it lies below the trim that the newest data object carries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random
from typing import Annotated, NamedTuple

import msgspec

from objectstore.create import Backoff, OnTrouble, create_once
from objectstore.errors import Corrupt, NotFound, StoreUnavailable, Throttled
from objectstore.store import ObjectStore

from .errors import HoleInLog
from .format.compose import compose_blob
from .format.header import Kind
from .format.read import read_blob
from .keys import LogName
from .parallel import each_of
from .survey import Survey, survey

# A LIST that contradicts the newest header this often is no race with the writer.
SAME_HOLE_ATTEMPTS = 3


class LogEnd(NamedTuple):
    """end: exclusive. ours: the END object names the maker that asked. info: its maker's words."""

    end: int
    maker: bytes
    ours: bool
    info: bytes = b""


class SealBody(msgspec.Struct, frozen=True):
    """first: the first sequence that this sealer found without data."""

    maker: bytes
    first: Annotated[int, msgspec.Meta(ge=0)]


class EndBody(msgspec.Struct, frozen=True):
    end: Annotated[int, msgspec.Meta(ge=0)]
    maker: bytes
    info: bytes = b""


async def end_log(
    store: ObjectStore,
    log: LogName,
    window: int,
    maker: bytes,
    rng: Random,
    *,
    info: bytes = b"",
    on_trouble: OnTrouble | None = None,
) -> LogEnd:
    """End `log` for good, or find out how it ended.

    window: the log's own, fixed when it was given out. maker: names this process, not its node.
    Trouble of the store is waited out. Raises HoleInLog and Corrupt: then nothing was ended.
    """
    backoff = Backoff(rng)
    sealer = _Sealer(store, log, window, maker, rng, info, on_trouble)
    while True:
        try:
            return await sealer.run()
        except (Throttled, StoreUnavailable) as error:
            if on_trouble is not None:
                on_trouble(log.prefix, error)
            await asyncio.sleep(backoff.next_s())


async def read_end(store: ObjectStore, log: LogName, maker: bytes | None = None) -> LogEnd | None:
    """None where the log has no `end`. Raises Corrupt."""
    key = log.end_key
    try:
        blob = await read_blob(store, key, Kind.END)
    except NotFound:
        return None
    try:
        body = msgspec.msgpack.decode(blob.body, type=EndBody)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Corrupt(f"{key}: {error}") from error
    if blob.header.log_id != log.log_id or blob.header.seq != body.end:
        raise Corrupt(f"{key}: made for {blob.header.log_id}/{blob.header.seq}")
    return LogEnd(body.end, body.maker, body.maker == maker, body.info)


async def read_seal(store: ObjectStore, log: LogName, seq: int) -> SealBody:
    """Raises NotFound, Corrupt (also where there is no seal)."""
    key = log.key(seq)
    blob = await read_blob(store, key, Kind.SEAL)
    try:
        return msgspec.msgpack.decode(blob.body, type=SealBody)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Corrupt(f"{key}: {error}") from error


class _Sealer:
    def __init__(
        self,
        store: ObjectStore,
        log: LogName,
        window: int,
        maker: bytes,
        rng: Random,
        info: bytes,
        on_trouble: OnTrouble | None,
    ) -> None:
        assert window >= 1, window
        self._store = store
        self._log = log
        self._window = window
        self._maker = maker
        self._rng = rng
        self._info = info
        self._on_trouble = on_trouble
        self._end_write_id = rng.randbytes(16)

    async def run(self) -> LogEnd:
        hole: tuple[int, int] = (-1, 0)
        ahead, overtaken_at = 0, -1
        while True:
            # Read first, each time: once `end` is there nobody seals or computes an end again.
            found = await read_end(self._store, self._log, self._maker)
            if found is not None:
                return found
            seen = await survey(self._store, self._log)
            if seen.has_end:
                continue
            self._check_window(seen)
            first = seen.first_missing
            if seen.durable > first:
                hole = (first, hole[1] + 1 if hole[0] == first else 1)
                if hole[1] == SAME_HOLE_ATTEMPTS:
                    why = f"object {seen.newest and seen.newest.seq} says it was durable"
                    raise HoleInLog(self._log, first, why)
                continue
            places = range(first, first + self._window + 1)
            undecided = [seq for seq in places if seq not in seen.sizes]
            if first in seen.seals and not seen.is_void(first) and not undecided:
                return await self._make_final(first)
            if first not in seen.seals:
                if overtaken_at >= 0:
                    ahead = max(2 * ahead, 2 * (first - overtaken_at), 2 * self._window)
                    if first + ahead not in seen.sizes:
                        undecided.append(first + ahead)
                overtaken_at = first
            # Another's seal at `first` would do for the end. The rest are for the old writer: it
            # confirms itself by the place behind all that it may have in flight.
            await self._seal(undecided, first)

    async def _seal(self, places: Iterable[int], first: int) -> None:
        body = msgspec.msgpack.encode(SealBody(self._maker, first))

        async def one(seq: int) -> None:
            write_id = self._rng.randbytes(16)
            chunks, _ = compose_blob(
                Kind.SEAL, self._log.log_id, seq, write_id, body, window=self._window
            )
            # Whose object ends up there does not matter here: the next LIST tells.
            await create_once(
                self._store,
                self._log.key(seq),
                chunks,
                write_id,
                rng=self._rng,
                on_trouble=self._on_trouble,
            )

        seqs = list(places)
        await each_of(one, seqs, max(1, len(seqs)))

    async def _make_final(self, end: int) -> LogEnd:
        body = msgspec.msgpack.encode(EndBody(end, self._maker, self._info))
        chunks, _ = compose_blob(
            Kind.END, self._log.log_id, end, self._end_write_id, body, window=self._window
        )
        # Crash before this: another sealer finds the same seal and makes the same end final.
        await create_once(
            self._store,
            self._log.end_key,
            chunks,
            self._end_write_id,
            rng=self._rng,
            on_trouble=self._on_trouble,
        )
        final = await read_end(self._store, self._log, self._maker)
        if final is None:
            raise StoreUnavailable(f"{self._log.end_key}: was there a moment ago; try again")
        return final

    def _check_window(self, seen: Survey) -> None:
        newest = seen.newest
        if newest is not None and newest.window != self._window:
            raise Corrupt(
                f"{self._log.key(newest.seq)}: written with a window of {newest.window}, "
                f"but the log was given out with {self._window}"
            )
