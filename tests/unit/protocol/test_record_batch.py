from __future__ import annotations

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch

from protocol.record_batch import (
    CREATE_TIME,
    HEADER_SIZE,
    LOG_APPEND_TIME,
    assign,
    clear_log_append_time,
    crc_ok,
    iter_headers,
    parse_header,
    set_log_append_time,
)
from protocol.records import Record, decode_records, encode_batch

RECORDS = [Record(i, 1000 + i, b"k%d" % i, b"v" * i) for i in range(4)]


def test_a_header_has_the_fields_that_a_client_reads() -> None:
    batch = encode_batch(RECORDS, 0, 9, 3, 12, codec=1, leader_epoch=6, attributes=0x10)
    header = parse_header(batch)
    theirs = DefaultRecordBatch(batch)
    assert theirs.validate_crc()
    assert header.size_bytes == len(batch) == theirs.size_in_bytes
    assert (header.base_offset, header.leader_epoch, header.magic) == (0, 6, 2)
    assert header.crc == theirs.crc == crc32c(bytes(batch[21:]))
    assert (header.base_timestamp, header.max_timestamp) == (1000, 1003)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (9, 3, 12)
    assert (header.last_offset, header.next_offset, header.last_sequence) == (3, 4, 15)
    assert (header.codec, header.is_transactional, header.is_control) == (1, True, False)
    assert (header.timestamp_type, header.record_count) == (CREATE_TIME, 4)


def test_the_last_sequence_wraps_as_kafka_wraps_it() -> None:
    batch = encode_batch(RECORDS, producer_id=1, producer_epoch=0, base_sequence=2**31 - 2)
    assert parse_header(batch).last_sequence == 1
    assert parse_header(encode_batch(RECORDS)).last_sequence == -1


def test_offset_and_epoch_are_assigned_in_place_and_the_crc_stays_right() -> None:
    batch = bytearray(encode_batch(RECORDS))
    tail = bytes(batch[16:])
    assign(memoryview(batch), 2**40, 77)
    header = parse_header(batch)
    assert (header.base_offset, header.leader_epoch) == (2**40, 77)
    assert bytes(batch[16:]) == tail and crc_ok(batch, header)
    assert [r.offset for r in decode_records(batch)] == [2**40 + i for i in range(4)]


def test_log_append_time_holds_for_every_record_and_touches_none() -> None:
    batch = encode_batch(RECORDS)
    body = bytes(batch[HEADER_SIZE:])
    set_log_append_time(memoryview(batch), 5555)
    header = parse_header(batch)
    assert (header.timestamp_type, header.max_timestamp) == (LOG_APPEND_TIME, 5555)
    assert crc_ok(batch, header) and bytes(batch[HEADER_SIZE:]) == body
    assert {r.timestamp for r in decode_records(batch)} == {5555}
    assert {r.timestamp for r in DefaultRecordBatch(batch)} == {5555}
    clear_log_append_time(batch)
    assert parse_header(batch).timestamp_type == CREATE_TIME
    assert crc_ok(batch, parse_header(batch))


@given(st.integers(0, 10_000))
def test_any_flipped_bit_under_the_crc_is_noticed(bit: int) -> None:
    batch = encode_batch(RECORDS)
    position = 21 + bit % (8 * (len(batch) - 21)) // 8
    batch[position] ^= 1 << bit % 8
    assert not crc_ok(batch, parse_header(batch))


def test_headers_of_a_run_of_batches_come_with_their_positions() -> None:
    run = b"".join(
        bytes(encode_batch([Record(i, 0, None, b"x" * i)], base_offset=i)) for i in range(5)
    )
    found = list(iter_headers(memoryview(run)))
    assert [header.base_offset for _, header in found] == [0, 1, 2, 3, 4]
    assert all(parse_header(run, position) == header for position, header in found)


@given(st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 160), st.integers(0, 255))))
def test_damaged_runs_raise_nothing_but_value_error(
    noise: bytes, edits: list[tuple[int, int]]
) -> None:
    run = bytearray(encode_batch(RECORDS) + encode_batch(RECORDS))
    for position, value in edits:
        run[position] = value
    for buf in (noise, bytes(run), bytes(run) + noise):
        try:
            total = sum(header.size_bytes for _, header in iter_headers(buf))
        except ValueError:
            continue
        assert total == len(buf)


def test_a_header_cut_short_says_so() -> None:
    with pytest.raises(ValueError, match="61 bytes"):
        parse_header(b"short")
