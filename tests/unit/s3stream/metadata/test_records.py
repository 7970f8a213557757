from __future__ import annotations

from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectstore.errors import Corrupt
from s3stream.metadata import records as r

EXAMPLES: list[r.Record] = [
    r.ClusterCreated("c" * 22, 4, "memory", 5),
    r.TermBegun(b"process", 1, 6),
    r.BrokerRegistered(1, 0, b"process", 16, (r.Endpoint("PLAINTEXT", "::1", 9092),), "rack", None),
    r.BrokerUnregistered(1),
    r.IncarnationFenced(7),
    r.IncarnationEnded(
        7,
        12,
        b"maker",
        r.BlobRef("data/00/x", bytes(16), 99),
        8,
        [r.LeaderChange(3, 8, 2, 7), r.LeaderChange(4, 8, 1, None)],
    ),
    r.LeadersChanged([r.LeaderChange(3, 8, 2, None)]),
    r.Opened(8, [(3, 2)]),
    r.MoveBegun(0, 8, 9, [(3, 2), (4, 1)]),
    r.LeadersMoved(0, r.BlobRef("wal/8/x", bytes(16), 99)),
    r.MoveCancelled(0),
    r.DrainingSet(8, True),
    r.TopicCreated("orders", UUID(int=5), False, 3, {"retention.ms": "1"}, [r.NewPartition(0, 8)]),
    r.PartitionsCreated(UUID(int=5), 1, [r.NewPartition(1, 8)]),
    r.TopicDeleted(UUID(int=5)),
    r.ConfigsAltered("topic", "orders", {"a": "1", "b": None}, UUID(int=5)),
    r.ProducerIdsAllocated(8, 1000, 1000),
    r.FeatureLevelSet("group.version", 1),
    r.RoundBegun(0),
    r.RoundEnded(0, True),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was_written(record: r.Record) -> None:
    assert r.decode_record(r.encode_record(record), "key") == record


def test_every_record_has_an_example() -> None:
    assert {type(record) for record in EXAMPLES} == set(r.Record.__args__)


def test_a_record_of_a_newer_format_stops_the_reader_and_says_so() -> None:
    data = bytes([r.RECORD_VERSION + 1]) + r.encode_record(EXAMPLES[0])[1:]
    with pytest.raises(Corrupt, match=r"meta/0: .*newer version"):
        r.decode_record(data, "meta/0")


def test_a_record_of_an_unknown_name_is_never_passed_by() -> None:
    data = bytes([r.RECORD_VERSION]) + msgspec.msgpack.encode({"t": "moon-phase-changed"})
    with pytest.raises(Corrupt, match="meta/0"):
        r.decode_record(data, "meta/0")


def test_a_field_of_a_later_version_is_skipped() -> None:
    data = bytes([r.RECORD_VERSION]) + msgspec.msgpack.encode(
        {"t": "round-begun", "number": 4, "mood": "good"}
    )
    assert r.decode_record(data, "key") == r.RoundBegun(4)


@given(st.binary(max_size=200))
def test_hostile_bytes_are_corrupt_and_nothing_else(data: bytes) -> None:
    for candidate in (data, bytes([r.RECORD_VERSION]) + data):
        try:
            r.decode_record(candidate, "key")
        except Corrupt as error:
            assert "key" in str(error)
