"""The codes are those that Apache Kafka 4.3.1 answered when it was sent the same bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ErrorCode, KafkaError, RecordErrors
from protocol.record_batch import (
    LOG_APPEND_TIME,
    RefusedBatch,
    check_produced,
    check_timestamps,
    parse_header,
    seal_crc,
)
from protocol.records import Record, encode_batch

NOW = 1_800_000_000_000
GOOD = bytes(encode_batch([Record(i, NOW, b"k", b"v") for i in range(3)]))
NO_LOG_START, LOG_START = False, True


def changed(position: int, layout: str, value: int, *, crc: bool = True) -> bytes:
    batch = bytearray(GOOD)
    struct.pack_into(layout, batch, position, value)
    if crc:
        seal_crc(batch)
    return bytes(batch)


def with_codec(codec: int) -> bytes:
    return bytes(encode_batch([Record(0, NOW, b"k", b"v")], codec=codec))


def refusal(records: bytes | None, version: int = 9, limit: int = 1_048_588) -> RefusedBatch:
    view = None if records is None else memoryview(records)
    with pytest.raises(RefusedBatch) as caught:
        check_produced(view, version, limit)
    return caught.value


@pytest.mark.parametrize(
    "records",
    [
        GOOD,
        *(with_codec(codec) for codec in range(5)),
        GOOD + GOOD[:40],  # a torn second batch
        GOOD + b"12345",
        changed(12, ">i", 77, crc=False),  # leader epoch
        changed(21, ">h", 0x08),  # log append time
        changed(21, ">h", 0x40),  # delete horizon
        changed(21, ">h", -256),  # unused attribute bits
        changed(35, ">q", 5),  # maximum timestamp that no record has
        bytes(encode_batch([Record(0, -5, b"k", b"v")])),
        bytes(encode_batch([Record(0, NOW, b"", b"")], 0, producer_id=5, base_sequence=0)),
        bytes(encode_batch([Record(0, NOW, b"", b"")], 0, producer_id=-5, base_sequence=0)),
        bytes(encode_batch([Record(0, NOW, b"", b"")], 0, producer_epoch=3, base_sequence=7)),
    ],
)
def test_what_kafka_takes_is_taken(records: bytes) -> None:
    header = check_produced(memoryview(records), 9)
    assert header == parse_header(records)


@pytest.mark.parametrize(
    ("records", "code", "names_log_start"),
    [
        (None, ErrorCode.INVALID_RECORD, NO_LOG_START),
        (b"", ErrorCode.INVALID_RECORD, NO_LOG_START),
        (GOOD[:10], ErrorCode.INVALID_RECORD, NO_LOG_START),
        (GOOD[:12], ErrorCode.INVALID_RECORD, NO_LOG_START),
        (GOOD[:17], ErrorCode.INVALID_RECORD, NO_LOG_START),
        (GOOD[:-1], ErrorCode.INVALID_RECORD, NO_LOG_START),
        (changed(17, ">I", 1, crc=False), ErrorCode.CORRUPT_MESSAGE, NO_LOG_START),
        (changed(16, ">b", 0, crc=False), ErrorCode.INVALID_RECORD, NO_LOG_START),
        (changed(16, ">b", 1, crc=False), ErrorCode.INVALID_RECORD, NO_LOG_START),
        (changed(8, ">i", 14, crc=False), ErrorCode.CORRUPT_MESSAGE, NO_LOG_START),
        (changed(8, ">i", 48, crc=False), ErrorCode.CORRUPT_MESSAGE, NO_LOG_START),
        (changed(8, ">i", 2**31 - 1, crc=False), ErrorCode.UNKNOWN_SERVER_ERROR, NO_LOG_START),
        (GOOD + GOOD, ErrorCode.INVALID_RECORD, NO_LOG_START),
        (changed(21, ">h", 5), ErrorCode.UNKNOWN_SERVER_ERROR, LOG_START),
        (changed(21, ">h", 7), ErrorCode.UNKNOWN_SERVER_ERROR, LOG_START),
        (changed(0, ">q", 5, crc=False), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(0, ">q", -1, crc=False), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(57, ">i", 0), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(57, ">i", -1), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(57, ">i", 2), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(57, ">i", 4), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(23, ">i", -1), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(23, ">i", 1), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(23, ">i", 2**31 - 1), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(21, ">h", 0x20), ErrorCode.INVALID_RECORD, LOG_START),
        (changed(43, ">q", 5), ErrorCode.INVALID_RECORD, LOG_START),
        (bytes(encode_batch([], last_offset_delta=0)), ErrorCode.INVALID_RECORD, LOG_START),
    ],
)
def test_a_faulty_batch_gets_the_code_that_kafka_gives(
    records: bytes | None, code: ErrorCode, names_log_start: bool
) -> None:
    error = refusal(records)
    assert (error.code, error.message, error.names_log_start) == (code, None, names_log_start)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (changed(16, ">b", 3, crc=False), "Invalid magic found in record: 3"),
        (changed(16, ">b", -1, crc=False), "Invalid magic found in record: -1"),
        (
            changed(8, ">i", 13, crc=False),
            "Record size 13 is less than the minimum record overhead (14)",
        ),
        (
            changed(8, ">i", -1, crc=False),
            "Record size -1 is less than the minimum record overhead (14)",
        ),
    ],
)
def test_kafka_tells_what_makes_the_first_batch_unreadable(records: bytes, message: str) -> None:
    error = refusal(records)
    assert (error.code, error.message) == (ErrorCode.CORRUPT_MESSAGE, message)
    behind = refusal(GOOD + records)
    assert (behind.code, behind.message) == (ErrorCode.CORRUPT_MESSAGE, None)


def test_zstd_needs_version_7() -> None:
    assert refusal(with_codec(4), 6).code == ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
    assert check_produced(memoryview(with_codec(4)), 7).codec == 4


def test_the_size_limit_counts_the_whole_batch() -> None:
    assert check_produced(memoryview(GOOD), 9, len(GOOD)).record_count == 3
    error = refusal(GOOD, limit=len(GOOD) - 1)
    assert (error.code, error.names_log_start) == (ErrorCode.MESSAGE_TOO_LARGE, NO_LOG_START)


@given(st.binary(max_size=150), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255))))
def test_damaged_record_sets_raise_nothing_but_kafka_errors(
    noise: bytes, edits: list[tuple[int, int]]
) -> None:
    damaged = bytearray(GOOD)
    for position, value in edits:
        damaged[position] = value
    for records in (noise, bytes(damaged), bytes(damaged) + noise):
        for version in (3, 9):
            try:
                check_produced(memoryview(records), version)
            except KafkaError:
                pass


def test_timestamps_are_held_to_the_bounds_that_kafka_names() -> None:
    late = parse_header(encode_batch([Record(0, NOW + 10, b"", b"")]))
    check_timestamps(late, NOW, 5, 10)
    with pytest.raises(RecordErrors) as caught:
        check_timestamps(late, NOW, 5, 9)
    assert caught.value.code == ErrorCode.INVALID_TIMESTAMP
    assert caught.value.message == (
        "One or more records have been rejected due to invalid timestamp"
    )
    [(index, word)] = caught.value.record_errors
    assert index == 0
    assert word == (
        f"Timestamp {NOW + 10} of message with offset 0 is out of range. "
        f"The timestamp should be within [{NOW - 5}, {NOW + 9}]"
    )
    early = parse_header(encode_batch([Record(0, NOW - 6, b"", b""), Record(1, NOW, b"", b"")]))
    with pytest.raises(RecordErrors):
        check_timestamps(early, NOW, 5, 10)


def test_batches_without_create_time_pass_the_bounds() -> None:
    none = encode_batch([Record(0, -1, b"", b"")])
    check_timestamps(parse_header(none), NOW, 5, 5)
    stamped = encode_batch([Record(0, 1, b"", b"")], timestamp_type=LOG_APPEND_TIME)
    check_timestamps(parse_header(stamped), NOW, 5, 5)
