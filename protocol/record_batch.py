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
from hashlib import blake2b
from typing import Final, NamedTuple

from crc32c import crc32c

from protocol.errors import ErrorCode, KafkaError

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
_MAGIC_POSITION: Final = 16
# Smallest batch length that Kafka looks at further (the overhead of a message of format v0).
_LEAST_BATCH_LENGTH: Final = 14

_HEADER = struct.Struct(">qiibIhiqqqhii")
_SIZE = struct.Struct(">i")
_CRC = struct.Struct(">I")
_ATTRIBUTES = struct.Struct(">h")
_TIMESTAMP = struct.Struct(">q")
_OFFSET = struct.Struct(">q")
_EPOCH = struct.Struct(">i")
_SUM_TERM = struct.Struct(">qqiIi")
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


def sum128(header: BatchHeader) -> int:
    """This batch's term in a stream's proof sum; callers add terms modulo 2**128.

    A mix, so that two faults do not cancel each other: BLAKE2b-128 of base offset, last offset,
    batch length, CRC and leader epoch, big endian.
    """
    term = _SUM_TERM.pack(
        header.base_offset,
        header.last_offset,
        header.batch_length,
        header.crc,
        header.leader_epoch,
    )
    return int.from_bytes(blake2b(term, digest_size=16).digest(), "big")


def check_produced(
    records: memoryview | None, version: int, max_message_bytes: int = 0x7FFFFFFF
) -> BatchHeader:
    """Check what a client wants appended to one partition, from its header alone.

    records: the partition's record set; version: of the Produce request.
    max_message_bytes: the topic's `max.message.bytes`, over the whole batch.
    Returns the header of the one batch, which fills `records` but for a torn batch behind it.
    Raises KafkaError with the code that Kafka 4.3.1 answers, in the order of its checks: the
    request's (ProduceRequest.validateRecords), the log's (UnifiedLog.analyzeAndValidateRecords),
    the batch's (LogValidator.validateBatch). Kafka sends no message with any of them.
    """
    header = _check_request(records, version)
    assert records is not None
    if header.base_offset != 0:
        raise _invalid(f"base offset {header.base_offset}, should be 0")
    if header.size_bytes > max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            detail=f"a batch of {header.size_bytes} bytes; the limit is {max_message_bytes}",
        )
    if header.size_bytes < HEADER_SIZE or not crc_ok(records, header):
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, detail=f"the CRC is not {header.crc:#010x} as stored"
        )
    _check_batch(header)
    return header


def _check_request(records: memoryview | None, version: int) -> BatchHeader:
    if records is None:
        raise _invalid("no record batch")
    size = _batch_size(records, 0)
    if size is None:
        raise _invalid("no whole record batch")
    if records[_MAGIC_POSITION] != MAGIC:
        raise _invalid(f"a batch of magic {records[_MAGIC_POSITION]}")
    if size < HEADER_SIZE:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, detail=f"a batch of {size} bytes")
    header = parse_header(records)
    if version < 7:
        if header.codec > CODEC_ZSTD:
            raise _unknown_codec(header.codec)
        if header.codec == CODEC_ZSTD:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, detail=f"zstd in version {version}"
            )
    if _batch_size(records, size) is not None:
        raise _invalid("more than one record batch")
    return header


def _check_batch(header: BatchHeader) -> None:
    if header.codec > CODEC_ZSTD:
        raise _unknown_codec(header.codec)
    count_from_offsets = header.last_offset_delta + 1
    if count_from_offsets <= 0:
        raise _invalid(f"last offset delta {header.last_offset_delta}")
    if header.record_count <= 0 or header.record_count != count_from_offsets:
        raise _invalid(
            f"{header.record_count} records announced, {count_from_offsets} by the offsets"
        )
    if header.is_control:
        raise _invalid("a control batch from a client")
    if header.has_producer_id and header.base_sequence < 0:
        raise _invalid(f"sequence {header.base_sequence} with producer {header.producer_id}")


def _batch_size(records: memoryview, position: int) -> int | None:
    """Size of the whole batch at `position`; None when what is there is not a whole one.

    Raises KafkaError CORRUPT_MESSAGE: a length or magic that no batch has.
    """
    left = len(records) - position
    if left < LOG_OVERHEAD:
        return None
    (length,) = _SIZE.unpack_from(records, position + 8)
    if length < _LEAST_BATCH_LENGTH:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, detail=f"batch length {length}")
    if left <= _MAGIC_POSITION:
        return None
    if records[position + _MAGIC_POSITION] > MAGIC:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, detail=f"magic {records[position + _MAGIC_POSITION]}"
        )
    size: int = length + LOG_OVERHEAD
    return size if size <= left else None


def _invalid(detail: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, detail=detail)


def _unknown_codec(codec: int) -> KafkaError:
    # Kafka has no error for it: its lookup of the codec fails unforeseen.
    return KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, detail=f"unknown codec {codec}")
