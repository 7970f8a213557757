"""Taking over from a dead incarnation: read its ended log, write down what it held, open from it.

    recover           checkpoint and tail -> the same fold -> the state at its end
    recovery object   the pages of its last checkpoint, and the entries that differ from them
    read_source       by the new leaders: their streams' entries from both

A recovery object is one blob; where the entries are many it names further blobs, each with the
entries of a span of stream ids, so that a leader of few streams reads little.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from wal.format import NO_CHECKPOINT, Kind, read_blob, read_index
from wal.keys import LogName, wal_log
from wal.parallel import each_of
from wal.recovery import LogObject, read_tail

from .control import Checkpoint, Compacted, Opening, Received, Uploaded, decode_control
from .entries import PageRef, StreamEntry
from .fold import ref_of
from .handoff import HandoffRef, read_contents
from .index_pages import Part, decode_entries, encode_entries, split
from .metadata.records import BlobRef
from .object_writer import ObjectWriter
from .refs import ObjectRef
from .registry import Source, StreamRegistry, pages_of

READS_AT_ONCE = 32
CHUNK_BYTES = 8 << 20
# A checkpoint's state is that of an object a little before the one that holds it.
_MARGIN = 16
_RECOVERY_VERSION = 1


@dataclass(frozen=True, slots=True)
class SourceRef:
    """What an ended log held: its incarnation, and the recovery object that tells it."""

    incarnation: int
    recovery: BlobRef


class _Recovery(msgspec.Struct, array_like=True):
    """entries: in line; parts: further ones. They take precedence over pages; gone: dropped."""

    version: int
    incarnation: int
    end: int
    pages: list[PageRef]
    parts: list[PageRef]
    entries: bytes
    gone: list[int]


@dataclass(frozen=True, slots=True)
class RecoveredLog:
    """The state at the end of a dead log. end: exclusive."""

    incarnation: int
    end: int
    registry: StreamRegistry

    @property
    def entries(self) -> dict[int, StreamEntry]:
        """By stream id; closed ones too."""
        return self.registry.entries


async def recover(store: ObjectStore, incarnation: int, end: int) -> RecoveredLog:
    """Read the ended log of `incarnation` up to `end`. Raises HoleInLog, Corrupt, or what the
    store raises.
    """
    tail = await _read_from_checkpoint(store, wal_log(incarnation), end)
    found = _last_checkpoint(tail)
    if found is None and end and (not tail or tail[0].seq > 0):
        raise Corrupt(f"wal/{incarnation}: trimmed, but no checkpoint is in what is left of it")
    return await recover_from(store, incarnation, end, found, tail)


async def recover_from(
    store: ObjectStore,
    incarnation: int,
    end: int,
    found: tuple[Checkpoint, int] | None,
    tail: Sequence[LogObject],
) -> RecoveredLog:
    """found: a checkpoint and the object that it is in; None: the log is read from its beginning.
    tail: objects below `end` without a gap, from the one after the checkpoint's state on; earlier
    ones may be among them. Raises Corrupt, or what the store raises.
    """
    registry = StreamRegistry(incarnation)
    first = 0
    if found is not None:
        checkpoint, seq = found
        entries, changed = await _read_checkpoint(store, checkpoint)
        registry.restore(checkpoint, seq, entries.values(), changed)
        first = checkpoint.as_of_seq + 1
    todo = [one for one in tail if one.seq >= first]
    await _learn(store, registry, todo)
    for one in todo:
        registry.fold(one.seq, ref_of(one.key, one.write_id, one.size, one.index), one.index)
    if todo and registry.folded_seq != end - 1:
        raise Corrupt(f"wal/{incarnation}: read up to {registry.folded_seq}, ends at {end}")
    return RecoveredLog(incarnation, end, registry)


async def _read_from_checkpoint(store: ObjectStore, log: LogName, end: int) -> list[LogObject]:
    """The log's objects from its last checkpoint's state on; earlier ones may be among them."""
    if end == 0:
        return []
    newest = await read_tail(store, log, end, from_seq=end - 1)
    found = _last_checkpoint(newest)
    if found is not None and found[0].as_of_seq + 1 >= end - 1:
        return newest  # closed in good order: its last object says it all
    header = newest[0].header
    first = header.trim
    if found is not None:
        first = max(first, found[0].as_of_seq + 1)
    elif header.checkpoint != NO_CHECKPOINT:
        first = max(first, header.checkpoint - _MARGIN)
    tail = await read_tail(store, log, end, from_seq=first)
    found = _last_checkpoint(tail)
    if found is not None and found[0].as_of_seq + 1 < first:
        tail = await read_tail(store, log, end, from_seq=max(header.trim, found[0].as_of_seq + 1))
    return tail


def _last_checkpoint(tail: list[LogObject]) -> tuple[Checkpoint, int] | None:
    for one in reversed(tail):
        for record in reversed(one.index.controls):
            control = decode_control(record, one.key)
            if isinstance(control, Checkpoint):
                return control, one.seq
    return None


async def _read_checkpoint(
    store: ObjectStore, checkpoint: Checkpoint
) -> tuple[dict[int, StreamEntry], list[int]]:
    """(entries by stream id, ids that differ from the pages)."""
    entries: dict[int, StreamEntry] = {}
    for page in await _read_pages(store, checkpoint.pages, Kind.PAGE):
        entries.update((one.stream_id, one) for one in page)
    where, delta = "a checkpoint in the log", memoryview(checkpoint.delta)
    if checkpoint.delta_ref is not None:
        ref = checkpoint.delta_ref
        where = ref.key
        delta = (await read_blob(store, ref.key, Kind.DELTA, ref.write_id)).body
    if not len(delta):
        return entries, []
    changed, gone = decode_entries(delta, where)
    entries.update((one.stream_id, one) for one in changed)
    for stream_id in gone:
        entries.pop(stream_id, None)
    return entries, [*(one.stream_id for one in changed), *gone]


async def _read_pages(
    store: ObjectStore, pages: Iterable[PageRef], kind: Kind
) -> list[list[StreamEntry]]:
    async def read(page: PageRef) -> list[StreamEntry]:
        blob = await read_blob(store, page.key, kind, page.write_id)
        return decode_entries(blob.body, page.key)[0]

    return await each_of(read, pages, READS_AT_ONCE)


async def _learn(store: ObjectStore, registry: StreamRegistry, tail: list[LogObject]) -> None:
    """Read what the control records to be folded refer to."""
    refs: dict[str, ObjectRef] = {}
    for one in tail:
        for record in one.index.controls:
            control = decode_control(record, one.key)
            if isinstance(control, Uploaded):
                refs.update((ref.key, ref) for ref in control.objects)
            elif isinstance(control, Compacted):
                refs.update((ref.key, ref) for ref in control.added)
            elif isinstance(control, Opening) and control.recovery is not None:
                assert control.source is not None, one.key
                source = SourceRef(control.source, control.recovery)
                wanted = {opened.stream_id for opened in control.streams}
                registry.learn_source(control.recovery, await read_source(store, source, wanted))
            elif isinstance(control, Received):
                closing = HandoffRef(control.source, control.move, control.contents)
                wanted = {opened.stream_id for opened in control.streams}
                registry.learn_source(control.contents, await read_contents(store, closing, wanted))

    async def learn(ref: ObjectRef) -> None:
        index = await read_index(
            store, ref.key, ref.size_bytes, ref.write_id, index_size=ref.index_size
        )
        registry.learn_index(ref, index)

    await each_of(learn, refs.values(), READS_AT_ONCE)


async def write_recovery_object(recovered: RecoveredLog, writer: ObjectWriter) -> list[BlobRef]:
    """The recovery object, first, and the blobs that it names. Their numbers stay unsettled until
    the caller's record that names the first is durable or given up.
    """
    registry = recovered.registry
    pages = pages_of(registry.checkpoint)
    changed = [registry.entries[one] for one in sorted(registry.changed) if one in registry.entries]
    gone = sorted(one for one in registry.changed if one not in registry.entries)
    written: list[BlobRef] = []
    parts: list[PageRef] = []
    chunks: list[Part] = list(split(changed, len(changed) + 1, CHUNK_BYTES))
    body = chunks[0].body if len(chunks) == 1 else encode_entries([])
    if len(chunks) > 1:
        for chunk in chunks:
            blob = (await writer.write_blob(Kind.RECOVERY, chunk.body)).ref
            written.append(blob)
            parts.append(PageRef(blob.key, blob.write_id, blob.size_bytes, chunk.low, chunk.high))
    root = _Recovery(
        _RECOVERY_VERSION, recovered.incarnation, recovered.end, pages, parts, body, gone
    )
    blob = (await writer.write_blob(Kind.RECOVERY, msgspec.msgpack.encode(root))).ref
    return [blob, *written]


async def read_source(store: ObjectStore, source: SourceRef, wanted: Iterable[int]) -> Source:
    """The entries of the streams asked for, as far as the log held them.

    Raises Corrupt, NotFound, or what else the store raises.
    """
    key, write_id, _ = source.recovery
    blob = await read_blob(store, key, Kind.RECOVERY, write_id)
    try:
        root = msgspec.msgpack.decode(blob.body, type=_Recovery)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise Corrupt(f"{key}: unreadable recovery object: {error}") from error
    if root.version != _RECOVERY_VERSION or root.incarnation != source.incarnation:
        raise Corrupt(f"{key}: format {root.version} of incarnation {root.incarnation}")
    asked = sorted(wanted)
    pages = [one for one in root.pages if _covers(one, asked)]
    parts = [one for one in root.parts if _covers(one, asked)]
    entries: dict[int, StreamEntry] = {}
    for page in await _read_pages(store, pages, Kind.PAGE):
        entries.update((one.stream_id, one) for one in page)
    for stream_id in root.gone:
        entries.pop(stream_id, None)
    for part in await _read_pages(store, parts, Kind.RECOVERY):
        entries.update((one.stream_id, one) for one in part)
    entries.update((one.stream_id, one) for one in decode_entries(root.entries, key)[0])
    found = {one: entries[one] for one in asked if one in entries}
    held = [key, *(one.key for one in root.pages), *(one.key for one in root.parts)]
    return Source(source.incarnation, found, tuple(held))


def _covers(page: PageRef, asked: list[int]) -> bool:
    return any(page.low <= one <= page.high for one in asked)
