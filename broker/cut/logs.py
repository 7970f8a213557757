"""The state of one incarnation's log at the last place where all that it takes is there.

A state is a checkpoint, and the log's objects from its place on as far as none is missing, and what
their control records name. A checkpoint counts wherever it is, behind a hole too: it tells only of
what was durable. What lies behind a state is looked at to tell what is lost. Records that streams
have in other objects, or in objects below the checkpoint, are not looked at here: see `streams`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from s3stream.control import Checkpoint, Report, decode_control
from s3stream.entries import StreamEntry
from s3stream.takeover import recover_from
from wal.errors import LogError
from wal.format import Kind, ObjectHeader, ObjectIndex, read_header, read_index
from wal.keys import wal_log
from wal.parallel import each_of
from wal.recovery import LogObject

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
        self._run_ends: dict[int, int] = {}
        self._checkpoints: list[tuple[Checkpoint, int]] = []
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
        # Of each object the end of the run without a gap that it is in.
        for seq in sorted(self._objects, reverse=True):
            index = self._objects[seq].index
            if index is None:
                continue
            self._run_ends[seq] = self._run_ends.get(seq + 1, seq + 1)
            for control in index.controls:
                record = decode_control(control, self._log.key(seq))
                if isinstance(record, Checkpoint):
                    self._checkpoints.append((record, seq))

    async def _state_below(self, limit: int | None) -> LogState:
        fault: str | None = None
        while True:
            best = self._best_below(limit)
            if best is None:
                return self._told(0, {}, fault)
            end, found = best
            first = found[0].as_of_seq + 1 if found is not None else 0
            tail = [self._log_object(seq) for seq in range(first, end)]
            try:
                state = await recover_from(self._store, self._incarnation, end, found, tail)
            except LOG_FAULTS as error:
                fault = fault or str(error)
                if found is not None and not await self._is_readable(found):
                    self._checkpoints.remove(found)
                elif end == first:
                    return self._told(0, {}, fault)
                else:
                    # Only leaving out a record that names something can mend it.
                    limit = max(first, self._last_naming(end))
                continue
            return self._told(end, dict(state.entries), fault)

    async def _is_readable(self, found: tuple[Checkpoint, int]) -> bool:
        end = found[0].as_of_seq + 1
        try:
            await recover_from(self._store, self._incarnation, end, found, [])
        except LOG_FAULTS:
            return False
        return True

    def _best_below(self, limit: int | None) -> tuple[int, tuple[Checkpoint, int] | None] | None:
        """(end, checkpoint) of the state that goes furthest, `limit` at most. None: there is none.

        Of two that go as far the one with the later checkpoint, which needs less.
        """
        choices: list[tuple[int, int, tuple[Checkpoint, int] | None]] = []
        if 0 in self._run_ends:
            choices.append((self._run_ends[0], -1, None))
        for found in self._checkpoints:
            first = found[0].as_of_seq + 1
            choices.append((self._run_ends.get(first, first), first, found))
        within = [
            (end if limit is None else min(end, limit), first, found)
            for end, first, found in choices
            if limit is None or first <= limit
        ]
        best = max(within, key=lambda one: one[:2], default=None)
        return None if best is None else (best[0], best[2])

    def _log_object(self, seq: int) -> LogObject:
        found = self._objects[seq]
        assert found.index is not None, seq
        key = self._log.key(seq)
        size = self._listed.sizes[key]
        return LogObject(seq, key, found.header.write_id, size, found.header, found.index)

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
