"""Objects in: whole, by index, by block. Every byte that is given out was checked.

Bytes that do not fit raise Corrupt naming the key. Sizes found in an object are never believed
before they were compared with the bytes at hand or the size that the store (or the reference)
told, so nothing here allocates more than a small multiple of what was read.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from crc32c import crc32c

from objectstore.errors import Corrupt
from objectstore.store import Buffer, ObjectStore

from .compose import BLOB_PREFIX_SIZE
from .header import HEADER_SIZE, RECORD_KINDS, Kind, ObjectHeader, decode_header
from .index import (
    FOOTER_SIZE,
    BlockEntry,
    Footer,
    ObjectIndex,
    StreamRange,
    decode_footer,
    decode_index,
)

# Holds footer and index of nearly every log object, and small objects whole.
SUFFIX_BYTES = 64 << 10

_BLOB = struct.Struct(">QI")


@dataclass(frozen=True, slots=True)
class RecordObject:
    """An object with records, whole and checked. data: all its bytes."""

    key: str
    header: ObjectHeader
    index: ObjectIndex
    data: memoryview

    def range_bytes(self, one: StreamRange) -> memoryview:
        """The batches of one range; not for a range that is a reference."""
        assert one.reference is None, (self.key, one.stream_id)
        start = self.index.blocks[one.block].position + one.position
        return self.data[start : start + one.size_bytes]


@dataclass(frozen=True, slots=True)
class Blob:
    key: str
    header: ObjectHeader
    body: memoryview


def parse_object(data: Buffer, key: str, write_id: bytes | None = None) -> RecordObject:
    """Decode and check a whole object that holds records. Raises Corrupt."""
    view = memoryview(data).toreadonly()
    header = decode_header(view, key)
    _check_write_id(header, key, write_id)
    if header.kind not in RECORD_KINDS:
        raise Corrupt(f"{key}: kind {header.kind.name} holds no records")
    footer = _footer_of(view, key)
    index_end = footer.index_position + footer.index_size
    index = decode_index(view[footer.index_position : index_end], key, footer)
    if index.header != view[:HEADER_SIZE]:
        raise Corrupt(f"{key}: its header and the copy in its index differ")
    for block in index.blocks:
        check_block(view[block.position : block.position + block.size], key, block)
    return RecordObject(key, header, index, view)


def parse_blob(
    data: Buffer, key: str, kind: Kind | None = None, write_id: bytes | None = None
) -> Blob:
    """Decode and check an object that holds one blob. Raises Corrupt."""
    view = memoryview(data).toreadonly()
    header = decode_header(view, key)
    _check_write_id(header, key, write_id)
    if header.kind in RECORD_KINDS or (kind is not None and header.kind != kind):
        expected = "a blob" if kind is None else kind.name
        raise Corrupt(f"{key}: kind {header.kind.name}, expected {expected}")
    start = HEADER_SIZE + BLOB_PREFIX_SIZE
    if len(view) < start:
        raise Corrupt(f"{key}: cut short at {len(view)} bytes")
    size, crc = _BLOB.unpack_from(view, HEADER_SIZE)
    body = view[start:]
    if len(body) != size:
        raise Corrupt(f"{key}: {len(body)} bytes of content, {size} expected")
    if crc32c(body) != crc:
        raise Corrupt(f"{key}: checksum of the content does not fit")
    return Blob(key, header, body)


async def read_blob(
    store: ObjectStore, key: str, kind: Kind | None = None, write_id: bytes | None = None
) -> Blob:
    """Raises NotFound, Corrupt (also where `kind` or `write_id` is another)."""
    return parse_blob(await store.get(key), key, kind, write_id)


async def read_header(store: ObjectStore, key: str) -> ObjectHeader:
    """One small ranged GET. Raises NotFound, Corrupt."""
    return decode_header(await store.get_range(key, 0, HEADER_SIZE), key)


async def read_index(
    store: ObjectStore,
    key: str,
    size: int,
    write_id: bytes | None = None,
    *,
    index_size: int | None = None,
) -> ObjectIndex:
    """The index alone: one GET of the object's end, two where the index is large.

    size: of the object, from LIST or a reference. index_size: where a reference tells it, exactly
    that much is read. Raises NotFound, Corrupt.
    """
    if size < HEADER_SIZE + FOOTER_SIZE:
        raise Corrupt(f"{key}: {size} bytes are too few for an object with an index")
    want = SUFFIX_BYTES if index_size is None else index_size + FOOTER_SIZE
    start = max(0, size - want)
    data = memoryview(await store.get_range(key, start, size))
    if len(data) != size - start:
        raise Corrupt(f"{key}: {start + len(data)} bytes, {size} expected")
    footer = decode_footer(data[-FOOTER_SIZE:], key, size)
    if footer.index_position >= start:
        first = footer.index_position - start
        body = data[first : first + footer.index_size]
    else:
        missing = await store.get_range(key, footer.index_position, start)
        body = memoryview(b"".join((missing, data[:-FOOTER_SIZE])))
    index = decode_index(body, key, footer)
    _check_write_id(index.decoded_header(key), key, write_id)
    return index


async def read_blocks(
    store: ObjectStore, key: str, index: ObjectIndex, numbers: Sequence[int]
) -> list[memoryview]:
    """Blocks by number, checked, in the order asked; neighbours share one range read.

    The views of neighbours share memory: who keeps one for long copies it.
    Raises NotFound, Corrupt.
    """
    runs = _runs([index.blocks[n] for n in numbers])
    spans = [(run[0].position, run[-1].position + run[-1].size) for run in runs]
    found: list[memoryview] = []
    for run, data in zip(runs, await store.get_ranges(key, spans), strict=True):
        view = memoryview(data).toreadonly()
        for block in run:
            start = block.position - run[0].position
            found.append(view[start : start + block.size])
            check_block(found[-1], key, block)
    return found


def check_block(data: Buffer, key: str, block: BlockEntry) -> None:
    """Raises Corrupt unless `data` is that block."""
    if len(data) != block.size or crc32c(data) != block.crc:
        raise Corrupt(f"{key}: checksum of the block at {block.position} does not fit")


def _runs(blocks: list[BlockEntry]) -> list[list[BlockEntry]]:
    runs: list[list[BlockEntry]] = []
    for block in blocks:
        if runs and runs[-1][-1].position + runs[-1][-1].size == block.position:
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _footer_of(view: memoryview, key: str) -> Footer:
    if len(view) < HEADER_SIZE + FOOTER_SIZE:
        raise Corrupt(f"{key}: cut short at {len(view)} bytes")
    return decode_footer(view[-FOOTER_SIZE:], key, len(view))


def _check_write_id(header: ObjectHeader, key: str, write_id: bytes | None) -> None:
    if write_id is not None and header.write_id != write_id:
        raise Corrupt(f"{key}: another write's object is in its place")
