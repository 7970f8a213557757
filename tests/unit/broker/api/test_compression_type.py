"""`compression.type` of topic and broker, from a client's batch to what a consumer reads."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.batch_header import (
    CODEC_GZIP,
    CODEC_LZ4,
    CODEC_NONE,
    CODEC_SNAPPY,
    CODEC_ZSTD,
    BatchHeader,
    crc_ok,
    parse_header,
)
from protocol.errors import ErrorCode
from protocol.records import decode_records, recompress

from ..node_rig import Rig, batch, run
from .requests import fetch, produce

CODECS = {
    "uncompressed": CODEC_NONE,
    "gzip": CODEC_GZIP,
    "snappy": CODEC_SNAPPY,
    "lz4": CODEC_LZ4,
    "zstd": CODEC_ZSTD,
}
VALUE = b"the same again and again " * 40


def stored(answer: Any) -> tuple[BatchHeader, bytes]:
    data = bytes(answer.responses[0].partitions[0].records)
    header = parse_header(data)
    assert crc_ok(data, header)
    assert len(data) == header.size_bytes
    return header, data


@pytest.mark.parametrize("sent", CODECS)
@pytest.mark.parametrize("kept", ["producer", *CODECS])
def test_a_batch_is_kept_in_the_codec_that_the_topic_wants(kept: str, sent: str) -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(compression_type=kept)
        client = rig.client()
        original = recompress(batch(3, VALUE, producer=(7, 0, 0)), CODECS[sent])
        for _ in range(2):
            # The second is a duplicate: what was kept is not what was sent, and still found.
            answer = await client.ask(produce([("t", 0, original)]), 12)
            told = answer.responses[0].partition_responses[0]
            assert (told.error_code, told.base_offset) == (0, 0)
        header, data = stored(await client.ask(fetch([("t", 0, 0)]), 12))
        assert header.codec == CODECS[sent if kept == "producer" else kept]
        assert (header.producer_id, header.base_sequence, header.last_offset) == (7, 0, 2)
        assert [(r.key, r.value, r.timestamp) for r in decode_records(data)] == [
            (r.key, r.value, r.timestamp) for r in decode_records(original)
        ]
        if kept in ("producer", sent):
            assert data[16:] == bytes(original)[16:]  # not a byte behind offset and epoch

    run(body)


def test_the_broker_says_it_for_topics_that_do_not() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        await client.ask(produce([("t", 0, batch(3, VALUE))]), 12)
        assert stored(await client.ask(fetch([("t", 0, 0)]), 12))[0].codec == CODEC_LZ4

    run(body, compression_type="lz4")


def test_log_append_time_survives_another_codec() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(compression_type="zstd", message_timestamp_type="LogAppendTime")
        client = rig.client()
        answer = await client.ask(produce([("t", 0, batch(2, VALUE))]), 12)
        at = answer.responses[0].partition_responses[0].log_append_time_ms
        header, data = stored(await client.ask(fetch([("t", 0, 0)]), 12))
        assert (header.codec, header.timestamp_type, header.max_timestamp) == (CODEC_ZSTD, 1, at)
        assert [r.value for r in decode_records(data)] == [VALUE, VALUE]

    run(body)


def test_the_size_limit_is_for_what_is_sent_and_for_what_is_kept() -> None:
    async def body(rig: Rig) -> None:
        for topic, kept in (("shrinks", "gzip"), ("grows", "uncompressed"), ("stays", "producer")):
            await rig.topic(topic, compression_type=kept, max_message_bytes="1000")
        client = rig.client()
        large = batch(3, VALUE)
        small = recompress(large, CODEC_GZIP)
        assert len(small) < 1000 < len(large)

        async def codes(data: bytearray) -> list[int]:
            topics = [(topic, 0, data) for topic in ("shrinks", "grows", "stays")]
            answer = await client.ask(produce(topics), 12)
            return [t.partition_responses[0].error_code for t in answer.responses]

        refused = int(ErrorCode.MESSAGE_TOO_LARGE)
        assert await codes(large) == [refused, refused, refused]
        assert await codes(small) == [0, refused, 0]

    run(body)
