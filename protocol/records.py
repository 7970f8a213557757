"""The records inside a batch of format v2.

    length           varint, of what follows
    attributes       int8, 0
    timestamp delta  varlong, to the batch's base timestamp
    offset delta     varint, to the batch's base offset
    key              varint length (-1 for null), bytes
    value            varint length (-1 for null), bytes
    headers          varint count; each: varint length, name, varint length (-1), value

Varints are zigzag-coded. All records of a batch are compressed as one. Not for the hot path:
produce and fetch never come here, but for coordinators, compaction, look-ups by time and checks.
Source: Kafka's documentation, "Record"; org.apache.kafka.common.record.DefaultRecord.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from protocol.batch_header import (
    CODEC_MASK,
    HEADER_SIZE,
    LOG_APPEND_TIME,
    LOG_APPEND_TIME_BIT,
    LOG_OVERHEAD,
    MAGIC,
    NO_TIMESTAMP,
    Buffer,
    parse_header,
    seal_crc,
)
from protocol.compression import DEFAULT_LIMIT_BYTES, BadCompression, compress, decompress
from protocol.errors import ErrorCode, KafkaError, RecordErrors
from protocol.produced_batch import invalid_timestamps

_HEADER = struct.Struct(">qiibIhiqqqhii")
_VARLONG_BYTES = 10
_KEYLESS = "Compacted topic cannot accept message without key"


class CorruptRecords(ValueError):
    """The records of a batch are not what its header announces."""


class UnreadableRecords(CorruptRecords):
    """Not even bytes that could be records: bad compression, or an endless varint.

    Apart from its parent because Kafka answers a client with UNKNOWN_SERVER_ERROR then.
    """


class Record(NamedTuple):
    """One record. offset: absolute; timestamp: ms since 1970; headers: (name, value)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


def encode_batch(
    records: Sequence[Record],
    base_offset: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    *,
    codec: int = 0,
    level: int | None = None,
    timestamp_type: int = 0,
    leader_epoch: int = -1,
    attributes: int = 0,
    last_offset_delta: int | None = None,
    log_append_time: int | None = None,
) -> bytearray:
    """A whole batch, CRC included.

    records: offsets ascend and start at `base_offset` or later; none at all is a batch that
    compaction emptied, and needs last_offset_delta.
    attributes: further attribute bits (transactional, control).
    last_offset_delta: where the batch ends, when that is beyond its last record.
    Raises ValueError: offsets that do not ascend.
    """
    base_timestamp = records[0].timestamp if records else NO_TIMESTAMP
    body = bytearray()
    previous = base_offset - 1
    max_timestamp = NO_TIMESTAMP
    for record in records:
        if record.offset <= previous:
            raise ValueError(f"offset {record.offset} does not come after {previous}")
        previous = record.offset
        max_timestamp = max(max_timestamp, record.timestamp)
        _append_record(body, record, record.offset - base_offset, base_timestamp)
    attributes |= codec
    if timestamp_type == LOG_APPEND_TIME:
        attributes |= LOG_APPEND_TIME_BIT
        if log_append_time is not None:
            max_timestamp = log_append_time
    if last_offset_delta is None:
        last_offset_delta = previous - base_offset
    packed = compress(codec, body, level) if codec else body
    batch = bytearray(HEADER_SIZE + len(packed))
    _HEADER.pack_into(
        batch,
        0,
        base_offset,
        len(batch) - LOG_OVERHEAD,
        leader_epoch,
        MAGIC,
        0,
        attributes,
        last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        len(records),
    )
    batch[HEADER_SIZE:] = packed
    seal_crc(batch)
    return batch


def decode_records(batch: Buffer, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> list[Record]:
    """All records of the one batch that `batch` begins with; the CRC is not looked at.

    With log append time every record has the batch's maximum timestamp.
    Raises CorruptRecords: damaged, or longer than `limit_bytes` when expanded.
    """
    try:
        header = parse_header(batch)
        if not HEADER_SIZE <= header.size_bytes <= len(batch):
            raise CorruptRecords(f"a batch of {header.size_bytes} bytes in {len(batch)}")
        packed = memoryview(batch)[HEADER_SIZE : header.size_bytes]
        data = memoryview(decompress(header.codec, packed, limit_bytes))
    except BadCompression as error:
        raise UnreadableRecords(str(error)) from None
    except CorruptRecords:
        raise
    except ValueError as error:
        raise CorruptRecords(str(error)) from None
    if not 0 <= header.record_count <= len(data):
        raise CorruptRecords(f"{header.record_count} records in {len(data)} bytes")
    stamp = header.max_timestamp if header.timestamp_type == LOG_APPEND_TIME else None
    records: list[Record] = []
    position = 0
    try:
        for _ in range(header.record_count):
            length, position = read_varint(data, position)
            end = position + length
            if length < 0 or end > len(data):
                raise CorruptRecords(f"a record of {length} bytes at position {position}")
            records.append(
                _read_record(data, position, end, header.base_offset, header.base_timestamp, stamp)
            )
            position = end
    except IndexError:
        raise CorruptRecords("a record is cut short") from None
    if position != len(data):
        raise CorruptRecords(f"{len(data) - position} bytes after the last record")
    return records


def recompress(batch: Buffer, codec: int, level: int | None = None) -> bytearray:
    """The same batch with its records in another codec; everything else is kept.

    Raises UnreadableRecords: the records cannot be expanded.
    """
    header = parse_header(batch)
    try:
        data = decompress(header.codec, memoryview(batch)[HEADER_SIZE : header.size_bytes])
    except ValueError as error:
        raise UnreadableRecords(str(error)) from None
    packed = compress(codec, data, level)
    out = bytearray(HEADER_SIZE + len(packed))
    _HEADER.pack_into(
        out,
        0,
        *header._replace(
            batch_length=len(out) - LOG_OVERHEAD,
            attributes=(header.attributes & ~CODEC_MASK) | codec,
        ),
    )
    out[HEADER_SIZE:] = packed
    seal_crc(out)
    return out


def validate_records(
    batch: Buffer,
    *,
    compacted_as: str | None = None,
    timestamp_fault: Callable[[Record], str | None] | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> list[Record]:
    """Check what only the records show (`log.validate.records`), and return them.

    batch: as the client sent it. compacted_as: name of the topic partition when every record needs
    a key. timestamp_fault: says what
    is wrong with a record's timestamp, or None.
    A record whose offset does not follow its predecessor's is refused; Kafka accepts it without
    compression, and stores a batch that ends before its last record.
    Raises RecordErrors: with the records at fault (KIP-467). KafkaError INVALID_RECORD or
    UNKNOWN_SERVER_ERROR: the records cannot be read, or do not count up one by one.
    """
    header = parse_header(batch)
    try:
        records = decode_records(batch, limit_bytes)
    except UnreadableRecords as error:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, detail=str(error)) from None
    except CorruptRecords as error:
        raise KafkaError(ErrorCode.INVALID_RECORD, detail=str(error)) from None
    errors: list[tuple[int, str | None]] = []
    late = False
    for index, record in enumerate(records):
        if record.offset != header.base_offset + index:
            # With a codec Kafka tries to build the batch anew, and fails unforeseen.
            code = ErrorCode.UNKNOWN_SERVER_ERROR if header.codec else ErrorCode.INVALID_RECORD
            raise KafkaError(code, detail=f"record {index} has offset {record.offset}")
        if compacted_as is not None and record.key is None:
            errors.append((index, f"{_KEYLESS} in topic partition {compacted_as}"))
            continue
        fault = timestamp_fault(record) if timestamp_fault is not None else None
        if fault is not None:
            errors.append((index, fault))
            late = True
    # One timestamp out of bounds decides the code of the whole batch.
    if late:
        raise invalid_timestamps(errors)
    if errors:
        shown = ", ".join(f"RecordError(batchIndex={i}, message='{m}')" for i, m in errors[:3])
        raise RecordErrors(
            ErrorCode.INVALID_RECORD,
            f"One or more records have been rejected due to {len(errors)} record errors in total, "
            f"and only showing the first three errors at most: [{shown}]",
            errors,
        )
    return records


def write_varint(out: bytearray, value: int) -> None:
    """Zigzag and 7 bits a byte, for values of up to 64 bits."""
    value = (value << 1) ^ (value >> 63)
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


def read_varint(data: Buffer, position: int, max_bytes: int = 5) -> tuple[int, int]:
    """(value, next position) of a zigzag varint; max_bytes is 10 for a varlong.

    Raises IndexError: cut short; UnreadableRecords: longer than max_bytes.
    """
    byte = data[position]
    position += 1
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position
    raw = byte & 0x7F
    shift = 7
    while byte >= 0x80:
        if shift == 7 * max_bytes:
            raise UnreadableRecords(f"a varint has more than {max_bytes} bytes")
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        shift += 7
    return (raw >> 1) ^ -(raw & 1), position


def _append_record(out: bytearray, record: Record, delta: int, base_timestamp: int) -> None:
    body = bytearray(1)
    write_varint(body, record.timestamp - base_timestamp)
    write_varint(body, delta)
    _append_bytes(body, record.key)
    _append_bytes(body, record.value)
    write_varint(body, len(record.headers))
    for name, value in record.headers:
        _append_bytes(body, name.encode("utf-8"))
        _append_bytes(body, value)
    write_varint(out, len(body))
    out += body


def _append_bytes(out: bytearray, value: bytes | None) -> None:
    if value is None:
        write_varint(out, -1)
        return
    write_varint(out, len(value))
    out += value


def _read_record(
    data: memoryview,
    position: int,
    end: int,
    base_offset: int,
    base_timestamp: int,
    stamp: int | None,
) -> Record:
    position += 1  # attributes, unused
    timestamp_delta, position = read_varint(data, position, _VARLONG_BYTES)
    offset_delta, position = read_varint(data, position)
    key, position = _read_bytes(data, position, end)
    value, position = _read_bytes(data, position, end)
    count, position = read_varint(data, position)
    headers: list[tuple[str, bytes | None]] = []
    # A header has at least two bytes.
    if not 0 <= 2 * count <= end - position:
        raise CorruptRecords(f"{count} headers in {end - position} bytes")
    for _ in range(count):
        name, position = _read_bytes(data, position, end)
        if name is None:
            raise CorruptRecords("a header without a name")
        header_value, position = _read_bytes(data, position, end)
        headers.append((str(name, "utf-8", "replace"), header_value))
    if position != end:
        raise CorruptRecords(f"a record ends at {position} and should at {end}")
    timestamp = base_timestamp + timestamp_delta if stamp is None else stamp
    return Record(base_offset + offset_delta, timestamp, key, value, tuple(headers))


def _read_bytes(data: memoryview, position: int, end: int) -> tuple[bytes | None, int]:
    length, position = read_varint(data, position)
    if length < 0:
        return None, position
    if position + length > end:
        raise CorruptRecords(f"{length} bytes announced, {end - position} left")
    return bytes(data[position : position + length]), position + length
