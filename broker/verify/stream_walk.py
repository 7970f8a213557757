"""What the streams of one log are, folded by this command itself from checkpoint and tail.

    held     ranges that the stream has      appended, less what a trim dropped
    total    all that was ever appended       held + trimmed, modulo 2^128, at every step

An upload or a merge may only put ranges in the place of others that are the same batches. What
index objects hold of a long history is one range here, until it is asked for: those that counted
on the way may be gone by now.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from s3stream.control import (
    Adopted,
    Archived,
    ArchivedRanges,
    Checkpoint,
    Closing,
    Compacted,
    Dropped,
    HandedOver,
    OpenedStream,
    Opening,
    Received,
    ShortenedIndex,
    Trimmed,
    Uploaded,
    decode_control,
)
from s3stream.entries import PageRef, StreamEntry
from s3stream.fold import object_ranges, ranges_by_stream, ref_of
from s3stream.history import digest, read_history
from s3stream.index_pages import decode_entries
from s3stream.metadata.records import BlobRef
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import Kind, read_blob, read_index

from .fault import Amount, Fault, IndexDamaged, IndexMissing, total
from .log_walk import Log, LogRecord

_Recovery = tuple[int, int, int, list[PageRef], list[PageRef], bytes, list[int]]


@dataclass(slots=True)
class StreamView:
    """history: summaries of index objects, before `ranges`; [] once `expand` has read them."""

    stream_id: int
    appointment: tuple[int, int, int]
    start_offset: int = 0
    next_offset: int = 0
    uploaded_to: int = 0
    ranges: list[ObjectRange] = field(default_factory=list)
    trimmed: Amount = field(default_factory=Amount)
    total: Amount = field(default_factory=Amount)
    epoch: int = -1
    closed: bool = False
    history: list[ObjectRange] = field(default_factory=list)

    def append(self, one: ObjectRange) -> None:
        if self.closed:
            raise Fault(f"{one.object.key}: batches of stream {self.stream_id}, which was closed")
        if one.base_offset != self.next_offset or one.first_leader_epoch < self.epoch:
            raise Fault(
                f"{one.object.key}: stream {self.stream_id} goes on at {one.base_offset} in epoch "
                f"{one.first_leader_epoch}, expected {self.next_offset} and {self.epoch} or later"
            )
        self.ranges.append(one)
        self.next_offset = one.end_offset
        self.epoch = one.last_leader_epoch
        self.total = self.total + Amount.of(one)

    def trim(self, start_offset: int) -> None:
        if start_offset > self.next_offset:
            raise Fault(f"stream {self.stream_id}: trimmed to {start_offset}, beyond its end")
        if start_offset > self.start_offset:
            self.start_offset = start_offset
            self._leave(min(start_offset, self.uploaded_to))

    def uploaded(self, added: list[ObjectRange], adopted: list[ObjectRef]) -> None:
        """adopted: objects of a log; what awaits upload in them stays there."""
        if self.closed or self.uploaded_to >= self.next_offset:
            return
        self._leave(self.start_offset)
        staying = [
            one
            for one in self.ranges
            if one.base_offset >= self.uploaded_to and one.object in adopted
        ]
        together = sorted([*added, *staying], key=lambda one: one.base_offset)
        gap_at = next(
            (
                at
                for at, one in enumerate(together)
                if one.base_offset > (together[at - 1].end_offset if at else self.uploaded_to)
            ),
            len(together),
        )
        if any(one not in staying for one in together[gap_at:]):
            raise Fault(
                f"{together[gap_at].object.key}: an upload of stream {self.stream_id} leaves out "
                f"what is before {together[gap_at].base_offset}"
            )
        # What is behind a gap, which is a batch that could not be read, awaits the next one.
        if gap_at and self._put(together[:gap_at], None):
            self.uploaded_to = together[gap_at - 1].end_offset

    def compacted(self, removed: frozenset[str], added: list[ObjectRange]) -> None:
        if not self.closed:
            for one in added:
                # What was archived is merged no more.
                if not self.history or one.base_offset >= self.history[-1].end_offset:
                    self._put([one], removed)

    def archived(self, one: ArchivedRanges) -> None:
        """Void where the ranges are others by now."""
        ranges = self.ranges[: one.count]
        if self.closed or not ranges or digest(ranges) != one.digest:
            return
        ends = (ranges[0].base_offset, ranges[-1].end_offset)
        if ranges[-1].end_offset > self.uploaded_to:
            return
        if (one.index.base_offset, one.index.end_offset) != ends or Amount.of(one.index) != total(
            ranges
        ):
            raise Fault(f"{one.index.object.key}: not the history of stream {self.stream_id}")
        del self.ranges[: one.count]
        self.history.append(one.index)

    def shortened(self, one: ShortenedIndex) -> None:
        """Void where the oldest index object is another by now."""
        if self.closed or not self.history or self.history[0].object.key != one.key:
            return
        old = self.history[0]
        if (
            one.index.end_offset != old.end_offset
            or not old.base_offset < one.index.base_offset <= self.start_offset
        ):
            raise Fault(
                f"{one.index.object.key}: leaves out of the history of stream {self.stream_id} "
                f"what is not below {self.start_offset}"
            )
        self.trimmed = self.trimmed + Amount.of(old) - Amount.of(one.index)
        self.history[0] = one.index

    async def expand(self, store: ObjectStore) -> None:
        """Read the history's index objects; each must hold what its summary says."""
        older = []
        for index in self.history:
            what = (
                f"tells where offsets {index.base_offset} to {index.end_offset - 1} of stream "
                f"{self.stream_id} are"
            )
            try:
                older += await read_history(store, index, self.stream_id)
            except NotFound as error:
                raise IndexMissing(f"{error}: {what}") from error
            except Corrupt as error:
                raise IndexDamaged(f"{error}: {what}") from error
        self.ranges[:0] = older
        self.history = []

    def _leave(self, below: int) -> None:
        for ranges in (self.history, self.ranges):
            while ranges and ranges[0].end_offset <= below:
                gone = ranges.pop(0)
                self.trimmed = self.trimmed + Amount.of(gone)
                self.uploaded_to = max(self.uploaded_to, gone.end_offset)

    def _put(self, added: list[ObjectRange], removed: frozenset[str] | None) -> bool:
        """removed: keys that may be replaced; None: what awaits upload may. False: not ours."""
        low = max(added[0].base_offset, self.start_offset)
        high = added[-1].end_offset
        old = [one for one in self.ranges if low < one.end_offset <= high]
        if not old:
            return False
        if removed is None and old[0].base_offset < self.uploaded_to:
            return False
        if removed is not None and any(one.object.key not in removed for one in old):
            return False
        new = [one for one in added if one.end_offset > self.start_offset]
        same = new[0].base_offset == old[0].base_offset and total(new) == total(old)
        brought_back = new[0].base_offset < old[0].base_offset <= self.start_offset
        left_out = old[0].base_offset < new[0].base_offset <= self.start_offset
        if new[-1].end_offset != old[-1].end_offset or not (same or brought_back or left_out):
            raise Fault(
                f"{new[0].object.key}: does not hold what stream {self.stream_id} had from "
                f"{old[0].base_offset} to {old[-1].end_offset}"
            )
        self.trimmed = self.trimmed + total(old) - total(new)
        at = self.ranges.index(old[0])
        self.ranges[at : at + len(old)] = new
        return True


def view_of(entry: StreamEntry, key: str) -> StreamView:
    """Raises Fault where the entry does not add up."""
    live, trimmed, whole = (Amount.of(t) for t in (entry.live, entry.trimmed, entry.total))
    both = [*entry.history, *entry.ranges]
    if live != total(both) or live + trimmed != whole:
        raise Fault(f"{key}: live and trimmed of stream {entry.stream_id} are not its total")
    epoch = both[-1].last_leader_epoch if both else -1
    return StreamView(
        entry.stream_id,
        entry.appointment,
        entry.start_offset,
        entry.next_offset,
        entry.uploaded_to,
        list(entry.ranges),
        trimmed,
        whole,
        epoch,
        entry.closed,
        list(entry.history),
    )


async def read_recovery(store: ObjectStore, recovery: BlobRef) -> dict[int, StreamView]:
    """Everything that an ended log left."""
    key, write_id, _ = recovery
    blob = await read_blob(store, key, Kind.RECOVERY, write_id)
    _, _, _, pages, parts, inline, gone = msgspec.msgpack.decode(blob.body, type=_Recovery)
    views = await _read_pages(store, pages, Kind.PAGE)
    for stream_id in gone:
        views.pop(stream_id, None)
    views.update(await _read_pages(store, parts, Kind.RECOVERY))
    views.update(_views(decode_entries(inline, key)[0], key))
    return views


async def _read_pages(
    store: ObjectStore, pages: list[PageRef], kind: Kind
) -> dict[int, StreamView]:
    views: dict[int, StreamView] = {}
    for page in pages:
        blob = await read_blob(store, page.key, kind, page.write_id)
        views.update(_views(decode_entries(blob.body, page.key)[0], page.key))
    return views


def _views(entries: list[StreamEntry], key: str) -> dict[int, StreamView]:
    return {entry.stream_id: view_of(entry, key) for entry in entries}


async def fold_log(store: ObjectStore, log: Log) -> dict[int, StreamView]:
    """The streams that a log holds as of its end. Raises Fault."""
    views: dict[int, StreamView] = {}
    first = 0
    found = _newest_checkpoint(log.records)
    if found is not None:
        checkpoint, key = found
        views = await _read_checkpoint(store, checkpoint, key)
        first = checkpoint.as_of_seq + 1
        if log.records and log.records[0].seq > first:
            raise Fault(f"{key}: a checkpoint of {first - 1}, but the log begins after it")
    elif log.records and log.records[0].seq > 0:
        raise Fault(f"{log.records[0].key}: the log was trimmed before it without a checkpoint")
    for one in log.records:
        if one.seq >= first:
            await _fold(store, views, one)
    return views


def _newest_checkpoint(records: list[LogRecord]) -> tuple[Checkpoint, str] | None:
    for one in reversed(records):
        for record in reversed(one.index.controls):
            control = decode_control(record, one.key)
            if isinstance(control, Checkpoint):
                return control, one.key
    return None


async def _read_checkpoint(
    store: ObjectStore, checkpoint: Checkpoint, key: str
) -> dict[int, StreamView]:
    views = await _read_pages(store, checkpoint.pages, Kind.PAGE)
    delta: bytes | memoryview = checkpoint.delta
    if checkpoint.delta_ref is not None:
        key, write_id, _ = checkpoint.delta_ref
        delta = (await read_blob(store, key, Kind.DELTA, write_id)).body
    if len(delta):
        entries, gone = decode_entries(delta, key)
        views.update(_views(entries, key))
        for stream_id in gone:
            views.pop(stream_id, None)
    return views


async def _fold(store: ObjectStore, views: dict[int, StreamView], one: LogRecord) -> None:
    for record in one.index.controls:
        control = decode_control(record, one.key)
        match control:
            case Opening():
                source = None
                if control.recovery is not None:
                    source = await read_recovery(store, control.recovery)
                _open(views, control.streams, source, one.key)
            case Received():
                source = await _read_closing(store, control)
                _open(views, control.streams, source, one.key)
            case HandedOver():
                for stream_id, next_offset in control.streams:
                    closing = _known(views, stream_id, one.key)
                    if closing.closed or closing.next_offset != next_offset:
                        raise Fault(
                            f"{one.key}: hands stream {stream_id} over up to {next_offset}, but "
                            f"the log has {closing.next_offset}"
                        )
                    closing.closed = True
            case Closing():
                for stream_id in control.streams:
                    _known(views, stream_id, one.key).closed = True
            case Dropped():
                for stream_id in control.streams:
                    views.pop(stream_id, None)
            case Trimmed():
                for stream_id, start_offset in control.streams:
                    view = views.get(stream_id)
                    if view is not None and not view.closed:
                        view.trim(start_offset)
            case Uploaded():
                added = await _objects(store, control.objects)
                adopted = control.adopted if isinstance(control, Adopted) else []
                for stream_id, view in views.items():
                    view.uploaded(added.get(stream_id, []), adopted)
            case Compacted():
                removed = frozenset(ref.key for ref in control.removed)
                for stream_id, ranges in (await _objects(store, control.added)).items():
                    if stream_id in views:
                        views[stream_id].compacted(removed, ranges)
            case Archived():
                for longer in control.archived:
                    if longer.stream_id in views:
                        views[longer.stream_id].archived(longer)
                for shorter in control.shortened:
                    if shorter.stream_id in views:
                        views[shorter.stream_id].shortened(shorter)
            case _:
                pass
    ref = ref_of(one.key, one.header.write_id, one.size_bytes, one.index)
    for stream_id, pieces in ranges_by_stream(one.index).items():
        view = _known(views, stream_id, one.key)
        for joined in object_ranges(ref, pieces):
            view.append(joined)


def _open(
    views: dict[int, StreamView],
    streams: list[OpenedStream],
    source: dict[int, StreamView] | None,
    key: str,
) -> None:
    """source: what another log held; None: this one holds them, or they are new."""
    for opened in streams:
        known = views.get(opened.stream_id)
        if source is not None and (known is None or known.closed):
            if opened.stream_id not in source:
                raise Fault(f"{key}: opens stream {opened.stream_id}, which its source lacks")
            view = source[opened.stream_id]
        else:
            view = known or StreamView(opened.stream_id, opened.appointment)
        views[opened.stream_id] = view
        view.appointment = opened.appointment
        view.closed = False


async def _read_closing(store: ObjectStore, control: Received) -> dict[int, StreamView]:
    """What a live log told of the streams that it closed."""
    key, write_id, size_bytes = control.contents
    if not key.startswith("wal/"):
        body = (await read_blob(store, key, Kind.DELTA, write_id)).body
        return _views(decode_entries(body, key)[0], key)
    index = await read_index(store, key, size_bytes, write_id)
    for record in index.controls:
        closing = decode_control(record, key)
        if isinstance(closing, HandedOver) and closing.move == control.move:
            return _views(decode_entries(closing.entries, key)[0], key)
    raise Fault(f"{key}: no closing record of move {control.move}")


async def _objects(store: ObjectStore, refs: list[ObjectRef]) -> dict[int, list[ObjectRange]]:
    found: dict[int, list[ObjectRange]] = {}
    for ref in refs:
        index = await read_index(
            store, ref.key, ref.size_bytes, ref.write_id, index_size=ref.index_size
        )
        for stream_id, pieces in ranges_by_stream(index).items():
            found.setdefault(stream_id, []).extend(object_ranges(ref, pieces))
    for ranges in found.values():
        ranges.sort(key=lambda one: one.base_offset)
    return found


def _known(views: dict[int, StreamView], stream_id: int, key: str) -> StreamView:
    view = views.get(stream_id)
    if view is None:
        raise Fault(f"{key}: stream {stream_id} was never opened in this log")
    return view
