"""Writes one merged object: whole ranges of streams, read from their objects block by block.

    sources (each in order, a few blocks at a time) -> batches checked -> blocks -> parts

What passes through is proven: each source block by its checksum, each range's batches for standing
one behind the other and for adding up to the range's sum, and what is written for adding up to the
sums of what was read. The batches themselves are not touched, but for those out of line, which get
the base offset and leader epoch that their log gave them.

Memory: `WINDOW_BYTES` for each source object, and one part.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from objectstore.create import PART_SIZE_BYTES, OnTrouble, create_by_upload, create_once
from objectstore.errors import Corrupt
from objectstore.store import Buffer, Chunks, ObjectStore
from protocol.record_batch import iter_headers
from wal.format import (
    BLOCK_BYTES,
    HEADER_SIZE,
    BlockEntry,
    Kind,
    ObjectHeader,
    ObjectIndex,
    ProducerUpdate,
    StreamRange,
    add_sums,
    batch_sum,
    block_entry,
    encode_header,
    encode_tail,
    read_blocks,
    read_index,
    sum_bytes,
)
from wal.keys import data_key

from ..object_writer import split_chunks
from ..refs import ObjectRange, ObjectRef
from .plan import Output

WINDOW_BYTES = 4 << 20
PRODUCER_BATCHES = 5


@dataclass(frozen=True, slots=True)
class NewObject:
    """What an object that is to be written is called. write_id: 16 bytes, drawn once."""

    incarnation: int
    number: int
    write_id: bytes

    @property
    def key(self) -> str:
        return data_key(self.incarnation, self.number)


async def merge(
    store: ObjectStore,
    output: Output,
    new: NewObject,
    *,
    rng: Random,
    part_bytes: int = PART_SIZE_BYTES,
    on_trouble: OnTrouble | None = None,
) -> ObjectRef | None:
    """The reference to the object written; None: another's object has its key.

    Trouble with writing is waited out. Raises NotFound where a source is gone (the plan is old),
    Corrupt where one is not what it was.
    """
    layout = _Layout(new)

    async def parts() -> AsyncIterator[Chunks]:
        nonlocal layout
        layout = _Layout(new)  # a second attempt gives the same bytes
        async for part in _parts(store, output, layout, part_bytes):
            yield part

    # Up to one part, an upload would cost three requests where one does.
    if output.size_bytes <= part_bytes:
        chunks: list[Buffer] = []
        async for part in _parts(store, output, layout, part_bytes * 2):
            chunks += part
        written = await create_once(
            store, new.key, chunks, new.write_id, rng=rng, on_trouble=on_trouble
        )
    else:
        written = await create_by_upload(
            store, new.key, parts, new.write_id, rng=rng, on_trouble=on_trouble
        )
    return layout.ref if written else None


async def _parts(
    store: ObjectStore, output: Output, layout: _Layout, part_bytes: int
) -> AsyncIterator[list[Buffer]]:
    waiting: list[Buffer] = list(layout.begin())
    waiting_bytes = HEADER_SIZE
    sources = _Sources(store)
    for stream_id, one in output.ranges:
        async for chunks in _copy(sources, layout, stream_id, one):
            waiting += chunks
            waiting_bytes += sum(len(chunk) for chunk in chunks)
            if waiting_bytes >= part_bytes:
                *whole, rest = split_chunks(waiting, part_bytes)
                if sum(len(chunk) for chunk in rest) == part_bytes:
                    whole.append(rest)
                    rest = []
                for part in whole:
                    yield part
                waiting, waiting_bytes = list(rest), sum(len(chunk) for chunk in rest)
    waiting += layout.finish()
    for part in split_chunks(waiting, part_bytes):
        yield part


async def _copy(
    sources: _Sources, layout: _Layout, stream_id: int, one: ObjectRange
) -> AsyncIterator[list[Buffer]]:
    """One range of the output, in whole blocks as they become full."""
    key = one.object.key
    expected = one.base_offset
    total: list[bytes] = []
    async for piece, batches in sources.pieces(one, stream_id):
        if piece.base_offset != expected:
            raise Corrupt(
                f"{key}: stream {stream_id} goes on at {piece.base_offset}, expected at {expected}"
            )
        _check_batches(key, piece, batches)
        expected = piece.end_offset
        total.append(piece.sum)
        full = layout.add(piece, batches)
        if full:
            yield full
    if expected != one.end_offset or add_sums(*total) != one.sum:
        raise Corrupt(f"{key}: stream {stream_id} from {one.base_offset} on is not what it was")


def _check_batches(key: str, piece: StreamRange, batches: Buffer) -> None:
    """The batches stand one behind the other and add up to the range's sum. Raises Corrupt."""
    expected = piece.base_offset
    total = count = 0
    try:
        for _, header in iter_headers(batches):
            if header.base_offset != expected:
                raise Corrupt(f"{key}: a batch at {header.base_offset}, expected at {expected}")
            expected = header.next_offset
            count += 1
            total += batch_sum(
                header.base_offset,
                header.last_offset,
                header.size_bytes,
                header.crc,
                header.leader_epoch,
            )
    except ValueError as error:
        raise Corrupt(f"{key}: {error}") from error
    if (expected, count) != (piece.end_offset, piece.batch_count) or sum_bytes(total) != piece.sum:
        raise Corrupt(
            f"{key}: the batches of stream {piece.stream_id} from {piece.base_offset} on do not "
            "add up to their sum"
        )


class _Sources:
    """Reads blocks of objects in ascending order, several at a time."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._open: dict[str, _Source] = {}

    async def pieces(
        self, one: ObjectRange, stream_id: int
    ) -> AsyncIterator[tuple[StreamRange, Buffer]]:
        """The stream's ranges in that object that `one` is made of, with their batches."""
        source = await self._source(one.object)
        for piece in source.by_stream.get(stream_id, ()):
            if piece.base_offset < one.base_offset or piece.end_offset > one.end_offset:
                continue
            if piece.reference is not None:
                # Uploads bring it in line, and what refers to it is never adopted.
                raise Corrupt(f"{one.object.key}: stream {stream_id} has a batch out of line")
            block = await source.block(self._store, piece.block)
            yield piece, block[piece.position : piece.position + piece.size_bytes]

    async def _source(self, ref: ObjectRef) -> _Source:
        found = self._open.get(ref.key)
        if found is None:
            index = await read_index(
                self._store, ref.key, ref.size_bytes, ref.write_id, index_size=ref.index_size
            )
            by_stream: dict[int, list[StreamRange]] = {}
            for one in index.ranges:
                by_stream.setdefault(one.stream_id, []).append(one)
            found = self._open[ref.key] = _Source(ref, index, by_stream)
        return found


@dataclass(slots=True)
class _Source:
    ref: ObjectRef
    index: ObjectIndex
    by_stream: Mapping[int, Sequence[StreamRange]]
    window: dict[int, memoryview] = field(default_factory=dict)

    async def block(self, store: ObjectStore, number: int) -> memoryview:
        found = self.window.get(number)
        if found is not None:
            return found
        numbers, size = [number], self.index.blocks[number].size
        for following in range(number + 1, len(self.index.blocks)):
            size += self.index.blocks[following].size
            if size > WINDOW_BYTES:
                break
            numbers.append(following)
        self.window = {}  # before the next is read: one window a source at any time
        # A store in memory never suspends: other work of this loop gets a turn for each window.
        await asyncio.sleep(0)
        blocks = await read_blocks(store, self.ref.key, self.index, numbers)
        self.window = dict(zip(numbers, blocks, strict=True))
        return self.window[number]


class _Layout:
    """Blocks, ranges and index of the new object."""

    def __init__(self, new: NewObject) -> None:
        self._new = new
        self._header = encode_header(
            ObjectHeader(Kind.MERGED, new.write_id, new.incarnation, new.number)
        )
        self._blocks: list[BlockEntry] = []
        self._ranges: list[StreamRange] = []
        self._open: list[Buffer] = []
        self._open_bytes = 0
        self._position = HEADER_SIZE
        self.ref: ObjectRef | None = None

    def begin(self) -> list[Buffer]:
        return [self._header]

    def add(self, piece: StreamRange, batches: Buffer) -> list[Buffer]:
        """Returns the block that this one filled, if any."""
        full: list[Buffer] = []
        if self._open and self._open_bytes + len(batches) > BLOCK_BYTES:
            full = self._close_block()
        last = self._ranges[-1] if self._open else None
        if (
            last is not None
            and last.block == len(self._blocks)
            and last.stream_id == piece.stream_id
            and last.end_offset == piece.base_offset
            and last.leader_epoch == piece.leader_epoch
        ):
            _extend(last, piece)
        else:
            self._ranges.append(self._new_range(piece))
        self._open.append(batches)
        self._open_bytes += len(batches)
        return full

    def finish(self) -> list[Buffer]:
        last = self._close_block()
        index = ObjectIndex(self._blocks, self._ranges, [], self._header)
        tail = encode_tail(index, self._position, self._new.write_id)
        size_bytes = self._position + sum(len(chunk) for chunk in tail)
        self.ref = ObjectRef(
            self._new.key, self._new.write_id, size_bytes, self._position, len(tail[0])
        )
        return [*last, *tail]

    def _new_range(self, piece: StreamRange) -> StreamRange:
        return StreamRange(
            piece.stream_id,
            piece.base_offset,
            piece.end_offset,
            len(self._blocks),
            self._open_bytes,
            piece.size_bytes,
            piece.record_count,
            piece.batch_count,
            piece.leader_epoch,
            piece.max_timestamp,
            piece.max_timestamp_offset,
            piece.sum,
            list(piece.producers),
            list(piece.markers),
        )

    def _close_block(self) -> list[Buffer]:
        chunks = self._open
        if chunks:
            self._blocks.append(block_entry(self._position, chunks))
            self._position += self._open_bytes
            self._open, self._open_bytes = [], 0
        return chunks


def _extend(last: StreamRange, piece: StreamRange) -> None:
    last.end_offset = piece.end_offset
    last.size_bytes += piece.size_bytes
    last.record_count += piece.record_count
    last.batch_count += piece.batch_count
    if piece.max_timestamp > last.max_timestamp:
        last.max_timestamp = piece.max_timestamp
        last.max_timestamp_offset = piece.max_timestamp_offset
    last.sum = add_sums(last.sum, piece.sum)
    last.producers = _join_producers(last.producers, piece)
    last.markers = last.markers + list(piece.markers)


def _join_producers(earlier: Sequence[ProducerUpdate], piece: StreamRange) -> list[ProducerUpdate]:
    """What two neighbouring ranges do to the producers' state, one after the other."""
    joined = {update.producer_id: update for update in earlier}
    ended = {marker.producer_id for marker in piece.markers}
    for producer_id in ended:
        update = joined.get(producer_id)
        if update is not None:
            joined[producer_id] = ProducerUpdate(
                producer_id, update.epoch, update.batches, -1, update.reset, update.last_timestamp
            )
    for later in piece.producers:
        before = joined.get(later.producer_id)
        if before is None:
            joined[later.producer_id] = later
            continue
        changed = later.reset or later.epoch != before.epoch
        batches = [] if changed else list(before.batches)
        open_since = later.txn_first_offset
        if open_since < 0 and not changed:
            open_since = before.txn_first_offset
        joined[later.producer_id] = ProducerUpdate(
            later.producer_id,
            later.epoch,
            (batches + list(later.batches))[-PRODUCER_BATCHES:],
            open_since,
            before.reset or changed,
            later.last_timestamp,
        )
    return list(joined.values())
