from __future__ import annotations

import random
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import MalformedFrame
from protocol.messages import ProduceRequest, ProduceResponse
from protocol.primitives import NodeEndpoint
from protocol.produce import (
    ProducePartitionResponse,
    ProduceTopicResponse,
    decode_produce,
    encode_produce_response,
)
from tests.unit.protocol.sample_messages import filled

VERSIONS = range(14)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_produce_request_reads_as_the_client_wrote_it(version: int) -> None:
    rng = random.Random(version)
    for _ in range(20):
        message = filled(ProduceRequest, version, rng)
        request = decode_produce(memoryview(bytes(message.encode(version=version))), version)
        assert (request.transactional_id, request.acks, request.timeout_ms) == (
            message.transactional_id if version >= 3 else None,
            message.acks,
            message.timeout_ms,
        )
        assert [
            (t.name, t.topic_id, [(p.index, p.records) for p in t.partitions])
            for t in request.topics
        ] == [
            (
                t.name if version < 13 else None,
                t.topic_id if version >= 13 else None,
                [(p.index, p.records) for p in t.partition_data],
            )
            for t in message.topic_data
        ]


@pytest.mark.parametrize("version", VERSIONS)
def test_record_sets_are_writable_slices_of_the_frame(version: int) -> None:
    data = ProduceRequest.TopicProduceData
    message = ProduceRequest(
        version=version,
        acks=-1,
        timeout_ms=1,
        topic_data=[
            data(
                version=version,
                name="t",
                topic_id=UUID(int=1),
                partition_data=[
                    data.PartitionProduceData(version=version, index=0, records=b"old" * 10)
                ],
            )
        ],
    )
    frame = bytearray(message.encode(version=version))
    records = decode_produce(memoryview(frame), version).topics[0].partitions[0].records
    assert records is not None and records.obj is frame
    records[:3] = b"NEW"
    assert b"NEWold" in frame


@pytest.mark.parametrize("version", VERSIONS)
def test_every_cut_of_a_produce_request_is_malformed(version: int) -> None:
    raw = memoryview(bytes(filled(ProduceRequest, version, random.Random(5)).encode(version)))
    for end in range(len(raw)):
        with pytest.raises(MalformedFrame):
            decode_produce(raw[:end], version)


@given(st.integers(0, 13), st.binary(max_size=200), st.integers(0, 2**32))
def test_hostile_produce_requests_raise_nothing_but_malformed_frame(
    version: int, noise: bytes, seed: int
) -> None:
    rng = random.Random(seed)
    raw = bytearray(filled(ProduceRequest, version, rng).encode(version=version))
    for byte in noise[:6]:
        raw[rng.randrange(len(raw))] = byte
    for body in (noise, bytes(raw)):
        try:
            decode_produce(memoryview(body), version)
        except MalformedFrame:
            pass


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("hints", [False, True])
def test_a_client_reads_the_produce_response_that_was_meant(version: int, hints: bool) -> None:
    topic_id = UUID(int=77)
    body = encode_produce_response(
        version,
        [
            ProduceTopicResponse(
                "tópic",
                topic_id,
                [
                    ProducePartitionResponse(3, 0, 1000, 55, 7),
                    ProducePartitionResponse(
                        4,
                        87,
                        record_errors=[(2, "bad"), (300, None)],
                        error_message="x" * 200,
                        current_leader=(9, 12) if hints else None,
                    ),
                ],
            )
        ],
        throttle_time_ms=17,
        node_endpoints=[NodeEndpoint(9, "höst", 9092), NodeEndpoint(10, "b", 1, "r")]
        if hints
        else [],
    )
    message = ProduceResponse.decode(body, version=version)
    assert message.throttle_time_ms == (17 if version >= 1 else 0)
    topic = message.responses[0]
    assert (topic.name, topic.topic_id) == (("tópic", None) if version < 13 else ("", topic_id))
    good, bad = topic.partition_responses
    assert (good.index, good.error_code, good.base_offset) == (3, 0, 1000)
    assert good.log_append_time_ms == (55 if version >= 2 else -1)
    assert good.log_start_offset == (7 if version >= 5 else -1)
    assert (bad.index, bad.error_code, bad.base_offset) == (4, 87, -1)
    if version >= 8:
        errors = [(e.batch_index, e.batch_index_error_message) for e in bad.record_errors]
        assert errors == [(2, "bad"), (300, None)]
        assert (good.error_message, bad.error_message) == (None, "x" * 200)
    if version >= 10 and hints:
        assert (bad.current_leader.leader_id, bad.current_leader.leader_epoch) == (9, 12)
        assert [(e.node_id, e.host, e.port, e.rack) for e in message.node_endpoints] == [
            (9, "höst", 9092, None),
            (10, "b", 1, "r"),
        ]
    # Written by kafka-python from the same values, it is the same bytes.
    message._header = None  # kafka-python leaves it unset when it decodes
    assert bytes(message.encode(version=version)) == body
