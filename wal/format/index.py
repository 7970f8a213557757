"""Index and footer of the objects that hold records.

    header (80 bytes) | blocks | index | footer (48 bytes)

The index is msgpack: every struct below is an array of its fields in order. New fields go at the
end with a default; a reader takes absent ones for the default and skips those that it does not
know. The footer, big-endian:

    position  size  field
    0         8     position of the index in the object
    8         8     size of the index
    16        4     crc32c of the index
    20        8     size of the whole object
    28        8     first half of the write id
    36        4     magic, b"HWFT"
    40        4     footer version, 1
    44        4     crc32c of the 44 bytes before

The index repeats the object's header, so that one read of an object's end tells everything but
the records.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Annotated, NamedTuple

import msgspec
from crc32c import crc32c

from objectstore.errors import Corrupt
from objectstore.store import Buffer

from .header import HEADER_SIZE, RECORD_KINDS, ObjectHeader, decode_header

FOOTER_MAGIC = b"HWFT"
FOOTER_VERSION = 1
_FOOTER = struct.Struct(">QQIQ8s4sI")
_CRC = struct.Struct(">I")
FOOTER_SIZE = _FOOTER.size + _CRC.size
assert FOOTER_SIZE == 48

# An index of 200,000 ranges is about this large; a footer that claims more is not ours.
MAX_INDEX_BYTES = 64 << 20
NO_BLOCK = -1

U64 = Annotated[int, msgspec.Meta(ge=0)]  # msgpack itself ends at 2^64-1
I64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
I32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class BlockEntry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """position: in the object, bytes."""

    position: Count
    size: Count
    crc: Count


class LargeBatchRef(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A batch kept in a data object of its own. size: of that object, bytes."""

    key: str
    write_id: Bytes16
    size: Count


class ControlMarker(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A commit or abort marker at `offset`; first_offset: of the transaction that it ends."""

    offset: Offset
    producer_id: I64
    producer_epoch: I32
    coordinator_epoch: I32
    commit: bool
    first_offset: I64


ProducerBatch = tuple[I32, I32, Offset, Offset, I64]
"""(base sequence, last sequence, base offset, last offset, timestamp)."""


class ProducerUpdate(msgspec.Struct, array_like=True, gc=False):
    """What one range does to one producer's state.

    batches: the last five of `epoch` in this range, oldest first.
    txn_first_offset: where the transaction begins that is open at the range's end, if it began in
    this range; else -1. reset: the epoch changed inside this range, forget earlier batches.
    last_timestamp: of the newest batch or marker of this producer in this range.
    """

    producer_id: I64
    epoch: I32
    batches: list[ProducerBatch]
    txn_first_offset: I64 = -1
    reset: bool = False
    last_timestamp: I64 = -1


class StreamRange(msgspec.Struct, array_like=True, gc=False):
    """Neighbouring batches of one stream and one leader epoch, in one block.

    end_offset: exclusive. position: in the block, bytes. max_timestamp_offset: the last offset of
    the first batch that has it. sum: of the batches, see `batch_sum`.
    reference: the range is one batch that lies in an object of its own; then `block` is NO_BLOCK,
    and base offset and leader epoch of the batch found there are to be replaced by these.
    """

    stream_id: U64
    base_offset: Offset
    end_offset: Offset
    block: Annotated[int, msgspec.Meta(ge=NO_BLOCK, le=2**31)]
    position: Count
    size_bytes: Count
    record_count: Count
    batch_count: Count
    leader_epoch: I32
    max_timestamp: I64
    max_timestamp_offset: I64
    sum: Bytes16
    producers: list[ProducerUpdate] = []
    markers: list[ControlMarker] = []
    reference: LargeBatchRef | None = None


class ObjectIndex(msgspec.Struct, array_like=True):
    """ranges: by stream id, then offset. header: the object's own first 80 bytes."""

    blocks: list[BlockEntry]
    ranges: list[StreamRange]
    controls: list[bytes]
    header: bytes = b""

    def decoded_header(self, key: str) -> ObjectHeader:
        """Raises Corrupt naming `key`."""
        return decode_header(self.header, key)


class Footer(NamedTuple):
    index_position: int
    index_size: int
    index_crc: int
    object_size: int
    write_id_half: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(ObjectIndex)
_SUMMED = struct.Struct(">qqqIi")
_MASK = 2**128 - 1


def batch_sum(
    base_offset: int, last_offset: int, size_bytes: int, crc: int, leader_epoch: int
) -> int:
    """One batch's part of a stream's sum modulo 2^128 (add and subtract with `add_sums`)."""
    packed = _SUMMED.pack(base_offset, last_offset, size_bytes, crc, leader_epoch)
    return int.from_bytes(blake2b(packed, digest_size=16).digest(), "big")


def add_sums(*sums: bytes) -> bytes:
    """16 bytes each."""
    total = sum(int.from_bytes(one, "big") for one in sums)
    return (total & _MASK).to_bytes(16, "big")


def subtract_sum(total: bytes, part: bytes) -> bytes:
    left = int.from_bytes(total, "big") - int.from_bytes(part, "big")
    return (left & _MASK).to_bytes(16, "big")


def sum_bytes(total: int) -> bytes:
    return (total & _MASK).to_bytes(16, "big")


def encode_tail(index: ObjectIndex, index_position: int, write_id: bytes) -> list[bytes]:
    """Index and footer, the last two chunks of an object; `index.header` must be set."""
    assert len(index.header) == HEADER_SIZE, "an index without its object's header"
    body = _encoder.encode(index)
    assert len(body) <= MAX_INDEX_BYTES, f"an index of {len(body)} bytes: cut smaller objects"
    size = index_position + len(body) + FOOTER_SIZE
    foot = _FOOTER.pack(
        index_position, len(body), crc32c(body), size, write_id[:8], FOOTER_MAGIC, FOOTER_VERSION
    )
    return [body, foot + _CRC.pack(crc32c(foot))]


def decode_footer(data: Buffer, key: str, object_size: int) -> Footer:
    """data: the object's last 48 bytes. Raises Corrupt naming `key`."""
    if len(data) != FOOTER_SIZE:
        raise Corrupt(f"{key}: footer cut short at {len(data)} bytes")
    position, size, crc, whole, half, magic, version = _FOOTER.unpack_from(data)
    (foot_crc,) = _CRC.unpack_from(data, _FOOTER.size)
    if magic != FOOTER_MAGIC:
        raise Corrupt(f"{key}: no footer at its end")
    if version != FOOTER_VERSION:
        raise Corrupt(f"{key}: footer version {version}; this release reads {FOOTER_VERSION}")
    if crc32c(memoryview(data)[: _FOOTER.size]) != foot_crc:
        raise Corrupt(f"{key}: checksum of the footer does not fit")
    if whole != object_size:
        raise Corrupt(f"{key}: {object_size} bytes, but its footer says {whole}")
    fits = position >= HEADER_SIZE and position + size + FOOTER_SIZE == whole
    if not fits or size > MAX_INDEX_BYTES:
        raise Corrupt(f"{key}: its footer places the index at {position}, {size} bytes")
    return Footer(position, size, crc, whole, half)


def decode_index(data: Buffer, key: str, footer: Footer) -> ObjectIndex:
    """data: the index alone. Raises Corrupt naming `key` unless every position in it is sound."""
    if len(data) != footer.index_size or crc32c(data) != footer.index_crc:
        raise Corrupt(f"{key}: checksum of the index does not fit")
    try:
        index = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"{key}: index: {error}") from error
    header = index.decoded_header(key)
    if header.kind not in RECORD_KINDS:
        raise Corrupt(f"{key}: kind {header.kind.name} has no index")
    if header.write_id[:8] != footer.write_id_half:
        raise Corrupt(f"{key}: header and footer are of two different writes")
    _check_layout(index, key, footer)
    return index


def _check_layout(index: ObjectIndex, key: str, footer: Footer) -> None:
    position = HEADER_SIZE
    for block in index.blocks:
        if block.position != position:
            raise Corrupt(f"{key}: a block at {block.position}, expected at {position}")
        position += block.size
    if position != footer.index_position:
        raise Corrupt(f"{key}: blocks end at {position}, the index begins elsewhere")
    count = len(index.blocks)
    for one in index.ranges:
        if one.end_offset <= one.base_offset:
            raise Corrupt(f"{key}: an empty range of stream {one.stream_id}")
        if one.reference is not None:
            sound = one.block == NO_BLOCK
        else:
            sound = (
                0 <= one.block < count
                and one.position + one.size_bytes <= index.blocks[one.block].size
            )
        if not sound:
            raise Corrupt(f"{key}: a range of stream {one.stream_id} lies outside its block")
