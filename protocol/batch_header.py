"""The header of a record batch, format v2: read, checked and changed without touching a record.

    position  size  field                  inside the CRC
           0     8  base offset            no
           8     4  batch length           no     (bytes after this field)
          12     4  partition leader epoch no
          16     1  magic                  no     (2)
          17     4  CRC-32C                no     (of everything from position 21)
          21     2  attributes             yes
          23     4  last offset delta      yes
          27     8  base timestamp         yes
          35     8  maximum timestamp      yes
          43     8  producer id            yes
          51     2  producer epoch         yes
          53     4  base sequence          yes
          57     4  record count           yes
          61        records, compressed as a whole

Attributes: bits 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
Base offset and leader epoch lie outside the CRC, so a leader sets both in place.
Source: Kafka's documentation, "Record Batch"; KIP-98; org.apache.kafka.common.record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from crc32c import crc32c

Buffer = bytes | bytearray | memoryview

HEADER_SIZE: Final = 61
# Base offset and batch length: what the batch length does not count.
LOG_OVERHEAD: Final = 12
MAGIC: Final = 2

CODEC_NONE: Final = 0
CODEC_GZIP: Final = 1
CODEC_SNAPPY: Final = 2
CODEC_LZ4: Final = 3
CODEC_ZSTD: Final = 4

CODEC_MASK: Final = 0x07
LOG_APPEND_TIME_BIT: Final = 0x08
TRANSACTIONAL_BIT: Final = 0x10
CONTROL_BIT: Final = 0x20
DELETE_HORIZON_BIT: Final = 0x40

CREATE_TIME: Final = 0
LOG_APPEND_TIME: Final = 1
NO_TIMESTAMP: Final = -1

_CRC_POSITION: Final = 17
_CRC_START: Final = 21
_ATTRIBUTES_POSITION: Final = 21
_MAX_TIMESTAMP_POSITION: Final = 35

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC = struct.Struct(">I")
_ATTRIBUTES = struct.Struct(">h")
_TIMESTAMP = struct.Struct(">q")
_OFFSET = struct.Struct(">q")
_EPOCH = struct.Struct(">i")
assert _HEADER.size == HEADER_SIZE


class BatchHeader(NamedTuple):
    """The 61 bytes that a batch begins with. batch_length excludes the first 12 of them."""

    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size_bytes(self) -> int:
        """The whole batch, header included."""
        return self.batch_length + LOG_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record, -1 without one; wraps from 2**31 - 1 to 0 as Kafka's."""
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) & 0x7FFFFFFF

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def timestamp_type(self) -> int:
        return LOG_APPEND_TIME if self.attributes & LOG_APPEND_TIME_BIT else CREATE_TIME

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL_BIT)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL_BIT)

    @property
    def has_producer_id(self) -> bool:
        return self.producer_id > -1


def parse_header(buf: Buffer, position: int = 0) -> BatchHeader:
    """The header at `position`. Raises ValueError: fewer than 61 bytes are there."""
    try:
        return BatchHeader._make(_HEADER.unpack_from(buf, position))
    except struct.error:
        raise ValueError(
            f"a batch header needs {HEADER_SIZE} bytes; {len(buf) - position} at {position}"
        ) from None


def iter_headers(buf: Buffer) -> Iterator[tuple[int, BatchHeader]]:
    """(position, header) of each batch in a run of whole batches.

    Raises ValueError: a batch that is cut short, shorter than its header, or not of format v2.
    """
    position, end = 0, len(buf)
    while position < end:
        header = parse_header(buf, position)
        if header.magic != MAGIC:
            raise ValueError(f"magic {header.magic} at position {position}")
        if not HEADER_SIZE <= header.size_bytes <= end - position:
            raise ValueError(
                f"a batch of {header.size_bytes} bytes at {position}; {end - position} are left"
            )
        yield position, header
        position += header.size_bytes


def assign(buf: bytearray | memoryview, base_offset: int, leader_epoch: int) -> None:
    """Set base offset and leader epoch of the batch in place; the CRC stays right."""
    _OFFSET.pack_into(buf, 0, base_offset)
    _EPOCH.pack_into(buf, 12, leader_epoch)


def crc_ok(buf: Buffer, header: BatchHeader) -> bool:
    """Whether the CRC of the batch that `buf` begins with is that of its bytes."""
    return bool(crc32c(memoryview(buf)[_CRC_START : header.size_bytes]) == header.crc)


def seal_crc(buf: bytearray | memoryview) -> None:
    """Compute the CRC of the one batch that fills `buf`, and store it."""
    _CRC.pack_into(buf, _CRC_POSITION, crc32c(memoryview(buf)[_CRC_START:]))


def set_log_append_time(buf: bytearray | memoryview, timestamp_ms: int) -> None:
    """Stamp the one batch that fills `buf` with the broker's time.

    The attribute bit and the maximum timestamp lie inside the CRC, which is computed anew.
    Readers take the maximum timestamp for every record then, so none is touched.
    """
    (attributes,) = _ATTRIBUTES.unpack_from(buf, _ATTRIBUTES_POSITION)
    _ATTRIBUTES.pack_into(buf, _ATTRIBUTES_POSITION, attributes | LOG_APPEND_TIME_BIT)
    _TIMESTAMP.pack_into(buf, _MAX_TIMESTAMP_POSITION, timestamp_ms)
    seal_crc(buf)


def clear_log_append_time(buf: bytearray | memoryview) -> None:
    """Take the broker-time bit out of the one batch that fills `buf`, the CRC computed anew.

    A client may have set it; on a topic with create time Kafka stores the batch without it.
    """
    (attributes,) = _ATTRIBUTES.unpack_from(buf, _ATTRIBUTES_POSITION)
    _ATTRIBUTES.pack_into(buf, _ATTRIBUTES_POSITION, attributes & ~LOG_APPEND_TIME_BIT)
    seal_crc(buf)
