"""Deleting what snapshots made needless: old records, then old snapshots.

Records of the own term go below the trim of a durable object, those of ended terms once a snapshot
beyond them is durable; a snapshot goes after two newer ones. `meta/0/0`, seals and ends are never
deleted, and nothing of a term that has no `end`, but for the own one.
"""

from __future__ import annotations

from objectstore.errors import Corrupt, NotFound, StoreError
from objectstore.store import ObjectInfo, ObjectStore
from wal.format import HEADER_SIZE, Kind, read_header
from wal.keys import LogName, meta_log
from wal.seal import read_end

from .snapshot import SnapshotName, list_snapshots

KEPT_SNAPSHOTS = 3
DELETE_AT_ONCE = 1000
# A seal is a header and little more; what is larger needs no look inside.
SEAL_BYTES_AT_MOST = HEADER_SIZE + 256


class Retirement:
    """One process's deleting; does no harm where two do it at the same time."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._durable_trim: tuple[LogName, int] | None = None

    def note_durable(self, log: LogName, trim: int) -> None:
        """An object of the own log is durable whose header carries `trim`."""
        if self._durable_trim is None or trim > self._durable_trim[1]:
            self._durable_trim = (log, trim)

    async def run(self, newest: SnapshotName) -> None:
        """After `newest` became durable. Trouble of the store leaves the rest to the next time."""
        try:
            snapshots = await list_snapshots(self._store)
            if self._durable_trim is not None:
                log, trim = self._durable_trim
                await self._delete_records(log, trim)
            # An old snapshot goes last: as long as it is there, what came after it is looked
            # through again, so a crash in between leaves nothing behind.
            first = snapshots[0].term if len(snapshots) > KEPT_SNAPSHOTS else 0
            for term in range(first, newest.term):
                end = await read_end(self._store, meta_log(term))
                if end is not None:
                    await self._delete_records(meta_log(term), end.end)
            old = [name.key for name in snapshots[:-KEPT_SNAPSHOTS]]
            if old:
                await self._store.delete(old)
        except StoreError:
            return  # garbage waits; the trouble itself is told by those who must write

    async def _delete_records(self, log: LogName, below: int) -> None:
        keys: list[str] = []
        async for info in self._store.list(log.prefix):
            seq = log.seq_of(info.key)
            if seq is None or seq >= below:
                break
            if (log.log_id or seq) and not await self._is_seal(info):
                keys.append(info.key)
            if len(keys) == DELETE_AT_ONCE:
                await self._store.delete(keys)
                keys = []
        if keys:
            await self._store.delete(keys)

    async def _is_seal(self, info: ObjectInfo) -> bool:
        """True also where nobody can tell."""
        if info.size_bytes > SEAL_BYTES_AT_MOST:
            return False
        try:
            return (await read_header(self._store, info.key)).kind != Kind.LOG
        except (NotFound, Corrupt):
            return True
