from __future__ import annotations

import random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedFrame
from protocol.fetch import (
    NO_HIGH_WATERMARK,
    FetchPartitionResponse,
    FetchTopicResponse,
    decode_fetch,
    encode_fetch_response,
)
from protocol.messages import FetchRequest, FetchResponse
from protocol.primitives import NodeEndpoint
from tests.unit.protocol.sample_messages import filled

VERSIONS = range(4, 19)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fetch_request_reads_as_the_client_wrote_it(version: int) -> None:
    rng = random.Random(version)
    for _ in range(20):
        message = filled(FetchRequest, version, rng)
        request = decode_fetch(memoryview(bytes(message.encode(version=version))), version)
        assert (request.max_wait_ms, request.min_bytes, request.max_bytes) == (
            message.max_wait_ms,
            message.min_bytes,
            message.max_bytes,
        )
        assert request.isolation_level == message.isolation_level
        assert request.session_id == message.session_id
        assert request.session_epoch == message.session_epoch
        assert request.rack_id == message.rack_id
        assert request.cluster_id == message.cluster_id
        if version >= 15:
            state = message.replica_state
            expected = (state.replica_id, state.replica_epoch)
        else:
            expected = (message.replica_id, -1)
        assert (request.replica_id, request.replica_epoch) == expected
        named = version < 13
        assert [
            (t.name if named else t.topic_id, list(t.partitions)) for t in request.forgotten
        ] == [
            (t.topic if named else t.topic_id, t.partitions) for t in message.forgotten_topics_data
        ]
        assert [
            (
                t.name if named else t.topic_id,
                [
                    (
                        p.index,
                        p.fetch_offset,
                        p.max_bytes,
                        p.current_leader_epoch,
                        p.last_fetched_epoch,
                        p.log_start_offset,
                        p.replica_directory_id,
                        p.high_watermark,
                    )
                    for p in t.partitions
                ],
            )
            for t in request.topics
        ] == [
            (
                t.topic if named else t.topic_id,
                [
                    (
                        p.partition,
                        p.fetch_offset,
                        p.partition_max_bytes,
                        p.current_leader_epoch,
                        p.last_fetched_epoch,
                        p.log_start_offset,
                        p.replica_directory_id if version >= 17 else None,
                        p.high_watermark if version >= 18 else NO_HIGH_WATERMARK,
                    )
                    for p in t.partitions
                ],
            )
            for t in message.topics
        ]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_cut_of_a_fetch_request_is_malformed(version: int) -> None:
    raw = memoryview(bytes(filled(FetchRequest, version, random.Random(5)).encode(version)))
    for end in range(len(raw)):
        with pytest.raises(MalformedFrame):
            decode_fetch(raw[:end], version)


@given(st.integers(4, 18), st.binary(max_size=200), st.integers(0, 2**32))
def test_hostile_fetch_requests_raise_nothing_but_malformed_frame(
    version: int, noise: bytes, seed: int
) -> None:
    rng = random.Random(seed)
    raw = bytearray(filled(FetchRequest, version, rng).encode(version=version))
    for byte in noise[:6]:
        raw[rng.randrange(len(raw))] = byte
    for body in (noise, bytes(raw)):
        try:
            decode_fetch(memoryview(body), version)
        except MalformedFrame:
            pass


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("hints", [False, True])
def test_a_client_reads_the_fetch_response_that_was_meant(version: int, hints: bool) -> None:
    topic_id = UUID(int=77)
    records = [memoryview(b"a" * 100), memoryview(b"b" * 50)]
    buffers = encode_fetch_response(
        version,
        [
            FetchTopicResponse(
                "tópic",
                topic_id,
                [
                    FetchPartitionResponse(
                        0, 0, 10, 9, 1, records, aborted_transactions=[(5, 6), (7, 8)]
                    ),
                    FetchPartitionResponse(1, 0, 3, 3, 0, aborted_transactions=[]),
                    FetchPartitionResponse(
                        2,
                        6,
                        preferred_read_replica=4,
                        current_leader=(2, 9) if hints else None,
                        diverging_epoch=(3, 44) if hints else None,
                        snapshot_id=(55, 5) if hints else None,
                    ),
                ],
            )
        ],
        throttle_time_ms=3,
        error_code=70,
        session_id=99,
        node_endpoints=[NodeEndpoint(2, "h", 9092, None)] if hints else [],
    )
    body = b"".join(buffers)
    message = FetchResponse.decode(body, version=version)
    assert message.throttle_time_ms == 3
    assert (message.error_code, message.session_id) == ((70, 99) if version >= 7 else (0, 0))
    topic = message.responses[0]
    assert (topic.topic, topic.topic_id) == (("tópic", None) if version < 13 else ("", topic_id))
    full, empty, moved = topic.partitions
    assert bytes(full.records) == b"a" * 100 + b"b" * 50
    assert (full.high_watermark, full.last_stable_offset) == (10, 9)
    assert full.log_start_offset == (1 if version >= 5 else -1)
    assert [(a.producer_id, a.first_offset) for a in full.aborted_transactions] == [
        (5, 6),
        (7, 8),
    ]
    assert (empty.records, empty.aborted_transactions) == (b"", [])
    assert (moved.records, moved.aborted_transactions, moved.error_code) == (b"", None, 6)
    assert moved.preferred_read_replica == (4 if version >= 11 else -1)
    if version >= 12 and hints:
        assert (moved.current_leader.leader_id, moved.current_leader.leader_epoch) == (2, 9)
        assert (moved.diverging_epoch.epoch, moved.diverging_epoch.end_offset) == (3, 44)
        assert (moved.snapshot_id.end_offset, moved.snapshot_id.epoch) == (55, 5)
    if version >= 16 and hints:
        assert [(e.node_id, e.host, e.port) for e in message.node_endpoints] == [(2, "h", 9092)]
    message._header = None  # kafka-python leaves it unset when it decodes
    assert bytes(message.encode(version=version)) == body


@pytest.mark.parametrize("version", [4, 12, 18])
def test_record_buffers_are_handed_on_unjoined_and_uncopied(version: int) -> None:
    records = [memoryview(bytearray(10)), memoryview(bytearray(20))]
    topic = FetchTopicResponse(
        "t", UUID(int=1), [FetchPartitionResponse(i, records=records) for i in range(2)]
    )
    buffers = encode_fetch_response(version, [topic])
    assert [b for b in buffers if isinstance(b, memoryview)] == records * 2
    assert all(
        given is kept
        for given, kept in zip(
            records * 2, (b for b in buffers if isinstance(b, memoryview)), strict=True
        )
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_record_set_is_empty_bytes_and_never_null(version: int) -> None:
    topic = FetchTopicResponse("t", UUID(int=1), [FetchPartitionResponse(0, 3)])
    body = b"".join(encode_fetch_response(version, [topic]))
    records = FetchResponse.decode(body, version=version).responses[0].partitions[0].records
    assert records == b"" and records is not None
