"""What a client may append: the checks of one partition's record set, from its header alone.

The codes, and which of them carry a message, are those that Apache Kafka 4.3.1 answered to the
same bytes. Three sorts of refusal, in the order of Kafka's checks:

    the request's  ProduceRequest.validateRecords: one whole batch of magic 2, no old zstd
    the log's      UnifiedLog.analyzeAndValidateRecords: base offset, size, CRC, codec
    the batch's    LogValidator.validateBatch: counts, control bit, producer fields

Deliberate differences: null records get INVALID_RECORD (Kafka never answers them). What only
the records show is checked by `protocol.records.validate_records`.
"""

from __future__ import annotations

import struct

from protocol.batch_header import (
    CODEC_ZSTD,
    HEADER_SIZE,
    LOG_APPEND_TIME,
    LOG_OVERHEAD,
    MAGIC,
    NO_TIMESTAMP,
    BatchHeader,
    crc_ok,
    parse_header,
)
from protocol.errors import ErrorCode, KafkaError, RecordErrors

_SIZE = struct.Struct(">i")
_MAGIC_POSITION = 16
# Smallest batch length that Kafka looks at further (the overhead of a message of format v0).
_LEAST_BATCH_LENGTH = 14
_MAX_INT32 = 0x7FFFFFFF


class RefusedBatch(KafkaError):
    """A record set that is not appended.

    names_log_start: Kafka's answer then has the partition's log start offset, else -1.
    """

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        message: str | None = None,
        names_log_start: bool = False,
    ) -> None:
        super().__init__(code, message, detail=detail)
        self.names_log_start = names_log_start


def check_produced(
    records: memoryview | None, version: int, max_message_bytes: int = _MAX_INT32
) -> BatchHeader:
    """Check what a client wants appended to one partition.

    records: the partition's record set; version: of the Produce request.
    max_message_bytes: the topic's `max.message.bytes`, over the whole batch.
    Returns the header of the one batch. It fills `records[: header.size_bytes]`; a torn batch
    behind it is ignored, as Kafka ignores it.
    Raises RefusedBatch.
    """
    if records is None:
        raise _request_fault("no record set")
    header = _check_request(records, version)
    if header.base_offset != 0:
        raise _log_fault(f"base offset {header.base_offset}, should be 0")
    if header.size_bytes > max_message_bytes:
        raise RefusedBatch(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"a batch of {header.size_bytes} bytes; the limit is {max_message_bytes}",
        )
    if header.size_bytes < HEADER_SIZE or not crc_ok(records, header):
        raise RefusedBatch(
            ErrorCode.CORRUPT_MESSAGE, f"the CRC is not {header.crc:#010x} as stored"
        )
    _check_batch(header)
    return header


def check_timestamps(
    header: BatchHeader, now_ms: int, before_max_ms: int, after_max_ms: int
) -> None:
    """Compare a batch's timestamps with `message.timestamp.before.max.ms` and `.after.max.ms`.

    Only the first record's and the greatest timestamp are in the header, so a record in the
    middle that is too old passes. A batch without timestamps passes too.
    Raises RecordErrors INVALID_TIMESTAMP, naming the record where the header tells which.
    """
    if header.timestamp_type == LOG_APPEND_TIME:
        return
    greatest = timestamp_fault(header.max_timestamp, 0, now_ms, before_max_ms, after_max_ms)
    first = timestamp_fault(header.base_timestamp, 0, now_ms, before_max_ms, after_max_ms)
    if greatest is None and first is None:
        return
    errors: list[tuple[int, str | None]] = []
    if first is not None:
        errors.append((0, first))
    elif header.record_count == 1:
        errors.append((0, greatest))
    raise invalid_timestamps(errors)


def timestamp_fault(
    timestamp: int, offset: int, now_ms: int, before_max_ms: int, after_max_ms: int
) -> str | None:
    """Kafka's words for a timestamp out of bounds; None for a good one, or none at all.

    offset: of the record in its batch as the client sent it.
    """
    oldest, newest = now_ms - before_max_ms, now_ms + after_max_ms
    if timestamp == NO_TIMESTAMP or oldest <= timestamp <= newest:
        return None
    return (
        f"Timestamp {timestamp} of message with offset {offset} is out of range. "
        f"The timestamp should be within [{oldest}, {newest}]"
    )


def invalid_timestamps(record_errors: list[tuple[int, str | None]]) -> RecordErrors:
    return RecordErrors(
        ErrorCode.INVALID_TIMESTAMP,
        "One or more records have been rejected due to invalid timestamp",
        record_errors,
    )


def _check_request(records: memoryview, version: int) -> BatchHeader:
    size = _batch_size(records, 0)
    if size is None:
        raise _request_fault("no whole record batch")
    if records[_MAGIC_POSITION] != MAGIC:
        raise _request_fault(f"a batch of magic {records[_MAGIC_POSITION]}")
    if size < HEADER_SIZE:
        raise RefusedBatch(ErrorCode.CORRUPT_MESSAGE, f"a batch of {size} bytes")
    header = parse_header(records)
    if version < 7:
        if header.codec > CODEC_ZSTD:
            raise _unknown_codec(header.codec, names_log_start=False)
        if header.codec == CODEC_ZSTD:
            raise RefusedBatch(ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"zstd in version {version}")
    if _batch_size(records, size) is not None:
        raise _request_fault("more than one record batch")
    return header


def _check_batch(header: BatchHeader) -> None:
    if header.codec > CODEC_ZSTD:
        raise _unknown_codec(header.codec, names_log_start=True)
    count_from_offsets = header.last_offset_delta + 1
    if count_from_offsets <= 0:
        raise _log_fault(f"last offset delta {header.last_offset_delta}")
    if header.record_count <= 0 or header.record_count != count_from_offsets:
        raise _log_fault(
            f"{header.record_count} records announced, {count_from_offsets} by the offsets"
        )
    if header.is_control:
        raise _log_fault("a control batch from a client")
    if header.has_producer_id and header.base_sequence < 0:
        raise _log_fault(f"sequence {header.base_sequence} with producer {header.producer_id}")


def _batch_size(records: memoryview, position: int) -> int | None:
    """Size of the whole batch at `position`; None when what is there is not a whole one.

    Raises RefusedBatch: a length or magic that no batch has.
    """
    left = len(records) - position
    if left < LOG_OVERHEAD:
        return None
    (length,) = _SIZE.unpack_from(records, position + 8)
    if length < _LEAST_BATCH_LENGTH:
        fault = (
            f"Record size {length} is less than the minimum record overhead ({_LEAST_BATCH_LENGTH})"
        )
        raise _unreadable(fault, position)
    if left <= _MAGIC_POSITION:
        return None
    magic = records[position + _MAGIC_POSITION]
    if magic > MAGIC:
        signed = magic - 256 if magic > 127 else magic
        raise _unreadable(f"Invalid magic found in record: {signed}", position)
    size: int = length + LOG_OVERHEAD
    if size > _MAX_INT32:
        # Kafka's sum overflows here, and its look-up fails unforeseen.
        raise RefusedBatch(ErrorCode.UNKNOWN_SERVER_ERROR, f"batch length {length}")
    return size if size <= left else None


def _unreadable(fault: str, position: int) -> RefusedBatch:
    # Kafka tells the client only what is wrong with the first batch.
    return RefusedBatch(ErrorCode.CORRUPT_MESSAGE, fault, message=fault if position == 0 else None)


def _request_fault(detail: str) -> RefusedBatch:
    return RefusedBatch(ErrorCode.INVALID_RECORD, detail)


def _log_fault(detail: str) -> RefusedBatch:
    return RefusedBatch(ErrorCode.INVALID_RECORD, detail, names_log_start=True)


def _unknown_codec(codec: int, names_log_start: bool) -> RefusedBatch:
    # Kafka has no error for it: its look-up of the codec fails unforeseen.
    return RefusedBatch(
        ErrorCode.UNKNOWN_SERVER_ERROR,
        f"unknown codec {codec}",
        names_log_start=names_log_start,
    )
