"""The state of one incarnation's log at the last place where all that it takes is there.

A log can be read up to `e` when everything from the trim that object e-1 carries is there without
a gap, and what the control records since the last checkpoint name can be read. What lies behind is
looked at only to tell what is lost. Records that streams have in other objects are not looked at
here: see `streams`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from s3stream.control import Report, decode_control
from s3stream.entries import StreamEntry
from s3stream.takeover import recover
from wal.errors import LogError
from wal.format import Kind, ObjectHeader, ObjectIndex, read_header, read_index
from wal.keys import wal_log
from wal.parallel import each_of

from .metadata import read_end_or_none
from .survey import Listed

READS_AT_ONCE = 32

LOG_FAULTS = (Corrupt, NotFound, LogError)


@dataclass(frozen=True, slots=True)
class LogState:
    """end: exclusive. reached: of each stream the end of what lies behind `end`, for the word on
    what is lost. fault: why it does not go on there; None: nothing is behind. entries: by stream,
    closed ones too.
    """

    incarnation: int
    end: int
    entries: dict[int, StreamEntry]
    fault: str | None = None
    reached: dict[int, int] = field(default_factory=dict)
    window: int | None = None


@dataclass(slots=True)
class _Object:
    header: ObjectHeader
    index: ObjectIndex | None
    names: bool


class LogReader:
    """One log, looked at once; then its state at one place or at lower ones."""

    def __init__(self, store: ObjectStore, listed: Listed, incarnation: int) -> None:
        self._store = store
        self._listed = listed
        self._log = wal_log(incarnation)
        self._incarnation = incarnation
        self._objects: dict[int, _Object] = {}
        self._bound: int | None = None

    async def read(self) -> LogState:
        """The state at the highest place there is."""
        self._bound = (await read_end_or_none(self._store, self._listed, self._log))[0]
        await self._look()
        return await self._state_below(None)

    async def read_before(self, end: int) -> LogState:
        """The state before the last record below `end` that names other objects, or opens streams;
        see `read`, which comes first.
        """
        return await self._state_below(self._last_naming(end))

    def _last_naming(self, end: int) -> int:
        """0: there is none."""
        naming = (seq for seq, one in self._objects.items() if one.names and seq < end)
        return max(naming, default=0)

    async def _look(self) -> None:
        async def one(seq: int) -> tuple[int, _Object | None]:
            key = self._log.key(seq)
            try:
                header = await read_header(self._store, key)
                if header.kind is not Kind.LOG or (header.log_id, header.seq) != (
                    self._incarnation,
                    seq,
                ):
                    return seq, None
            except (Corrupt, NotFound):
                return seq, None
            try:
                index = await read_index(self._store, key, self._listed.sizes[key])
                names = any(
                    not isinstance(decode_control(control, key), Report)
                    for control in index.controls
                )
            except (Corrupt, NotFound):
                return seq, _Object(header, None, True)
            return seq, _Object(header, index, names)

        sequences = [
            seq
            for seq in self._listed.logs.get(self._log, ())
            if self._bound is None or seq < self._bound
        ]
        for seq, found in await each_of(one, sequences, READS_AT_ONCE):
            if found is not None:
                self._objects[seq] = found

    async def _state_below(self, limit: int | None) -> LogState:
        fault: str | None = None
        below: int | None = limit
        for end in self._candidates():
            if below is not None and end > below:
                continue
            try:
                found = await recover(self._store, self._incarnation, end)
            except LOG_FAULTS as error:
                fault = fault or str(error)
                # Only leaving out a record that names something, or an object, can mend it.
                below = self._last_naming(end)
                continue
            return self._told(end, dict(found.entries), fault)
        return self._told(0, {}, fault)

    def _candidates(self) -> Iterator[int]:
        """Ends at which no object from the trim on is missing, the highest first."""
        run_start: dict[int, int] = {}
        for seq in sorted(self._objects):
            whole = self._objects[seq].index is not None
            if whole:
                run_start[seq] = run_start.get(seq - 1, seq)
        for seq in sorted(run_start, reverse=True):
            if self._objects[seq].header.trim >= run_start[seq]:
                yield seq + 1

    def _told(self, end: int, entries: dict[int, StreamEntry], fault: str | None) -> LogState:
        reached: dict[int, int] = {}
        for seq in sorted(self._objects):
            index = self._objects[seq].index
            if seq < end or index is None:
                continue
            for one in index.ranges:
                reached[one.stream_id] = max(reached.get(one.stream_id, 0), one.end_offset)
        behind = any(seq >= end for seq in self._objects) or (
            self._bound is not None and self._bound > end
        )
        if behind and fault is None:
            fault = f"{self._log.key(end)}: missing, though the log goes on"
        window = next((one.header.window for one in self._objects.values()), None)
        return LogState(self._incarnation, end, entries, fault if behind else None, reached, window)
