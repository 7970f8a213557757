from __future__ import annotations

import struct
import tracemalloc
import zlib

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from protocol.compression import BadCompression, compress, decompress
from protocol.errors import ErrorCode, KafkaError, RecordErrors
from protocol.record_batch import (
    HEADER_SIZE,
    crc_ok,
    parse_header,
    seal_crc,
    timestamp_fault,
)
from protocol.records import (
    CorruptRecords,
    Record,
    decode_records,
    encode_batch,
    read_varint,
    recompress,
    validate_records,
    write_varint,
)

CODECS = range(5)
nullable = st.none() | st.binary(max_size=40)
records_strategy = st.lists(
    st.builds(
        lambda t, k, v, h: (t, k, v, h),
        st.integers(-1, 2**45),
        nullable,
        nullable,
        st.lists(st.tuples(st.text(max_size=5), nullable), max_size=3),
    ),
    min_size=1,
    max_size=20,
)


def numbered(
    rows: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]], base: int
) -> list[Record]:
    return [Record(base + i, t, k, v, tuple(h)) for i, (t, k, v, h) in enumerate(rows)]


@given(records_strategy, st.sampled_from(CODECS), st.integers(0, 2**50))
def test_records_read_back_as_they_were_written_in_every_codec(
    rows: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]],
    codec: int,
    base: int,
) -> None:
    records = numbered(rows, base)
    batch = encode_batch(records, base, codec=codec)
    header = parse_header(batch)
    assert crc_ok(batch, header) and header.codec == codec
    assert decode_records(batch) == records
    assert header.max_timestamp == max(r.timestamp for r in records)


@given(records_strategy)
def test_a_client_reads_our_records_and_we_its(
    rows: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]],
) -> None:
    records = numbered(rows, 0)
    theirs = DefaultRecordBatch(encode_batch(records))
    assert theirs.validate_crc()
    assert [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in theirs] == [
        (r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records
    ]
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for r in records:
        builder.append(r.offset, r.timestamp, r.key, r.value, list(r.headers))
    assert decode_records(bytes(builder.build())) == records


def test_offsets_with_gaps_are_kept_and_must_ascend() -> None:
    gaps = [Record(12, 0, b"a", b""), Record(17, 0, b"b", b"")]
    batch = encode_batch(gaps, 10, last_offset_delta=9)
    assert parse_header(batch).next_offset == 20
    assert decode_records(batch) == gaps
    with pytest.raises(ValueError, match="does not come after"):
        encode_batch([Record(0, 0, None, None), Record(0, 0, None, None)])


def test_a_batch_that_compaction_emptied_keeps_its_offsets() -> None:
    batch = encode_batch([], 10, last_offset_delta=4)
    assert (parse_header(batch).next_offset, decode_records(batch)) == (15, [])


@pytest.mark.parametrize("source", CODECS)
@pytest.mark.parametrize("target", CODECS)
def test_recompressing_keeps_everything_but_the_codec(source: int, target: int) -> None:
    records = [Record(5 + i, i, b"k", b"value" * 50) for i in range(30)]
    batch = encode_batch(records, 5, 7, 1, 3, codec=source, leader_epoch=9, attributes=0x10)
    again = recompress(batch, target)
    before, after = parse_header(batch), parse_header(again)
    assert decode_records(again) == records and crc_ok(again, after)
    assert after == before._replace(
        batch_length=after.batch_length, crc=after.crc, attributes=after.attributes
    )
    assert after.attributes == (before.attributes & ~7) | target


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
@given(data=st.binary(max_size=300), repeat=st.sampled_from([1, 700]))
@settings(max_examples=30)
def test_every_codec_expands_what_it_compressed(codec: int, data: bytes, repeat: int) -> None:
    plain = data * repeat
    assert bytes(decompress(codec, compress(codec, plain), len(plain) + 1)) == plain


def test_other_libraries_framings_are_read() -> None:
    plain = b"some bytes " * 9000
    assert decompress(1, zlib.compress(plain, wbits=31) * 2) == plain * 2
    assert decompress(2, bytes(cramjam.snappy.compress_raw(plain))) == plain
    assert decompress(3, bytes(cramjam.lz4.compress(plain))) == plain
    assert decompress(4, bytes(cramjam.zstd.compress(plain))) == plain


def test_lz4_frames_have_independent_blocks_as_java_demands() -> None:
    frame = compress(3, bytes(range(256)) * 1000)
    assert frame[:7] == bytes.fromhex("04224d18604082")
    assert bytes(cramjam.lz4.decompress(frame)) == bytes(range(256)) * 1000


def test_xerial_snappy_has_the_header_that_java_writes() -> None:
    assert compress(2, b"x")[:16] == b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01"


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_bomb_is_refused_within_bounded_memory(codec: int) -> None:
    bomb = compress(codec, bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(BadCompression):
        decompress(codec, bomb, 1_000_000)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000 + 2 * len(bomb)


def test_a_snappy_length_that_cannot_be_true_is_not_believed() -> None:
    with pytest.raises(BadCompression, match="says it expands"):
        decompress(2, b"\x80\x80\x80\x40" + b"\x00" * 20)


@pytest.mark.parametrize("codec", CODECS)
@given(st.lists(st.tuples(st.integers(57, 5000), st.integers(0, 255)), max_size=5))
@settings(max_examples=60)
def test_damaged_records_raise_nothing_but_corrupt_records(
    codec: int, edits: list[tuple[int, int]]
) -> None:
    batch = encode_batch([Record(i, i, b"key", b"value" * 9) for i in range(20)], codec=codec)
    for position, value in edits:
        batch[57 + position % (len(batch) - 57)] = value
    try:
        records = decode_records(batch, 1 << 20)
    except CorruptRecords:
        return
    assert len(records) == parse_header(batch).record_count


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_batch(noise: bytes) -> None:
    with pytest.raises(CorruptRecords):
        decode_records(noise[:60])
    try:
        decode_records(noise, 1 << 20)
    except CorruptRecords:
        pass


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_read_back(value: int) -> None:
    out = bytearray()
    write_varint(out, value)
    assert read_varint(out, 0, 10) == (value, len(out))


def counts(batch: bytearray, count: int) -> bytearray:
    struct.pack_into(">i", batch, 57, count)
    struct.pack_into(">i", batch, 23, count - 1)
    seal_crc(batch)
    return batch


@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize("count", [2, 4])
def test_a_count_that_the_records_belie_is_an_invalid_record(codec: int, count: int) -> None:
    batch = encode_batch([Record(i, 0, b"k", b"v") for i in range(3)], codec=codec)
    with pytest.raises(KafkaError) as caught:
        validate_records(counts(batch, count))
    assert caught.value.code == ErrorCode.INVALID_RECORD


@pytest.mark.parametrize("codec", [0, 1])
def test_bytes_that_are_no_records_get_kafkas_unknown_error(codec: int) -> None:
    batch = encode_batch([Record(i, 0, b"k", b"v") for i in range(3)], codec=codec)
    batch[70:78] = b"\xff" * 8
    with pytest.raises(KafkaError) as caught:
        validate_records(batch)
    assert caught.value.code == ErrorCode.UNKNOWN_SERVER_ERROR


def test_records_at_fault_are_named() -> None:
    batch = encode_batch(
        [Record(0, 100, b"k", b""), Record(1, 100, None, b""), Record(2, 999, b"k", b"")]
    )
    with pytest.raises(RecordErrors) as keyless:
        validate_records(batch, compacted_as="t-0")
    assert keyless.value.code == ErrorCode.INVALID_RECORD
    assert keyless.value.record_errors == [
        (1, "Compacted topic cannot accept message without key in topic partition t-0")
    ]
    with pytest.raises(RecordErrors) as late:
        validate_records(
            batch, timestamp_fault=lambda r: timestamp_fault(r.timestamp, r.offset, 100, 5, 5)
        )
    assert late.value.code == ErrorCode.INVALID_TIMESTAMP
    assert [index for index, _ in late.value.record_errors] == [2]
    assert len(validate_records(batch)) == 3


def test_a_header_size_batch_without_records_is_read() -> None:
    assert len(encode_batch([], last_offset_delta=0)) == HEADER_SIZE
