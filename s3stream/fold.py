"""How the durable state of one stream changes; pure, and the same live and at recovery.

Every function takes the entry that it changes first, and raises Corrupt where the log contradicts
it: then log or code are wrong, and nothing after it can be believed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from objectstore.errors import Corrupt
from wal.format import FOOTER_SIZE, HEADER_SIZE, ObjectIndex, ProducerUpdate, StreamRange

from .control import ArchivedRanges, ShortenedIndex
from .entries import (
    NO_TRANSACTION,
    PRODUCER_BATCHES,
    AbortedTransaction,
    Appointment,
    LargeBatch,
    ProducerEntry,
    StreamEntry,
    Tally,
)
from .history import digest
from .refs import ObjectRange, ObjectRef, add_sums


def ref_of(key: str, write_id: bytes, size_bytes: int, index: ObjectIndex) -> ObjectRef:
    """The reference to an object whose index is at hand: it lies between blocks and footer."""
    position = HEADER_SIZE
    if index.blocks:
        last = index.blocks[-1]
        position = last.position + last.size
    return ObjectRef(key, write_id, size_bytes, position, size_bytes - FOOTER_SIZE - position)


def ranges_by_stream(index: ObjectIndex) -> dict[int, list[StreamRange]]:
    """In the order of the index: by stream id, then offset."""
    found: dict[int, list[StreamRange]] = {}
    for one in index.ranges:
        ranges = found.get(one.stream_id)
        if ranges is None:
            found[one.stream_id] = [one]
        else:
            ranges.append(one)
    return found


def object_ranges(ref: ObjectRef, ranges: Sequence[StreamRange]) -> list[ObjectRange]:
    """One stream's ranges in one object, neighbours joined: nearly always one."""
    found: list[ObjectRange] = []
    first = 0
    for position in range(1, len(ranges) + 1):
        ends = position == len(ranges)
        if ends or ranges[position].base_offset != ranges[position - 1].end_offset:
            found.append(_join(ref, ranges[first:position]))
            first = position
    return found


def _join(ref: ObjectRef, ranges: Sequence[StreamRange]) -> ObjectRange:
    first, last = ranges[0], ranges[-1]
    if len(ranges) == 1:
        return ObjectRange(
            ref,
            first.base_offset,
            first.end_offset,
            first.size_bytes,
            first.record_count,
            first.batch_count,
            first.leader_epoch,
            first.leader_epoch,
            first.max_timestamp,
            first.max_timestamp_offset,
            first.sum,
        )
    newest = first
    total = first.sum
    for one in ranges[1:]:
        total = add_sums(total, one.sum)
        if one.max_timestamp > newest.max_timestamp:
            newest = one
    return ObjectRange(
        ref,
        first.base_offset,
        last.end_offset,
        sum(one.size_bytes for one in ranges),
        sum(one.record_count for one in ranges),
        sum(one.batch_count for one in ranges),
        first.leader_epoch,
        last.leader_epoch,
        newest.max_timestamp,
        newest.max_timestamp_offset,
        total,
    )


# Opening and appending


def lead(entry: StreamEntry, epoch: int, appointment: Appointment) -> None:
    """A leader opens the stream, new or adopted."""
    if epoch < entry.epoch:
        raise Corrupt(f"stream {entry.stream_id}: opened at epoch {epoch} after {entry.epoch}")
    entry.epoch = epoch
    entry.appointment = appointment
    entry.closed = False
    note_epoch(entry, epoch, entry.next_offset)


def append(entry: StreamEntry, ref: ObjectRef, ranges: Sequence[StreamRange]) -> list[ObjectRange]:
    """What one log object holds of the stream; returns what was added to `entry.ranges`."""
    if entry.closed:
        raise Corrupt(f"{ref.key}: batches of stream {entry.stream_id} after it was closed")
    for one in ranges:
        if one.base_offset != entry.next_offset:
            raise Corrupt(
                f"{ref.key}: stream {entry.stream_id} goes on at {one.base_offset}, "
                f"expected at {entry.next_offset}"
            )
        entry.next_offset = one.end_offset
        if not entry.leader_epochs or one.leader_epoch > entry.leader_epochs[-1][0]:
            note_epoch(entry, one.leader_epoch, one.base_offset)
        elif one.leader_epoch < entry.leader_epochs[-1][0]:
            raise Corrupt(
                f"{ref.key}: stream {entry.stream_id} has epoch {one.leader_epoch} at "
                f"{one.base_offset}, after {entry.leader_epochs[-1][0]}"
            )
        if one.reference is not None:
            entry.large.append(LargeBatch(one.base_offset, one.reference))
        if one.producers or one.markers:
            _fold_producers(entry, one)
    added = object_ranges(ref, ranges)
    for joined in added:
        entry.ranges.append(joined)
        entry.live.add(joined)
        entry.total.add(joined)
    return added


def note_epoch(entry: StreamEntry, epoch: int, offset: int) -> None:
    """Batches from `offset` on are of `epoch`; an epoch that wrote none is forgotten.

    Source: Kafka, LeaderEpochFileCache.assign.
    """
    epochs = entry.leader_epochs
    if epochs and epochs[-1][0] == epoch and epochs[-1][1] <= offset:
        return  # opened again at the same epoch
    while epochs and (epochs[-1][0] >= epoch or epochs[-1][1] >= offset):
        epochs.pop()
    epochs.append((epoch, offset))


def _fold_producers(entry: StreamEntry, one: StreamRange) -> None:
    producers = entry.producers
    for marker in one.markers:
        state = producers.get(marker.producer_id)
        if state is None:
            state = ProducerEntry(marker.producer_id, marker.producer_epoch, [], -1)
            producers[marker.producer_id] = state
        first = marker.first_offset if marker.first_offset >= 0 else state.txn_first_offset
        if not marker.commit and first >= 0:
            entry.aborted.append(AbortedTransaction(marker.producer_id, first, marker.offset))
        state.txn_first_offset = NO_TRANSACTION
        state.coordinator_epoch = marker.coordinator_epoch
        if marker.producer_epoch > state.epoch:
            state.epoch = marker.producer_epoch
            state.batches.clear()
    for update in one.producers:
        _fold_producer(producers, update)


def _fold_producer(producers: dict[int, ProducerEntry], update: ProducerUpdate) -> None:
    state = producers.get(update.producer_id)
    if state is None:
        producers[update.producer_id] = ProducerEntry(
            update.producer_id,
            update.epoch,
            list(update.batches),
            update.last_timestamp,
            update.txn_first_offset,
        )
        return
    if update.epoch != state.epoch or update.reset:
        state.epoch = update.epoch
        state.batches = list(update.batches)
    else:
        state.batches.extend(update.batches)
        del state.batches[:-PRODUCER_BATCHES]
    state.last_timestamp = max(state.last_timestamp, update.last_timestamp)
    # Open before this range and not ended in it: it still begins where it began.
    if state.txn_first_offset == NO_TRANSACTION:
        state.txn_first_offset = update.txn_first_offset


def forget_producers(entry: StreamEntry, before_ms: int) -> bool:
    """Whether any was expired: silent since `before_ms`, and without an open transaction."""
    gone = [
        one.producer_id
        for one in entry.producers.values()
        if one.last_timestamp < before_ms and one.txn_first_offset == NO_TRANSACTION
    ]
    for producer_id in gone:
        del entry.producers[producer_id]
    return bool(gone)


# Trimming


def trim(entry: StreamEntry, start_offset: int) -> list[ObjectRange]:
    """Raise the start offset; returns the ranges that left the index."""
    if start_offset <= entry.start_offset:
        return []
    if start_offset > entry.next_offset:
        raise Corrupt(
            f"stream {entry.stream_id}: trimmed to {start_offset}, beyond its end "
            f"{entry.next_offset}"
        )
    entry.start_offset = start_offset
    epochs = entry.leader_epochs
    passed = 0
    while passed < len(epochs) and epochs[passed][1] <= start_offset:
        passed += 1
    if passed:
        epochs[:passed] = [(epochs[passed - 1][0], start_offset)]
    entry.aborted = [one for one in entry.aborted if one.last_offset >= start_offset]
    return _leave(entry, entry.uploaded_to)


def _leave(entry: StreamEntry, below: int) -> list[ObjectRange]:
    """Take the leading ranges that end at or below both start offset and `below` out."""
    bound = min(entry.start_offset, below)
    gone = _pass(entry.history, bound)
    if not entry.history:
        gone += _pass(entry.ranges, bound)
    for one in gone:
        entry.live.subtract(one)
        entry.trimmed.add(one)
    if gone:
        entry.uploaded_to = max(entry.uploaded_to, gone[-1].end_offset)
        entry.large = [one for one in entry.large if one.base_offset >= gone[-1].end_offset]
    return gone


def _pass(ranges: list[ObjectRange], bound: int) -> list[ObjectRange]:
    """Those that end at or below the bound, taken out."""
    count = 0
    while count < len(ranges) and ranges[count].end_offset <= bound:
        count += 1
    gone = ranges[:count]
    del ranges[:count]
    return gone


# Uploads and compactions


def upload(
    entry: StreamEntry,
    added: Sequence[ObjectRange],
    adopted: Collection[ObjectRef] = frozenset(),
) -> tuple[list[ObjectRange], list[ObjectRange]]:
    """Put an upload's ranges in the place of the tail that they copy: (removed, added).

    added: by offset, contiguous together with what the tail has in `adopted`, which stays; empty
    where all of the tail was below the start offset.
    """
    if entry.closed:
        return [], []
    removed = _leave(entry, entry.next_offset)
    added = _with_adopted(entry, added, adopted)
    if not added:
        return removed, []
    low, high = added[0].base_offset, added[-1].end_offset
    first = entry.first_range(max(low, entry.start_offset))
    last = first
    while last < len(entry.ranges) and entry.ranges[last].end_offset <= high:
        last += 1
    replaced = entry.ranges[first:last]
    # Nothing of it in the tail: the stream was closed and opened again since, or trimmed.
    if not replaced or replaced[0].base_offset < entry.uploaded_to:
        return removed, []
    if first and entry.ranges[first - 1].end_offset > entry.uploaded_to:
        raise Corrupt(
            f"stream {entry.stream_id}: an upload from {low} on leaves out "
            f"{entry.ranges[first - 1].base_offset}"
        )
    kept = _replace(entry, first, last, added)
    entry.uploaded_to = high
    entry.large = [one for one in entry.large if one.base_offset >= high]
    return removed + replaced, kept


def _with_adopted(
    entry: StreamEntry, added: Sequence[ObjectRange], adopted: Collection[ObjectRef]
) -> Sequence[ObjectRange]:
    """What the tail consists of from now on: copies, and what stays, by offset without a gap."""
    staying = [one for one in entry.tail() if one.object in adopted] if adopted else []
    if not staying:
        return added
    found: list[ObjectRange] = []
    reached = entry.uploaded_to
    for one in sorted([*added, *staying], key=_base_offset):
        if one.base_offset > reached:
            # Before it is what could not be read, and so not be copied: the tail begins there.
            if one.object not in adopted:
                raise Corrupt(
                    f"stream {entry.stream_id}: an upload from {one.base_offset} on leaves out "
                    f"{reached}"
                )
            continue
        found.append(one)
        reached = max(reached, one.end_offset)
    return found


def _base_offset(one: ObjectRange) -> int:
    return one.base_offset


def compact(
    entry: StreamEntry, removed: frozenset[str], added: Sequence[ObjectRange]
) -> tuple[list[ObjectRange], list[ObjectRange]]:
    """Put merged ranges in the place of those that the stream still has in `removed` (keys)."""
    if entry.closed or not added:
        return [], []
    gone: list[ObjectRange] = []
    kept: list[ObjectRange] = []
    for one in added:
        if entry.archived(max(one.base_offset, entry.start_offset)) is not None:
            continue  # archived meanwhile, and merged no more
        first = entry.first_range(max(one.base_offset, entry.start_offset))
        last = first
        while last < len(entry.ranges) and entry.ranges[last].end_offset <= one.end_offset:
            last += 1
        replaced = entry.ranges[first:last]
        if not replaced or any(old.object.key not in removed for old in replaced):
            continue
        kept += _replace(entry, first, last, [one])
        gone += replaced
    return gone, kept


def _replace(
    entry: StreamEntry, first: int, last: int, added: Sequence[ObjectRange]
) -> list[ObjectRange]:
    """Put `added` (but for what lies below the start) in the place of ranges[first:last]."""
    kept = [one for one in added if one.end_offset > entry.start_offset]
    replaced = entry.ranges[first:last]
    old, new = Tally.of(replaced), Tally.of(kept)
    trimmed_meanwhile = kept[0].base_offset < replaced[0].base_offset <= entry.start_offset
    trimmed_before = replaced[0].base_offset < kept[0].base_offset <= entry.start_offset
    same = kept[0].base_offset == replaced[0].base_offset and old == new
    if kept[-1].end_offset != replaced[-1].end_offset or not (
        same or trimmed_meanwhile or trimmed_before
    ):
        raise Corrupt(
            f"{kept[0].object.key}: does not hold what stream {entry.stream_id} has from "
            f"{replaced[0].base_offset} to {replaced[-1].end_offset}: {new} for {old}"
        )
    _rebook(entry, old, new)
    entry.ranges[first:last] = kept
    return kept


# Histories


def archive(entry: StreamEntry, one: ArchivedRanges) -> list[ObjectRange]:
    """Put the summary of its oldest ranges in their place; returns them, [] where they are others
    by now.
    """
    ranges = entry.ranges[: one.count]
    if (
        entry.closed
        or not ranges
        or ranges[-1].end_offset > entry.uploaded_to
        or digest(ranges) != one.digest
    ):
        return []
    _check_same(entry, one.index, ranges)
    del entry.ranges[: one.count]
    entry.history.append(one.index)
    return ranges


def shorten(entry: StreamEntry, one: ShortenedIndex) -> ObjectRange | None:
    """Put a shorter index object in the place of the oldest, which is returned; None where that
    is another by now.
    """
    if entry.closed or not entry.history or entry.history[0].object.key != one.key:
        return None
    old, new = entry.history[0], one.index
    if not (
        new.end_offset == old.end_offset and old.base_offset < new.base_offset <= entry.start_offset
    ):
        raise Corrupt(
            f"{new.object.key}: not what stream {entry.stream_id} from {entry.start_offset} on "
            f"has in {one.key}"
        )
    _rebook(entry, old, new)
    entry.history[0] = new
    return old


def _check_same(entry: StreamEntry, index: ObjectRange, ranges: Sequence[ObjectRange]) -> None:
    first, last = ranges[0], ranges[-1]
    same_place = (index.base_offset, index.end_offset) == (first.base_offset, last.end_offset)
    if not same_place or Tally.of([index]) != Tally.of(ranges):
        raise Corrupt(
            f"{index.object.key}: not what stream {entry.stream_id} has from {first.base_offset} "
            f"to {last.end_offset}"
        )


def _rebook(entry: StreamEntry, old: Tally | ObjectRange, new: Tally | ObjectRange) -> None:
    """`new` stands for `old`: what one of them has more lies below the start.

    A range that straddles the start brings batches back that had left: they are live again. Or it
    leaves out some that lie below it: they are trimmed now.
    """
    entry.live.subtract(old)
    entry.trimmed.add(old)
    entry.live.add(new)
    entry.trimmed.subtract(new)
