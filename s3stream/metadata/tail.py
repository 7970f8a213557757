"""Reading the metadata log: from the newest snapshot through the terms to the tail.

A missing next record is the tail, unless the log's `end` or the `trim` of a higher object lies
beyond it: then records went away below a newer snapshot while this reader slept, and it starts
again from there. Where there is no newer snapshot, it is a hole, and the reader stops.
"""

from __future__ import annotations

from dataclasses import dataclass

from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from wal.errors import HoleInLog, TrimmedAway
from wal.keys import DATA_PREFIX, WAL_PREFIX, LogName, meta_log
from wal.recovery import read_tail
from wal.seal import read_end

from .apply import apply
from .image import EMPTY_IMAGE, MetadataImage
from .records import Position, decode_record
from .snapshot import SnapshotName, list_snapshots, read_snapshot

META_PREFIX = "meta/"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a reader knows. term: the first without an `end`; next_seq: its first unread place.

    owner: the process that owns `term` (it made the `end` before; b"" for term 0, whose first
    record names its owner). snapshot: what the image was built on. terms, records, size_bytes: what
    had to be read after it.
    """

    image: MetadataImage
    term: int
    next_seq: int
    owner: bytes
    snapshot: SnapshotName | None
    terms: int = 0
    records: int = 0
    size_bytes: int = 0


async def load(store: ObjectStore) -> Loaded | None:
    """Everything there is; None where no cluster was ever made in this store.

    Raises Corrupt or HoleInLog where there is something that cannot be read: a cluster is never
    made anew over another. Raises StoreError as the store does.
    """
    tried: SnapshotName | None = None
    first = True
    while True:
        snapshots = await list_snapshots(store)
        newest = snapshots[-1] if snapshots else None
        try:
            return await _load_from(store, newest)
        except (NotFound, TrimmedAway, HoleInLog) as error:
            # Only a newer snapshot explains it.
            if not first and newest == tried:
                if isinstance(error, HoleInLog):
                    raise
                raise HoleInLog(
                    meta_log(newest.term if newest else 0),
                    newest.seq if newest else 0,
                    f"no newer snapshot explains it ({error})",
                ) from error
            tried, first = newest, False


async def _load_from(store: ObjectStore, newest: SnapshotName | None) -> Loaded | None:
    if newest is None:
        # Listed before it is read: what another process makes in between must not look like
        # metadata without a beginning.
        there = await _first_key(store, META_PREFIX)
        if there is None:
            await _refuse_remains(store)
            return None
        found = await read_on(store, Loaded(EMPTY_IMAGE, 0, 0, b"", None))
        if not found.image.cluster_id:
            raise Corrupt(
                f"{there}: there is metadata in this store, but no record that begins a cluster; "
                "it is left as it is. Choose another store, or restore what was deleted"
            )
        return found
    image = await read_snapshot(store, newest)
    return await read_on(store, Loaded(image, newest.term, newest.seq + 1, b"", newest))


async def _refuse_remains(store: ObjectStore) -> None:
    """Raises Corrupt where logs or data are left of a cluster whose metadata is gone."""
    for prefix in (WAL_PREFIX, DATA_PREFIX):
        left = await _first_key(store, prefix)
        # Another process may be making the cluster right now.
        if left is not None and await _first_key(store, META_PREFIX) is None:
            raise Corrupt(
                f"{left}: there is data in this store, but no metadata that tells of it; it is "
                "left as it is. Choose another store or prefix, or restore what was deleted"
            )


async def _first_key(store: ObjectStore, prefix: str) -> str | None:
    async for info in store.list(prefix):
        return info.key
    return None


async def read_on(store: ObjectStore, loaded: Loaded) -> Loaded:
    """Continue to the tail, through as many terms as have ended meanwhile.

    Raises TrimmedAway, HoleInLog or NotFound where records went away: `load` starts again.
    """
    image = loaded.image
    term, next_seq, owner = loaded.term, loaded.next_seq, loaded.owner
    terms, records, size_bytes = loaded.terms, loaded.records, loaded.size_bytes
    while True:
        log = meta_log(term)
        end = await read_end(store, log)
        objects = await read_tail(store, log, None if end is None else end.end, from_seq=next_seq)
        for one in objects:
            image = fold(image, log, one.seq, one.index.controls)
            next_seq = one.seq + 1
            records += len(one.index.controls)
            size_bytes += one.size
        if end is None:
            return Loaded(image, term, next_seq, owner, loaded.snapshot, terms, records, size_bytes)
        if next_seq < end.end:
            raise HoleInLog(log, next_seq, f"the log ends at {end.end}")
        term, next_seq, owner = term + 1, 0, end.maker
        terms += 1


def fold(image: MetadataImage, log: LogName, seq: int, controls: list[bytes]) -> MetadataImage:
    """The image after one log object."""
    key = log.key(seq)
    for n, control in enumerate(controls):
        position = Position(log.log_id, seq, n)
        try:
            image = apply(image, decode_record(control, key), position)
        except Corrupt as error:
            raise Corrupt(f"{key}: {error}") from error
    return image
