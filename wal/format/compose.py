"""Objects out: batches and control records, or one blob, as chunks ready for a PUT.

Nothing is copied: the chunks are the caller's own buffers between a header and an index. The
bytes of a batch are touched once, for the checksum of their block.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Sequence
from operator import attrgetter

import msgspec
from crc32c import crc32c

from objectstore.store import Buffer

from .header import HEADER_SIZE, NO_CHECKPOINT, Kind, ObjectHeader, encode_header
from .index import (
    NO_BLOCK,
    BlockEntry,
    ControlMarker,
    LargeBatchRef,
    ObjectIndex,
    ProducerUpdate,
    StreamRange,
    batch_sum,
    encode_tail,
    sum_bytes,
)

BLOCK_BYTES = 1 << 20
PRODUCER_BATCHES = 5
STEP_BATCHES = 200
STEP_BYTES = 8 << 20

_BLOB = struct.Struct(">QI")
BLOB_PREFIX_SIZE = _BLOB.size


class BatchEntry(msgspec.Struct, gc=False):
    """One batch on its way into an object. (gc=False: a full log cache holds a million of them.)

    buffer: the whole batch, base offset and leader epoch already set; unchanged from now on.
    size_bytes: of the batch, also where `reference` says that it lies elsewhere (then `buffer` is
    not written). crc: the batch's own. timestamp_ms: for producer state (the maximum timestamp).
    """

    stream_id: int
    base_offset: int
    last_offset: int
    leader_epoch: int
    record_count: int
    max_timestamp: int
    size_bytes: int
    crc: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    is_transactional: bool
    marker: ControlMarker | None
    buffer: memoryview
    timestamp_ms: int
    reference: LargeBatchRef | None = None


_by_stream = attrgetter("stream_id")


def compose(
    kind: Kind,
    log_id: int,
    seq: int,
    trim: int,
    durable: int,
    checkpoint: int | None,
    window: int,
    write_id: bytes,
    entries: Sequence[BatchEntry],
    controls: Sequence[bytes] = (),
) -> tuple[list[Buffer], ObjectIndex, int]:
    """(chunks, index, size in bytes) of an object that holds records.

    entries: in the order of each stream's offsets; grouped by stream here. The chunks refer to
    their buffers, which must stay unchanged until the PUT is settled.
    """
    header = encode_header(
        ObjectHeader(
            kind,
            write_id,
            log_id,
            seq,
            trim,
            durable,
            NO_CHECKPOINT if checkpoint is None else checkpoint,
            window,
        )
    )
    blocks = _Blocks(header)
    # sorted() is stable and quick on what is sorted already, as one stream's batches are.
    for entry in sorted(entries, key=_by_stream):
        blocks.add(entry)
    return _finish(blocks, header, write_id, controls)


def compose_in_steps(
    kind: Kind, maker: int, number: int, write_id: bytes, entries: Sequence[BatchEntry]
) -> Generator[None, None, tuple[list[Buffer], ObjectIndex, int]]:
    """`compose` of a large object that is in no log, in steps of about a millisecond.

    Returns what `compose` returns; the caller lets others run at each yield.
    """
    header = encode_header(ObjectHeader(kind, write_id, maker, number, 0, 0, NO_CHECKPOINT, 0))
    blocks = _Blocks(header)
    step_batches = step_bytes = 0
    for entry in sorted(entries, key=_by_stream):
        blocks.add(entry)
        step_batches += 1
        step_bytes += entry.size_bytes
        if step_batches >= STEP_BATCHES or step_bytes >= STEP_BYTES:
            step_batches = step_bytes = 0
            yield
    return _finish(blocks, header, write_id, ())


def _finish(
    blocks: _Blocks, header: bytes, write_id: bytes, controls: Sequence[bytes]
) -> tuple[list[Buffer], ObjectIndex, int]:
    index = ObjectIndex(blocks.finish(), blocks.ranges, list(controls), header)
    tail = encode_tail(index, blocks.position, write_id)
    size = blocks.position + len(tail[0]) + len(tail[1])
    return [*blocks.chunks, *tail], index, size


class _Blocks:
    """Lays batches out in blocks and ranges, one batch at a time."""

    __slots__ = (
        "_crc",
        "_producers",
        "_range",
        "_size",
        "_start",
        "_sum",
        "chunks",
        "entries",
        "position",
        "ranges",
    )

    def __init__(self, header: bytes) -> None:
        self.chunks: list[Buffer] = [header]
        self.entries: list[BlockEntry] = []
        self.ranges: list[StreamRange] = []
        self.position = HEADER_SIZE  # where the next byte goes, in the object
        self._start = HEADER_SIZE  # of the open block
        self._size = 0
        self._crc = 0
        self._range: StreamRange | None = None
        self._sum = 0
        self._producers: dict[int, ProducerUpdate] = {}

    def add(self, entry: BatchEntry) -> None:
        size = entry.size_bytes
        base = entry.base_offset
        epoch = entry.leader_epoch
        current = self._range
        if entry.reference is not None:
            self._open_range(entry, NO_BLOCK)
            self._count(entry)
            self._close_range()
            return
        if self._size and self._size + size > BLOCK_BYTES:
            self._close_block()
            current = None
        if (
            current is None
            or current.stream_id != entry.stream_id
            or current.leader_epoch != epoch
            or current.end_offset != base
        ):
            self._open_range(entry, len(self.entries))
        buffer = entry.buffer
        assert len(buffer) == size, (entry.stream_id, base, len(buffer), size)
        self._crc = crc32c(buffer, self._crc)
        self.chunks.append(buffer)
        self._size += size
        self.position += size
        self._count(entry)

    def finish(self) -> list[BlockEntry]:
        self._close_block()
        return self.entries

    def _open_range(self, entry: BatchEntry, block: int) -> None:
        self._close_range()
        self._range = StreamRange(
            entry.stream_id,
            entry.base_offset,
            entry.base_offset,
            block,
            0 if block == NO_BLOCK else self._size,
            0,
            0,
            0,
            entry.leader_epoch,
            entry.max_timestamp,
            entry.last_offset,
            b"",
            [],
            [],
            entry.reference,
        )

    def _count(self, entry: BatchEntry) -> None:
        current = self._range
        assert current is not None
        last = entry.last_offset
        current.end_offset = last + 1
        current.size_bytes += entry.size_bytes
        current.record_count += entry.record_count
        current.batch_count += 1
        if entry.max_timestamp > current.max_timestamp:
            current.max_timestamp = entry.max_timestamp
            current.max_timestamp_offset = last
        self._sum += batch_sum(
            entry.base_offset, last, entry.size_bytes, entry.crc, entry.leader_epoch
        )
        if entry.producer_id >= 0:
            note_producer(self._producers, entry)
        if entry.marker is not None:
            current.markers.append(entry.marker)

    def _close_range(self) -> None:
        current = self._range
        if current is not None:
            current.sum = sum_bytes(self._sum)
            self._sum = 0
            if self._producers:
                current.producers = list(self._producers.values())
                self._producers.clear()
            self.ranges.append(current)
            self._range = None

    def _close_block(self) -> None:
        self._close_range()
        if self._size:
            self.entries.append(BlockEntry(self._start, self._size, self._crc))
            self._start = self.position
            self._size = 0
            self._crc = 0


def note_producer(producers: dict[int, ProducerUpdate], entry: BatchEntry) -> None:
    """Fold a batch or marker of an idempotent or transactional producer into its range's state.

    producers: by id, in the order of their first batch in the range.
    """
    update = producers.get(entry.producer_id)
    if update is None:
        update = ProducerUpdate(entry.producer_id, entry.producer_epoch, [])
        producers[entry.producer_id] = update
    if entry.producer_epoch != update.epoch:
        update.epoch = entry.producer_epoch
        update.batches.clear()
        update.reset = True
    update.last_timestamp = entry.timestamp_ms
    if entry.marker is not None:
        update.txn_first_offset = -1
        return
    last_sequence = _add_sequence(entry.base_sequence, entry.record_count - 1)
    batches = update.batches
    batches.append(
        (
            entry.base_sequence,
            last_sequence,
            entry.base_offset,
            entry.last_offset,
            entry.timestamp_ms,
        )
    )
    if len(batches) > PRODUCER_BATCHES:
        del batches[0]
    if entry.is_transactional and update.txn_first_offset < 0:
        update.txn_first_offset = entry.base_offset


def _add_sequence(sequence: int, increment: int) -> int:
    """Sequences run from 0 to 2^31-1 and begin again at 0. Source: Kafka, DefaultRecordBatch."""
    total = sequence + increment
    return total if total < 2**31 else total - 2**31


def compose_blob(
    kind: Kind,
    log_id: int,
    seq: int,
    write_id: bytes,
    blob: bytes,
    *,
    trim: int = 0,
    durable: int = 0,
    checkpoint: int | None = None,
    window: int = 0,
) -> tuple[list[Buffer], int]:
    """(chunks, size in bytes) of header, u64 size, u32 crc32c, blob."""
    header = ObjectHeader(
        kind,
        write_id,
        log_id,
        seq,
        trim,
        durable,
        NO_CHECKPOINT if checkpoint is None else checkpoint,
        window,
    )
    chunks: list[Buffer] = [encode_header(header), _BLOB.pack(len(blob), crc32c(blob)), blob]
    return chunks, HEADER_SIZE + BLOB_PREFIX_SIZE + len(blob)


def block_entry(position: int, chunks: Iterable[Buffer]) -> BlockEntry:
    """For writers that lay out blocks themselves (merged objects): size and checksum of one."""
    size = crc = 0
    for chunk in chunks:
        crc = crc32c(chunk, crc)
        size += len(chunk)
    return BlockEntry(position, size, crc)
