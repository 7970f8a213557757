"""All streams of one log, as a state machine over its objects.

    fold(object) for every object of the durable prefix, in order:
        its control records, then its data ranges

It is the only thing that changes durable state, for the writer of a live log (told by the log
writer) and for who recovers a dead one (reading it back) alike, so the two cannot differ. What a
record refers to and the fold needs (indexes of uploads, entries of a source) is handed over before
by `learn_index` and `learn_source`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from objectstore.errors import Corrupt
from wal.format import ObjectIndex, StreamRange

from . import fold
from .control import (
    Adopted,
    Archived,
    Checkpoint,
    Closing,
    Compacted,
    Dropped,
    HandedOver,
    OpenedStream,
    Opening,
    Received,
    Report,
    Trimmed,
    Uploaded,
    decode_control,
)
from .entries import PageRef, StreamEntry
from .metadata.records import BlobRef
from .references import References
from .refs import ObjectRange, ObjectRef


@dataclass(frozen=True, slots=True)
class Source:
    """What an ended log held, read: entries by stream id; `held`: keys that told of them."""

    incarnation: int
    entries: dict[int, StreamEntry]
    held: tuple[str, ...]


@dataclass(slots=True)
class Folded:
    """What one object changed. streams: touched, in order, without duplicates.

    history: objects were uploaded, merged, trimmed away or dropped.
    """

    streams: dict[int, None] = field(default_factory=dict)
    uploaded_seq: int | None = None
    checkpoint: Checkpoint | None = None
    history: bool = False


_OF_HISTORY = (Uploaded, Compacted, Trimmed, Dropped)


class StreamRegistry:
    """incarnation: whose log this is."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.entries: dict[int, StreamEntry] = {}
        self.references = References()
        self.folded_seq = -1
        self.uploaded_seq = -1
        self.checkpoint: Checkpoint | None = None
        self.checkpoint_seq: int | None = None
        # Streams that differ from the last checkpoint's pages; those without an entry are gone.
        self.changed: dict[int, None] = {}
        # Of open streams: what awaits upload, adopted tails among it.
        self.tail_bytes = 0
        self._indexes: dict[str, ObjectIndex] = {}
        self._sources: dict[str, Source] = {}
        # Keys of recovery objects and source pages, with the object that opened from them.
        self._source_keys: list[tuple[int, tuple[str, ...]]] = []
        # Likewise keys of uploads and merged objects: who recovers this log folds the records that
        # name them again and reads their indexes for it, though no stream may need them any more.
        self._named_keys: list[tuple[int, tuple[str, ...]]] = []
        # What this log told at closings, by the number of the move: where, and the streams that it
        # has not let go of since.
        self._folding: tuple[str, bytes, int] = ("", b"", 0)
        self._handed_over: dict[int, tuple[BlobRef, dict[int, None]]] = {}
        self._fold_control: dict[type, Callable[..., None]] = {
            Opening: self._fold_opening,
            Closing: self._fold_closing,
            HandedOver: self._fold_handed_over,
            Received: self._fold_received,
            Dropped: self._fold_dropped,
            Uploaded: self._fold_uploaded,
            Adopted: self._fold_uploaded,
            Trimmed: self._fold_trimmed,
            Compacted: self._fold_compacted,
            Archived: self._fold_archived,
            Checkpoint: self._fold_checkpoint,
            Report: self._fold_report,
        }

    @property
    def has_sources(self) -> bool:
        """Whether objects are held only because no checkpoint repeats yet what they told: a dead
        log's recovery object, uploads and merged objects.
        """
        return bool(self._source_keys or self._named_keys)

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self.entries

    def entry(self, stream_id: int) -> StreamEntry:
        return self.entries[stream_id]

    # What the fold will need

    def learn_index(self, ref: ObjectRef, index: ObjectIndex) -> None:
        """Before an Uploaded or Compacted record that names `ref` is folded."""
        self._indexes[ref.key] = index

    def forget_index(self, ref: ObjectRef) -> None:
        """The record will not come."""
        self._indexes.pop(ref.key, None)

    def learn_source(self, recovery: BlobRef, source: Source) -> None:
        """Before an Opening record that names `recovery` is folded. Entries are taken over."""
        known = self._sources.setdefault(recovery.key, source)
        if known is not source:
            known.entries.update(source.entries)

    def restore(
        self,
        checkpoint: Checkpoint,
        seq: int,
        entries: Iterable[StreamEntry],
        changed: Iterable[int],
    ) -> None:
        """Begin from a checkpoint found in object `seq`; fold from `as_of_seq + 1` on then."""
        assert not self.entries and self.folded_seq == -1
        for entry in entries:
            self._adopt(entry)
            self._count_tail(entry, 1)
        self.changed = dict.fromkeys(changed)
        self.folded_seq = checkpoint.as_of_seq
        self.uploaded_seq = checkpoint.uploaded_seq
        self.checkpoint = checkpoint
        self.checkpoint_seq = seq
        self.references.hold_all(checkpoint_keys(checkpoint))

    # The fold

    def fold(self, seq: int, ref: ObjectRef, index: ObjectIndex) -> Folded:
        """Apply the log's object `seq`. Raises Corrupt where it contradicts what came before."""
        if seq != self.folded_seq + 1:
            raise Corrupt(f"{ref.key}: folded after {self.folded_seq}")
        folded = Folded()
        self._folding = (ref.key, ref.write_id, ref.size_bytes)
        for record in index.controls:
            control = decode_control(record, ref.key)
            self._fold_control[type(control)](control, seq, ref.key, folded)
            folded.history = folded.history or isinstance(control, _OF_HISTORY)
        self._fold_data(ref, index, folded)
        self.folded_seq = seq
        for stream_id in folded.streams:
            self.changed[stream_id] = None
        return folded

    def _fold_data(self, ref: ObjectRef, index: ObjectIndex, folded: Folded) -> None:
        for stream_id, ranges in fold.ranges_by_stream(index).items():
            entry = self._known(stream_id, ref.key)
            large = len(entry.large)
            for added in fold.append(entry, ref, ranges):
                self.references.hold(added.object.key)
                self.tail_bytes += added.size_bytes
            self.references.hold_all(one.reference.key for one in entry.large[large:])
            folded.streams[stream_id] = None

    def _fold_opening(self, control: Opening, seq: int, key: str, folded: Folded) -> None:
        self._open(control.streams, control.recovery, seq, key, folded)

    def _fold_received(self, control: Received, seq: int, key: str, folded: Folded) -> None:
        self._open(control.streams, control.contents, seq, key, folded)

    def _open(
        self,
        streams: Sequence[OpenedStream],
        told_in: BlobRef | None,
        seq: int,
        key: str,
        folded: Folded,
    ) -> None:
        """told_in: what tells of the streams' contents; None: this log does, or they are new."""
        source: Source | None = None
        if told_in is not None:
            source = self._sources.get(told_in.key)
            if source is None:
                raise Corrupt(f"{key}: opens from {told_in.key}, which was not read")
            self.references.hold_all(source.held)
            self._source_keys.append((seq, source.held))
        for opened in streams:
            entry = self.entries.get(opened.stream_id)
            if entry is not None and not entry.closed:
                # Asked for again, or leading goes on at a higher epoch: the contents are here.
                self._count_tail(entry, -1)
            elif source is not None:
                if entry is not None:
                    self._let_go(entry)
                entry = source.entries.pop(opened.stream_id, None)
                if entry is None:
                    raise Corrupt(
                        f"{key}: stream {opened.stream_id} is not in what incarnation "
                        f"{source.incarnation} left"
                    )
                self._adopt(entry)
            elif entry is None:
                entry = StreamEntry(opened.stream_id, opened.epoch, opened.appointment)
                self._adopt(entry)
            self._forget_closing(opened.stream_id)
            fold.lead(entry, opened.epoch, opened.appointment)
            self._count_tail(entry, 1)
            folded.streams[opened.stream_id] = None
        if source is not None and told_in is not None and not source.entries:
            del self._sources[told_in.key]

    def _fold_closing(self, control: Closing, seq: int, key: str, folded: Folded) -> None:
        for stream_id in control.streams:
            entry = self.entries.get(stream_id)
            if entry is None:
                continue  # asked for twice, or dropped meanwhile
            self._count_tail(entry, -1)
            entry.closed = True
            folded.streams[stream_id] = None

    def _fold_handed_over(self, control: HandedOver, seq: int, key: str, folded: Folded) -> None:
        held: dict[int, None] = {}
        for stream_id, next_offset in control.streams:
            entry = self.entries.get(stream_id)
            if entry is None or entry.closed or entry.next_offset != next_offset:
                raise Corrupt(
                    f"{key}: hands over stream {stream_id} up to {next_offset}, but the log has "
                    f"{entry.next_offset if entry is not None and not entry.closed else 'none'}"
                )
            self._forget_closing(stream_id)
            self._count_tail(entry, -1)
            entry.closed = True
            held[stream_id] = None
            folded.streams[stream_id] = None
        told_in = control.entries_ref or BlobRef(*self._folding)
        if held:
            self.references.hold(told_in.key)
            self._handed_over[control.move] = (told_in, held)

    def _forget_closing(self, stream_id: int) -> None:
        """The stream was dropped, or is open again: nobody will read what its closing told."""
        for move, (told_in, held) in list(self._handed_over.items()):
            if stream_id in held:
                del held[stream_id]
                if not held:
                    del self._handed_over[move]
                    self.references.release(told_in.key)

    def contents_of(self, move: int) -> BlobRef | None:
        """Where the durable closing for this move tells what the streams held; None: not closed,
        or none of its streams is held for it any more.
        """
        told = self._handed_over.get(move)
        return None if told is None else told[0]

    def _fold_dropped(self, control: Dropped, seq: int, key: str, folded: Folded) -> None:
        for stream_id in control.streams:
            entry = self.entries.pop(stream_id, None)
            if entry is None:
                continue  # asked for twice
            self._count_tail(entry, -1)
            self._let_go(entry)
            self._forget_closing(stream_id)
            folded.streams[stream_id] = None

    def _fold_trimmed(self, control: Trimmed, seq: int, key: str, folded: Folded) -> None:
        for stream_id, start_offset in control.streams:
            entry = self.entries.get(stream_id)
            if entry is None or entry.closed:
                continue  # dropped or closed between the request and this record
            self.references.release_all(one.object.key for one in fold.trim(entry, start_offset))
            folded.streams[stream_id] = None

    def _fold_uploaded(self, control: Uploaded, seq: int, key: str, folded: Folded) -> None:
        added = self._pieces(control.objects, key)
        adopted = frozenset(control.adopted if isinstance(control, Adopted) else ())
        self._hold_named(seq, control.objects)
        for entry in self.entries.values():
            pieces = added.get(entry.stream_id, ())
            waiting = not entry.closed and entry.uploaded_to < entry.next_offset
            if waiting:
                self._count_tail(entry, -1)
                large = entry.large
                self._exchange(*fold.upload(entry, pieces, adopted))
                self._count_tail(entry, 1)
                if entry.large is not large:
                    kept = {one.base_offset for one in entry.large}
                    self.references.release_all(
                        one.reference.key for one in large if one.base_offset not in kept
                    )
            expired = bool(entry.producers) and fold.forget_producers(
                entry, control.producers_before_ms
            )
            if waiting or expired:
                folded.streams[entry.stream_id] = None
        self.uploaded_seq = max(self.uploaded_seq, control.up_to_seq)
        folded.uploaded_seq = control.up_to_seq

    def _fold_compacted(self, control: Compacted, seq: int, key: str, folded: Folded) -> None:
        removed = frozenset(one.key for one in control.removed)
        self._hold_named(seq, control.added)
        for stream_id, pieces in self._pieces(control.added, key).items():
            entry = self.entries.get(stream_id)
            if entry is not None:
                self._exchange(*fold.compact(entry, removed, pieces))
                folded.streams[stream_id] = None

    def _fold_archived(self, control: Archived, seq: int, key: str, folded: Folded) -> None:
        for one in control.archived:
            entry = self.entries.get(one.stream_id)
            ranges = fold.archive(entry, one) if entry is not None else []
            if ranges:
                self.references.hold_history(one.stream_id, one.index)
                self.references.release_all(old.object.key for old in ranges)
                folded.streams[one.stream_id] = None
        for shorter in control.shortened:
            entry = self.entries.get(shorter.stream_id)
            old = fold.shorten(entry, shorter) if entry is not None else None
            if old is not None:
                self.references.hold_history(shorter.stream_id, shorter.index)
                self.references.release(old.object.key)
                folded.streams[shorter.stream_id] = None
                folded.history = True

    def _fold_checkpoint(self, control: Checkpoint, seq: int, key: str, folded: Folded) -> None:
        older = self.checkpoint
        self.references.hold_all(checkpoint_keys(control))
        if older is not None:
            self.references.release_all(checkpoint_keys(older))
        self.checkpoint = control
        self.checkpoint_seq = seq
        folded.checkpoint = control
        # What was opened, uploaded or merged before it is in it in full now.
        for named_at, keys in (*self._source_keys, *self._named_keys):
            if named_at <= control.as_of_seq:
                self.references.release_all(keys)
        self._source_keys = [one for one in self._source_keys if one[0] > control.as_of_seq]
        self._named_keys = [one for one in self._named_keys if one[0] > control.as_of_seq]

    def _fold_report(self, control: Report, seq: int, key: str, folded: Folded) -> None:
        """Reports change nothing: the collector reads them."""

    # Parts

    def _hold_named(self, seq: int, objects: Sequence[ObjectRef]) -> None:
        keys = tuple(one.key for one in objects)
        if keys:
            self.references.hold_all(keys)
            self._named_keys.append((seq, keys))

    def _pieces(self, objects: Sequence[ObjectRef], key: str) -> dict[int, list[ObjectRange]]:
        """What each stream has in all of these objects together, by offset."""
        found: dict[int, list[ObjectRange]] = {}
        for ref in objects:
            index = self._indexes.pop(ref.key, None)
            if index is None:
                raise Corrupt(f"{key}: names {ref.key}, whose index was not read")
            ranges: list[StreamRange]
            for stream_id, ranges in fold.ranges_by_stream(index).items():
                found.setdefault(stream_id, []).extend(fold.object_ranges(ref, ranges))
        for pieces in found.values():
            pieces.sort(key=_base_offset)
        return found

    def _exchange(self, removed: Sequence[ObjectRange], added: Sequence[ObjectRange]) -> None:
        # Held before released: a key in both must not look free in between.
        self.references.hold_all(one.object.key for one in added)
        self.references.release_all(one.object.key for one in removed)

    def _adopt(self, entry: StreamEntry) -> None:
        self.entries[entry.stream_id] = entry
        for index in entry.history:
            self.references.hold_history(entry.stream_id, index)
        self.references.hold_all(one.object.key for one in entry.ranges)
        self.references.hold_all(one.reference.key for one in entry.large)

    def _let_go(self, entry: StreamEntry) -> None:
        self.references.release_all(one.object.key for one in entry.history)
        self.references.release_all(one.object.key for one in entry.ranges)
        self.references.release_all(one.reference.key for one in entry.large)

    def _count_tail(self, entry: StreamEntry, sign: int) -> None:
        if not entry.closed and entry.uploaded_to < entry.next_offset:
            self.tail_bytes += sign * sum(one.size_bytes for one in entry.tail())

    def _known(self, stream_id: int, key: str) -> StreamEntry:
        entry = self.entries.get(stream_id)
        if entry is None:
            raise Corrupt(f"{key}: stream {stream_id} was never opened in this log")
        return entry


def checkpoint_keys(checkpoint: Checkpoint) -> list[str]:
    """Objects that a checkpoint consists of."""
    keys = [page.key for page in checkpoint.pages]
    if checkpoint.delta_ref is not None:
        keys.append(checkpoint.delta_ref.key)
    return keys


def pages_of(checkpoint: Checkpoint | None) -> list[PageRef]:
    return list(checkpoint.pages) if checkpoint is not None else []


def _base_offset(one: ObjectRange) -> int:
    return one.base_offset
