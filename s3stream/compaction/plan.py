"""What to merge next: a pure decision over what the streams of one broker have in data objects.

Objects are sorted into tiers by size, each tier `fan_in` times as large as the one below. As soon
as a tier holds `fan_in` mixed objects (several streams in one) they are merged into one of a
higher tier, so each byte is written anew once a tier at most, and a stream's history lies in few
objects. An object of which less than `least_alive` is still referred to is rewritten with them.

Adopted objects of a log are in no tier: as soon as there is as much of them as an upload would have
held they are merged, to where the copy that adopting saved would be now, and not in smaller steps.

A stream that has `own_object_bytes` or more in what is merged gets objects of its own, cut to
`own_object_max_bytes`, since history leaves a stream by whole objects; those are not merged again.

A range is taken whole or not at all: its sum is what proves that the copy is right. But where the
start of a stream lies in the middle of a range, and what is below it is as much as the stream still
has, the range counts without the blocks that are below: they are not copied, and so a stream takes
at most twice its bytes, and a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wal.format import HEADER_SIZE
from wal.keys import WAL_PREFIX

from ..entries import StreamEntry
from ..refs import ObjectRange, ObjectRef

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class CompactionConfig:
    """fan_in: objects of one tier that are merged at once. base_tier_bytes: the lowest tier ends
    here. max_object_bytes: of a mixed merged object; what is above an eighth of it (an eighth with
    a fan_in of 8) is not merged again. least_alive: share of an object below which it is
    rewritten; with it space amplification stays below 1 / least_alive. least_trimmed: share of a
    stream that lies below its start, from which on its first range counts without it; less is not
    worth the copies, which a stream that retention trims all the time would cause. requests_per_s,
    bytes_per_s: what a merge may take of the store, read and written together.
    idle_exit_s: the worker process ends after as long without work.
    """

    fan_in: int = 8
    base_tier_bytes: int = MIB
    max_object_bytes: int = 1024 * MIB
    own_object_bytes: int = 64 * MIB
    own_object_max_bytes: int = 256 * MIB
    least_alive: float = 0.5
    least_trimmed: float = 0.5
    requests_per_s: float = 20.0
    bytes_per_s: float = 32.0 * MIB
    idle_exit_s: float = 5.0

    def __post_init__(self) -> None:
        if self.fan_in < 2:
            raise ValueError("compaction.fan_in must be at least 2")
        if not 0 < self.least_alive < 1:
            raise ValueError("compaction.least_alive is a share, between 0 and 1")
        if not 0 < self.least_trimmed < 1:
            raise ValueError("compaction.least_trimmed is a share, between 0 and 1")
        if not 0 < self.own_object_bytes <= self.own_object_max_bytes:
            raise ValueError("compaction.own_object_bytes must be above 0 and within its maximum")
        if min(self.base_tier_bytes, self.max_object_bytes) < 1:
            raise ValueError("compaction sizes must be above 0")
        if min(self.requests_per_s, self.bytes_per_s) <= 0:
            raise ValueError("a budget of compaction must be above 0")


@dataclass(frozen=True, slots=True)
class ObjectUse:
    """What streams still have in one object. alive_bytes: of their batches."""

    ref: ObjectRef
    alive_bytes: int
    ranges: tuple[tuple[int, ObjectRange], ...]

    @property
    def is_mixed(self) -> bool:
        first = self.ranges[0][0]
        return any(stream_id != first for stream_id, _ in self.ranges)

    @property
    def is_of_log(self) -> bool:
        """Adopted: it was written as an object of a log."""
        return self.ref.key.startswith(WAL_PREFIX)

    @property
    def stored_bytes(self) -> int:
        """Of all batches in it. Not the header: it would make waste of an object of one batch,
        which would be rewritten, as it is, for ever.
        """
        return max(self.ref.index_position - HEADER_SIZE, self.alive_bytes)

    @property
    def alive_share(self) -> float:
        return self.alive_bytes / max(1, self.stored_bytes)


@dataclass(frozen=True, slots=True)
class Output:
    """One object to be written: ranges by stream, then offset."""

    ranges: tuple[tuple[int, ObjectRange], ...]

    @property
    def size_bytes(self) -> int:
        return sum(one.size_bytes for _, one in self.ranges)


@dataclass(frozen=True, slots=True)
class Plan:
    """removed: objects that the streams will not refer to any more. outputs: what replaces them."""

    removed: tuple[ObjectRef, ...]
    outputs: tuple[Output, ...]


def object_uses(entries: Iterable[StreamEntry]) -> list[ObjectUse]:
    """Oldest first, each object that awaits no upload and holds something of an open stream."""
    found: dict[ObjectRef, list[tuple[int, ObjectRange]]] = {}
    kept_out: dict[ObjectRef, None] = {}
    for entry in entries:
        for one in entry.ranges:
            # A tail is the uploader's business, and a closed stream is its next leader's.
            if entry.closed or one.end_offset > entry.uploaded_to:
                kept_out[one.object] = None
            else:
                found.setdefault(one.object, []).append((entry.stream_id, one))
    uses = []
    for ref, ranges in found.items():
        if ref in kept_out:
            continue
        ranges.sort(key=lambda pair: (pair[0], pair[1].base_offset))
        uses.append(ObjectUse(ref, sum(one.size_bytes for _, one in ranges), tuple(ranges)))
    return sorted(uses, key=lambda use: _age(use.ref))


def mostly_trimmed(entry: StreamEntry, least_share: float) -> ObjectRange | None:
    """The first range of a stream, where about that share of what it has lies below its start.

    An estimate, by the share of the offsets: the blocks are in the object's index.
    """
    if entry.closed or entry.history or not entry.ranges:
        return None
    first = entry.ranges[0]
    if first.end_offset > entry.uploaded_to or first.batch_count == 1:
        return None
    offsets = first.end_offset - first.base_offset
    below = first.size_bytes * (entry.start_offset - first.base_offset) // offsets
    return first if below and below >= least_share * entry.live.size_bytes else None


def without(use: ObjectUse, stream_id: int, whole: ObjectRange, rest: ObjectRange) -> ObjectUse:
    """`use` with the rest of a stream's range in the place of all of it."""
    ranges = tuple(
        (one, rest if (one, held) == (stream_id, whole) else held) for one, held in use.ranges
    )
    return ObjectUse(use.ref, use.alive_bytes - whole.size_bytes + rest.size_bytes, ranges)


def space_amplification(uses: Sequence[ObjectUse]) -> float:
    """Bytes of records stored for each that is alive; 1.0 where nothing is stored."""
    alive = sum(use.alive_bytes for use in uses)
    stored = sum(use.stored_bytes for use in uses)
    return stored / alive if alive else 1.0


def tier_of(size_bytes: int, config: CompactionConfig) -> int:
    tier, limit = 0, config.base_tier_bytes
    while size_bytes >= limit:
        tier, limit = tier + 1, limit * config.fan_in
    return tier


def plan_compaction(uses: Sequence[ObjectUse], config: CompactionConfig) -> Plan | None:
    """The most useful merge there is now; None when all is well.

    Asked again after each, until it is None: every merge leaves fewer objects or fewer dead bytes.
    """
    chosen = _choose(uses, config)
    if not chosen:
        return None
    by_stream: dict[int, list[ObjectRange]] = {}
    for use in chosen:
        for stream_id, one in use.ranges:
            by_stream.setdefault(stream_id, []).append(one)
    own: list[Output] = []
    mixed: list[tuple[int, ObjectRange]] = []
    for stream_id in sorted(by_stream):
        ranges = sorted(by_stream[stream_id], key=lambda one: one.base_offset)
        if sum(one.size_bytes for one in ranges) >= config.own_object_bytes:
            pairs = [(stream_id, one) for one in ranges]
            own += _cut(pairs, config.own_object_max_bytes)
        else:
            mixed += [(stream_id, one) for one in ranges]
    outputs = own + _cut(mixed, config.max_object_bytes)
    removed = sorted((use.ref for use in chosen), key=_age)
    return Plan(tuple(removed), tuple(outputs))


def _choose(uses: Sequence[ObjectUse], config: CompactionConfig) -> list[ObjectUse]:
    tiers: dict[int, list[ObjectUse]] = {}
    wasted: list[ObjectUse] = []
    adopted: list[ObjectUse] = []
    for use in uses:
        if use.alive_share < config.least_alive:
            wasted.append(use)
        elif use.is_of_log:
            adopted.append(use)
        elif use.alive_bytes * config.fan_in <= config.max_object_bytes and (
            use.is_mixed or use.alive_bytes < config.own_object_bytes
        ):
            tiers.setdefault(tier_of(use.alive_bytes, config), []).append(use)
    if _alive(adopted) >= config.own_object_bytes:
        chosen = _oldest(adopted, min(2 * config.own_object_bytes, config.max_object_bytes))
        return chosen + _within(wasted, config.max_object_bytes - _alive(chosen))
    for tier in sorted(tiers):
        if len(tiers[tier]) >= config.fan_in:
            chosen = tiers[tier][: 2 * config.fan_in]
            return chosen + _within(wasted, config.max_object_bytes - _alive(chosen))
    return _within(wasted, config.max_object_bytes, at_least_one=True)


def _oldest(uses: Sequence[ObjectUse], limit_bytes: int) -> list[ObjectUse]:
    """As many as fit, but two at least: one alone would be merged with nothing."""
    taken: list[ObjectUse] = []
    for use in uses:
        if len(taken) >= 2 and _alive(taken) + use.alive_bytes > limit_bytes:
            break
        taken.append(use)
    return taken


def _within(
    uses: Sequence[ObjectUse], limit_bytes: int, *, at_least_one: bool = False
) -> list[ObjectUse]:
    """The emptiest first, as many as fit."""
    taken: list[ObjectUse] = []
    left = limit_bytes
    for use in sorted(uses, key=lambda use: (use.alive_share, use.ref.key)):
        if use.alive_bytes > left and not (at_least_one and not taken):
            break
        taken.append(use)
        left -= use.alive_bytes
    return taken


def _age(ref: ObjectRef) -> str:
    """Of one maker, by number; of a data object the folder before the name is only a hash of it."""
    if ref.key.startswith(WAL_PREFIX):
        return ref.key.removeprefix(WAL_PREFIX)
    return ref.key.rpartition("/")[2]


def _alive(uses: Sequence[ObjectUse]) -> int:
    return sum(use.alive_bytes for use in uses)


def _cut(pairs: Sequence[tuple[int, ObjectRange]], limit_bytes: int) -> list[Output]:
    """Outputs of at most `limit_bytes`, or of one range."""
    outputs: list[Output] = []
    current: list[tuple[int, ObjectRange]] = []
    size = 0
    for stream_id, one in pairs:
        if current and size + one.size_bytes > limit_bytes:
            outputs.append(Output(tuple(current)))
            current, size = [], 0
        current.append((stream_id, one))
        size += one.size_bytes
    if current:
        outputs.append(Output(tuple(current)))
    return outputs
