"""What a cut would keep and lose: reads everything, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from objectstore.store import ObjectStore
from s3stream.entries import StreamEntry
from s3stream.garbage import streams_by_holder
from s3stream.metadata.image import IncarnationState, MetadataImage, PartitionImage
from s3stream.takeover import SourceRef, read_source

from .groups import OFFSETS_TOPIC, GroupBehind, groups_behind
from .logs import LOG_FAULTS, LogReader, LogState
from .losses import Loss
from .metadata import ReadMetadata, read_metadata
from .streams import OnProgress, cut_short, first_faults
from .survey import Listed, list_bucket

OLDER_STATES = 16


@dataclass(slots=True)
class Plan:
    """entries: of each partition's stream what is kept; none for one that was never opened.

    groups: whose committed offsets lie behind what is kept. states: of the logs that were read.
    unknown_streams: found in logs, in no topic any more.
    """

    listed: Listed
    metadata: ReadMetadata
    states: dict[int, LogState] = field(default_factory=dict)
    entries: dict[int, StreamEntry] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    groups: list[GroupBehind] = field(default_factory=list)
    unknown_streams: int = 0

    @property
    def image(self) -> MetadataImage:
        return self.metadata.image

    @property
    def log_faults(self) -> list[str]:
        """Of logs that go on behind what could be read."""
        return [
            f"wal/{one.incarnation}: kept up to object {one.end}: {one.fault}"
            for one in self.states.values()
            if one.fault is not None
        ]

    @property
    def is_lossy(self) -> bool:
        return bool(self.metadata.fault or self.losses or self.log_faults or self.unknown_streams)


async def plan(store: ObjectStore, on_progress: OnProgress = lambda done, of: None) -> Plan:
    """on_progress: called with bytes read and bytes to read.

    Raises Fault where nothing can be kept, and the store's trouble.
    """
    listed = await list_bucket(store)
    found = Plan(listed, await read_metadata(store, listed))
    await _Planning(store, found, on_progress).run()
    return found


class _Planning:
    def __init__(self, store: ObjectStore, plan: Plan, on_progress: OnProgress) -> None:
        self._store = store
        self._on_progress = on_progress
        self._plan = plan
        self._image = plan.image
        self._candidates: dict[int, list[StreamEntry]] = {}
        self._readers: dict[int, LogReader] = {}
        self._older: dict[int, list[LogState]] = {}
        self._places = {
            partition.stream_id: (topic.name, partition)
            for topic, partition in self._image.partitions()
        }

    async def run(self) -> None:
        states = self._image.incarnations
        for incarnation in sorted({*self._plan.listed.incarnations, *states}):
            known = states.get(incarnation)
            if known is None or known.ended is None:
                await self._read_log(incarnation)
        holders = streams_by_holder(self._image)
        for incarnation in sorted(holders):
            known = states.get(incarnation)
            if known is not None and known.ended is not None:
                await self._read_ended(known, holders[incarnation])
        if needy := [one for one in self._places if self._is_needy(one)]:
            await self._look_everywhere(needy)
        await self._keep()

    # What logs and recovery objects tell

    async def _read_log(self, incarnation: int) -> None:
        if incarnation in self._plan.states:
            return
        reader = self._readers[incarnation] = LogReader(self._store, self._plan.listed, incarnation)
        state = self._plan.states[incarnation] = await reader.read()
        self._add(state.entries.values())

    async def _read_ended(self, known: IncarnationState, wanted: list[int]) -> None:
        if known.recovery is None:
            return
        source = SourceRef(known.incarnation, known.recovery)
        try:
            found = await read_source(self._store, source, wanted)
        except LOG_FAULTS:
            # The log itself says the same, for as long as it is there.
            await self._read_log(known.incarnation)
        else:
            self._add(found.entries.values())

    async def _look_everywhere(self, needy: list[int]) -> None:
        """What was recorded as opened is not in the opener's log: an earlier holder may tell."""
        for incarnation in sorted(self._image.incarnations, reverse=True):
            known = self._image.incarnations[incarnation]
            if known.ended is not None:
                await self._read_ended(known, needy)

    def _add(self, entries: Iterable[StreamEntry]) -> None:
        for entry in entries:
            self._candidates.setdefault(entry.stream_id, []).append(entry)

    def _best(self, stream_id: int) -> StreamEntry | None:
        found = self._candidates.get(stream_id, [])
        return max(found, key=lambda one: (tuple(one.appointment), one.next_offset), default=None)

    def _is_needy(self, stream_id: int) -> bool:
        _, place = self._places[stream_id]
        best = self._best(stream_id)
        if best is None:
            return not place.is_new
        opened = place.source is None and not place.is_new
        return opened and tuple(best.appointment) < tuple(place.appointment)

    # What is kept of it

    async def _keep(self) -> None:
        chosen: dict[str, StreamEntry] = {}
        for stream_id, (topic, place) in sorted(self._places.items()):
            best = self._best(stream_id)
            if best is not None:
                chosen[f"{topic}-{place.index}"] = best
        faults = await first_faults(self._store, chosen, self._on_progress)
        reached: dict[int, int] = {}
        for state in self._plan.states.values():
            for stream_id, end in state.reached.items():
                reached[stream_id] = max(end, reached.get(stream_id, 0))
        for stream_id, (topic, place) in sorted(self._places.items()):
            entry = chosen.get(f"{topic}-{place.index}")
            if entry is None:
                if not place.is_new or stream_id in reached:
                    self._lose(topic, place, 0, reached.get(stream_id), "nothing tells of it")
                if not place.is_new:
                    self._plan.entries[stream_id] = StreamEntry(stream_id, 0, (0, 0, 0))
                continue
            fault = faults.get(f"{topic}-{place.index}")
            why = "the log behind it is not whole"
            end = max(entry.next_offset, reached.get(stream_id, 0))
            if fault is not None:
                why = fault[1]
                entry = await self._mend(f"{topic}-{place.index}", entry, fault[0])
            self._plan.entries[stream_id] = entry
            if entry.next_offset < end:
                self._lose(topic, place, entry.next_offset, end, why)
            elif self._is_needy(stream_id):
                self._lose(
                    topic, place, entry.next_offset, None,
                    f"its newest leader's log (incarnation {place.leader}) is not there",
                )  # fmt: skip
        self._plan.groups = await self._groups_behind()
        unknown = {*self._candidates, *reached} - self._places.keys()
        self._plan.unknown_streams = len(
            [one for one in unknown if one >= self._image.next_stream_id]
        )

    async def _groups_behind(self) -> list[GroupBehind]:
        offsets: list[StreamEntry] = []
        ends: dict[tuple[str, int], int] = {}
        for stream_id, (topic, place) in sorted(self._places.items()):
            entry = self._plan.entries.get(stream_id)
            if topic == OFFSETS_TOPIC and entry is not None:
                offsets.append(entry)
            ends[topic, place.index] = 0 if entry is None else entry.next_offset
        return await groups_behind(self._store, offsets, ends)

    async def _mend(self, name: str, entry: StreamEntry, fault_at: int) -> StreamEntry:
        """Cut at the fault; or, where a log still holds what was put into the object that is
        missing or damaged, the state before that, if it is more.
        """
        best = await cut_short(self._store, entry, fault_at)
        for incarnation in reversed(self._plan.listed.incarnations):
            for state in await self._older_states(incarnation):
                found = state.entries.get(entry.stream_id)
                if found is None or found.next_offset <= best.next_offset:
                    continue
                if found.next_offset > _valid(found, entry):
                    continue
                faults = await first_faults(self._store, {name: found})
                end = faults[name][0] if faults else found.next_offset
                if end > best.next_offset:
                    best = await cut_short(self._store, found, end) if faults else found
        return best

    async def _older_states(self, incarnation: int) -> list[LogState]:
        """The newest first. Each is one more reading of the log."""
        if incarnation not in self._older:
            await self._read_log(incarnation)
            states = self._older[incarnation] = [self._plan.states[incarnation]]
            while states[-1].end and len(states) < OLDER_STATES:
                states.append(await self._readers[incarnation].read_before(states[-1].end))
        return self._older[incarnation]

    def _lose(
        self, topic: str, place: PartitionImage, first: int, end: int | None, why: str
    ) -> None:
        self._plan.losses.append(Loss(topic, place.index, first, end, why))


def _valid(older: StreamEntry, newest: StreamEntry) -> int:
    """Up to where an older leader's log tells what the stream has, and not what was left out when
    its successor took over.
    """
    later = (first for epoch, first in newest.leader_epochs if epoch > older.epoch)
    return min(later, default=newest.next_offset)


def newest_of(plan: Plan) -> int:
    """The lowest incarnation that was never given out, as far as anything tells."""
    return max(plan.image.next_incarnation, *(one + 1 for one in plan.listed.makers), 0)


def unended(image: MetadataImage) -> list[int]:
    """Incarnations whose log nobody has taken over yet, live ones too."""
    return sorted(i for i, state in image.incarnations.items() if state.ended is None)
