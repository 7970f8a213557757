"""Reads a stream's batches out of objects: the index once, then whole blocks through the cache.

    ObjectRange (which object) -> its index -> StreamRange (which block) -> block -> batches

An object's index is fetched by one ranged GET, checked against the reference's write id, and kept
decoded within a bound of its own. Everything given out was checked: the block by its checksum, and
the batches for following one another without a gap.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeVar

from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from protocol.record_batch import HEADER_SIZE, LOG_OVERHEAD, MAGIC, assign
from wal.format import BlockEntry, LargeBatchRef, ObjectIndex, StreamRange
from wal.parallel import all_of

from .block_cache import BlockCache
from .index_cache import INDEX_CACHE_BYTES, IndexCache
from .refs import ObjectRange, ObjectRef

# Below an eighth of the buffer that it would keep alive, a slice is copied out instead.
COPY_SHARE = 8
HINTS = 4096

# Base offset, batch length, magic, last offset delta. Layout: protocol.batch_header.
_SPAN = struct.Struct(">qi4xb6xi")

T = TypeVar("T")

_stream_of = attrgetter("stream_id")
_end_offset = attrgetter("end_offset")


@dataclass(slots=True)
class _Piece:
    """One StreamRange to be read: its block in its own object, or the object it refers to."""

    ref: ObjectRef
    range: StreamRange
    block: int
    entry: BlockEntry
    position: int  # of the range in the block
    end_offset: int  # of the range, or of the part of it that the stream names
    patched: bool  # base offset and epoch are those of `range`, not those in the block


class ObjectReader:
    """store: where misses are fetched from. index_cache_bytes: bound on decoded indexes."""

    def __init__(
        self,
        store: ObjectStore,
        block_cache: BlockCache,
        *,
        index_cache_bytes: int = INDEX_CACHE_BYTES,
    ) -> None:
        self._store = store
        self.block_cache = block_cache
        self._indexes = IndexCache(store, index_cache_bytes)
        # (stream, offset) -> (object key, block, position): where a sequential reader goes on.
        self._hints: OrderedDict[tuple[int, int], tuple[str, int, int]] = OrderedDict()

    async def read_stream(
        self,
        stream_id: int,
        ranges: Sequence[ObjectRange],
        offset: int,
        end_offset: int,
        max_bytes: int,
    ) -> list[memoryview]:
        """Whole batches in order without a gap, from the one that contains `offset` on.

        ranges: of this stream, by offset and without a gap; `offset` lies in one of them.
        Stops before the first batch that does not end at or below `end_offset`, and, after the
        first batch, before `max_bytes` are exceeded. [] when offset >= end_offset.
        Each view holds one or more whole batches and stays valid for as long as it is kept.
        Raises NotFound naming the key: the caller confirms that it leads, and looks again where
        its ranges lie. Raises Corrupt: what is stored is not what was written, or has a hole.
        """
        return (await self.read_run(stream_id, ranges, offset, end_offset, max_bytes))[0]

    async def read_run(
        self,
        stream_id: int,
        ranges: Sequence[ObjectRange],
        offset: int,
        end_offset: int,
        max_bytes: int,
        *,
        first: bool = True,
    ) -> tuple[list[memoryview], int]:
        """As `read_stream`; (batches, offset behind them: `offset` where there are none).

        first: the first batch is given out though it exceeds `max_bytes`.
        """
        if offset >= end_offset:
            return [], offset
        chosen = _choose_ranges(stream_id, ranges, offset, end_offset, max_bytes)
        pieces = await self._pieces(stream_id, chosen, offset, end_offset, max_bytes)
        blocks = await self._read_blocks(pieces, self._store)
        return self._slice(stream_id, pieces, blocks, offset, end_offset, max_bytes, first=first)

    async def prefetch(
        self,
        stream_id: int,
        ranges: Sequence[ObjectRange],
        offset: int,
        max_bytes: int,
        store: ObjectStore | None = None,
    ) -> int:
        """Brings what a reader at `offset` needs next into the cache.

        Returns the offset behind the last range that was brought. store: to fetch by (of a lower
        priority). Raises as `read_stream`.
        """
        end_offset = ranges[-1].end_offset
        if offset >= end_offset:
            return offset
        chosen = _choose_ranges(stream_id, ranges, offset, end_offset, max_bytes)
        pieces = await self._pieces(stream_id, chosen, offset, end_offset, max_bytes)
        await self._read_blocks(pieces, store or self._store, ahead=True)
        return pieces[-1].end_offset

    @property
    def index_bytes(self) -> int:
        """Estimated bytes of the decoded indexes that are kept."""
        return self._indexes.size_bytes

    async def stream_ranges(self, ref: ObjectRef, stream_id: int) -> list[StreamRange]:
        """The block-level ranges of one stream in an object, by offset; [] if it has none."""
        return _ranges_of(await self.index(ref), stream_id)

    async def index(self, ref: ObjectRef) -> ObjectIndex:
        """The object's index, checked; single flight. Raises NotFound, Corrupt naming the key."""
        return await self._indexes.get(ref.key, ref.write_id, ref.size_bytes, ref.index_size)

    async def history(self, index: ObjectRange, stream_id: int) -> list[ObjectRange]:
        """The ranges in an index object of a stream's history; raises as `index`."""
        return await self._indexes.history(index, stream_id)

    def known_history(self, index: ObjectRange) -> list[ObjectRange] | None:
        """As `history`, without asking the store; None: it would have to be asked."""
        return self._indexes.known_history(index)

    def forget(self, ref: ObjectRef) -> None:
        """Drop what is known of an object that is being deleted or was not found."""
        self._indexes.forget(ref.key, ref.write_id)

    async def close(self) -> None:
        """Ends the flights of indexes; the block cache is its owner's to close."""
        await self._indexes.close()

    # Pieces and blocks

    async def _pieces(
        self,
        stream_id: int,
        chosen: list[ObjectRange],
        offset: int,
        end_offset: int,
        max_bytes: int,
    ) -> list[_Piece]:
        """What to read, up to where `max_bytes` are certain; every index in parallel."""
        indexes = await all_of([self.index(one.object) for one in chosen])
        found: list[tuple[ObjectRef, ObjectIndex, StreamRange, int]] = []
        expected: int | None = None
        size_bytes = 0
        for one, index in zip(chosen, indexes, strict=True):
            # `offset` first: below it an object may hold ranges that the stream no longer names.
            at = max(offset, one.base_offset)
            own = _ranges_of(index, stream_id)
            for piece in own[bisect_right(own, at, key=_end_offset) :]:
                if piece.base_offset >= min(end_offset, one.end_offset):
                    break
                wanted_base = at if expected is None else expected
                if not piece.base_offset <= wanted_base < piece.end_offset:
                    raise _hole(stream_id, one.object.key, wanted_base, piece.base_offset)
                expected = min(piece.end_offset, one.end_offset)
                found.append((one.object, index, piece, expected))
                size_bytes += piece.size_bytes
                if len(found) == 1 and piece.base_offset < offset:
                    size_bytes -= self._bytes_before(stream_id, offset, one.object, piece)
                if size_bytes >= max_bytes:
                    break
            if size_bytes >= max_bytes:
                break
            needed = min(end_offset, one.end_offset)
            if expected is None or expected < needed:
                raise _hole(stream_id, one.object.key, expected or at, None)
        return await all_of([self._piece(*one) for one in found])

    def _bytes_before(self, stream_id: int, offset: int, ref: ObjectRef, first: StreamRange) -> int:
        """How much of its range may lie before `offset`: exact where a reader goes on."""
        hint = self._hints.get((stream_id, offset))
        if hint is not None and hint[:2] == (ref.key, first.block):
            return min(max(hint[2] - first.position, 0), first.size_bytes)
        return first.size_bytes

    async def _piece(
        self, ref: ObjectRef, index: ObjectIndex, one: StreamRange, end_offset: int
    ) -> _Piece:
        reference = one.reference
        if reference is None:
            entry = index.blocks[one.block]
            return _Piece(ref, one, one.block, entry, one.position, end_offset, False)
        outside = await self._indexes.get(reference.key, reference.write_id, reference.size, None)
        if len(outside.ranges) != 1 or outside.ranges[0].size_bytes != one.size_bytes:
            raise Corrupt(f"{reference.key}: not the one batch that {ref.key} refers to")
        kept = outside.ranges[0]
        if kept.reference is not None:
            raise Corrupt(f"{reference.key}: refers to yet another object")
        entry = outside.blocks[kept.block]
        ref = _large_ref(reference)
        return _Piece(ref, one, kept.block, entry, kept.position, end_offset, True)

    async def _read_blocks(
        self, pieces: list[_Piece], store: ObjectStore, *, ahead: bool = False
    ) -> list[memoryview]:
        """The block of each piece; adjacent ones by one request, several objects at once."""
        by_object: dict[tuple[str, bytes], dict[int, BlockEntry]] = {}
        refs: dict[tuple[str, bytes], ObjectRef] = {}
        for piece in pieces:
            identity = (piece.ref.key, piece.ref.write_id)
            refs[identity] = piece.ref
            by_object.setdefault(identity, {})[piece.block] = piece.entry
        wanted = {identity: sorted(blocks.items()) for identity, blocks in by_object.items()}
        read = await all_of(
            [
                self.block_cache.read(store, refs[identity], blocks, ahead=ahead)
                for identity, blocks in wanted.items()
            ]
        )
        views: dict[tuple[str, bytes, int], memoryview] = {}
        for (identity, blocks), got in zip(wanted.items(), read, strict=True):
            for (number, _), view in zip(blocks, got, strict=True):
                views[(*identity, number)] = view
        return [views[(piece.ref.key, piece.ref.write_id, piece.block)] for piece in pieces]

    # Batches

    def _slice(
        self,
        stream_id: int,
        pieces: list[_Piece],
        blocks: list[memoryview],
        offset: int,
        end_offset: int,
        max_bytes: int,
        *,
        first: bool,
    ) -> tuple[list[memoryview], int]:
        out: list[memoryview] = []
        budget = max_bytes
        expected = -1  # base offset of the next batch, once the first was found
        for piece, block in zip(pieces, blocks, strict=True):
            key = piece.ref.key
            batches = block[piece.position : piece.position + piece.range.size_bytes]
            begin = self._first_position(stream_id, offset, piece) if expected < 0 else 0
            start = stop = begin
            full = False
            for size_bytes, base, next_offset in _spans(key, batches[begin:]):
                if piece.patched:
                    base, next_offset = piece.range.base_offset, piece.range.end_offset
                wanted = offset if expected < 0 else expected
                if next_offset <= wanted:
                    start = stop = stop + size_bytes
                    continue
                if base >= piece.end_offset:
                    break
                if base > wanted or (expected >= 0 and base < wanted):
                    raise _hole(stream_id, key, wanted, base)
                bounded = expected >= 0 or not first
                if next_offset > end_offset or (bounded and size_bytes > budget):
                    full = True
                    break
                stop += size_bytes
                budget -= size_bytes
                expected = next_offset
            if stop > start:
                out.append(self._give_out(piece, batches, start, stop))
                self._hint(stream_id, expected, piece, stop)
            if full:
                break
            if expected != piece.end_offset:
                raise _hole(stream_id, key, max(offset, expected), None)
        return out, max(offset, expected)

    def _first_position(self, stream_id: int, offset: int, piece: _Piece) -> int:
        """Where in the range to begin looking for `offset`: at a batch at or before it."""
        hint = self._hints.get((stream_id, offset))
        if hint is None or hint[:2] != (piece.ref.key, piece.block):
            return 0
        position = hint[2] - piece.position
        return position if 0 <= position < piece.range.size_bytes else 0

    def _hint(self, stream_id: int, next_offset: int, piece: _Piece, stop: int) -> None:
        """Saves the next read of a sequential reader the walk from the range's first batch."""
        if stop >= piece.range.size_bytes:
            return
        self._hints[(stream_id, next_offset)] = (piece.ref.key, piece.block, piece.position + stop)
        self._hints.move_to_end((stream_id, next_offset))
        if len(self._hints) > HINTS:
            self._hints.popitem(last=False)

    def _give_out(self, piece: _Piece, batches: memoryview, start: int, stop: int) -> memoryview:
        view = batches[start:stop]
        self.block_cache.note_served(
            piece.ref, piece.block, piece.position + start, piece.position + stop
        )
        if piece.patched:
            whole = bytearray(view)
            assign(whole, piece.range.base_offset, piece.range.leader_epoch)
            return memoryview(whole).toreadonly()
        if len(view) * COPY_SHARE < self.block_cache.extent_bytes(piece.ref, piece.block):
            return memoryview(bytes(view))
        return view


def _choose_ranges(
    stream_id: int,
    ranges: Sequence[ObjectRange],
    offset: int,
    end_offset: int,
    max_bytes: int,
) -> list[ObjectRange]:
    """The ranges that can be needed: from the one with `offset` until max_bytes are certain."""
    chosen: list[ObjectRange] = []
    size_bytes = 0
    for one in ranges[bisect_right(ranges, offset, key=_end_offset) :]:
        if one.base_offset >= end_offset:
            break
        expected = chosen[-1].end_offset if chosen else offset
        if one.base_offset > expected or (chosen and one.base_offset < expected):
            raise _hole(stream_id, one.object.key, expected, one.base_offset)
        chosen.append(one)
        if len(chosen) > 1:
            size_bytes += one.size_bytes
        if size_bytes >= max_bytes:
            break
    if not chosen:
        where = ranges[-1].object.key if ranges else "no object"
        raise _hole(stream_id, where, offset, None)
    return chosen


def _ranges_of(index: ObjectIndex, stream_id: int) -> list[StreamRange]:
    first = bisect_left(index.ranges, stream_id, key=_stream_of)
    end = bisect_right(index.ranges, stream_id, lo=first, key=_stream_of)
    return index.ranges[first:end]


def _large_ref(reference: LargeBatchRef) -> ObjectRef:
    return ObjectRef(reference.key, reference.write_id, reference.size, 0, 0)


def _spans(key: str, batches: memoryview) -> Iterator[tuple[int, int, int]]:
    """(size in bytes, base offset, next offset) of each whole batch.

    Only the four fields that say so are decoded: with small batches this is most of a read.
    Raises Corrupt where the bytes are no run of whole batches.
    """
    position, end = 0, len(batches)
    unpack = _SPAN.unpack_from
    while position < end:
        if end - position < HEADER_SIZE:
            raise Corrupt(f"{key}: {end - position} bytes at {position} are no batch")
        base_offset, length, magic, last_offset_delta = unpack(batches, position)
        size_bytes = length + LOG_OVERHEAD
        if magic != MAGIC or not HEADER_SIZE <= size_bytes <= end - position:
            raise Corrupt(f"{key}: magic {magic} and {size_bytes} bytes at {position} are no batch")
        yield size_bytes, base_offset, base_offset + last_offset_delta + 1
        position += size_bytes


def _hole(stream_id: int, key: str, expected: int, found: int | None) -> Corrupt:
    what = "nothing follows" if found is None else f"{found} follows"
    return Corrupt(f"{key}: stream {stream_id} has a hole: offset {expected} expected, {what}")
