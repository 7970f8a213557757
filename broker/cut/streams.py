"""Of each partition the newest state that any log tells, kept up to its first fault.

What a later leader's log tells goes before what an earlier one's does, whether or not the metadata
log, as far as it can be read, knows of that leader: a stream id is given out once, so a stream is
one partition's for ever. Every object of the state is read and proven; the first range that is
missing or damaged ends the stream, and its producers' batches from there on are forgotten: else
one who sends a lost batch again would be told that it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from broker.verify.contents_walk import Wanted, check_object
from broker.verify.fault import Fault
from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from s3stream.entries import NO_TRANSACTION, ProducerEntry, StreamEntry, Tally
from s3stream.history import read_history
from s3stream.refs import ObjectRange, ObjectRef
from wal.parallel import each_of

OBJECTS_AT_ONCE = 4
FAULTS = (Fault, Corrupt, NotFound)


@dataclass(slots=True)
class _Expanded:
    """histories: of each index object of the history its ranges; ends at one that is unreadable."""

    entry: StreamEntry
    histories: list[list[ObjectRange]] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def ranges(self) -> Iterable[ObjectRange]:
        for ranges in self.histories:
            yield from ranges
        if len(self.histories) == len(self.entry.history):
            yield from self.entry.ranges


OnProgress = Callable[[int, int], None]


async def first_faults(
    store: ObjectStore,
    entries: dict[str, StreamEntry],
    on_progress: OnProgress = lambda done, of: None,
) -> dict[str, tuple[int, str]]:
    """entries: by the partition's name. Of those with a fault where it begins, and what it is.

    on_progress: called with bytes of objects that were read, and of all.
    """
    expanded = {name: await _expand(store, entry) for name, entry in sorted(entries.items())}
    wanted: dict[ObjectRef, list[Wanted]] = {}
    for name, one in expanded.items():
        for found in one.ranges:
            wanted.setdefault(found.object, []).append(Wanted(name, one.entry.stream_id, found))

    whole = sum(ref.size_bytes for ref in wanted)
    done = 0

    async def check(ref: ObjectRef) -> None:
        nonlocal done
        done += ref.size_bytes
        on_progress(done, whole)
        try:
            await check_object(store, ref, wanted[ref])
        except FAULTS as error:
            # Of several streams in it perhaps only one is hit.
            for each in wanted[ref]:
                why = str(error)
                if len(wanted[ref]) > 1:
                    try:
                        await check_object(store, ref, [each])
                        continue
                    except FAULTS as own:
                        why = str(own)
                expanded[each.partition].faults[each.range.base_offset] = why

    await each_of(check, sorted(wanted), OBJECTS_AT_ONCE)
    return {
        name: (min(one.faults), one.faults[min(one.faults)])
        for name, one in expanded.items()
        if one.faults
    }


async def _expand(store: ObjectStore, entry: StreamEntry) -> _Expanded:
    expanded = _Expanded(entry)
    for index in entry.history:
        try:
            expanded.histories.append(await read_history(store, index, entry.stream_id))
        except FAULTS as error:
            expanded.faults[index.base_offset] = str(error)
            break
    return expanded


async def cut_short(store: ObjectStore, entry: StreamEntry, fault_at: int) -> StreamEntry:
    """A copy of the entry that ends at `fault_at`, which is where one of its ranges begins."""
    history: list[ObjectRange] = []
    ranges: list[ObjectRange] = []
    for index in entry.history:
        if index.end_offset <= fault_at:
            history.append(index)
        elif index.base_offset < fault_at:
            ranges += await read_history(store, index, entry.stream_id)
    ranges = [one for one in [*ranges, *entry.ranges] if one.end_offset <= fault_at]
    end = max(fault_at, entry.start_offset)
    if end > fault_at:
        history, ranges = [], []  # all of it was below the start, but for what is lost
    live = Tally.of([*history, *ranges])
    total = replace(entry.trimmed)
    total.add(live)
    return replace(
        entry,
        next_offset=end,
        uploaded_to=min(entry.uploaded_to, end) if ranges else end,
        history=history,
        ranges=ranges,
        producers=_producers_below(entry.producers.values(), end),
        aborted=[one for one in entry.aborted if one.last_offset < end],
        leader_epochs=[one for one in entry.leader_epochs if one[1] <= end],
        large=[one for one in entry.large if one.base_offset < end],
        live=live,
        total=total,
    )


def _producers_below(producers: Iterable[ProducerEntry], end: int) -> dict[int, ProducerEntry]:
    kept: dict[int, ProducerEntry] = {}
    for one in producers:
        batches = [batch for batch in one.batches if batch[3] < end]
        if not batches and one.batches:
            continue
        first = one.txn_first_offset
        kept[one.producer_id] = replace(
            one, batches=batches, txn_first_offset=first if first < end else NO_TRANSACTION
        )
    return kept
