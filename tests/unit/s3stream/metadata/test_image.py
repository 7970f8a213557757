from __future__ import annotations

from uuid import UUID

import pytest

from objectstore.errors import Corrupt
from s3stream.metadata import records as r
from s3stream.metadata.apply import apply
from s3stream.metadata.image import EMPTY_IMAGE, MetadataImage, PartitionImage
from s3stream.metadata.records import BlobRef, Position
from s3stream.metadata.snapshot import decode_image, encode_image

ORDERS = UUID(int=1)
RECOVERY = BlobRef("data/00/recovery", bytes(16), 10)


class History:
    """Applies records one after the other, each in a log object of its own."""

    def __init__(self) -> None:
        self.image: MetadataImage = EMPTY_IMAGE
        self.seq = 0

    def add(self, *records: r.Record) -> Position:
        """The position of the last one."""
        position = Position(0, self.seq, 0)
        for record in records:
            position = Position(0, self.seq, 0)
            self.image = apply(self.image, record, position)
            self.seq += 1
        return position

    def orders(self, index: int = 0) -> PartitionImage:
        return self.image.topics["orders"].partitions[index]


def registered(node_id: int, incarnation: int) -> r.BrokerRegistered:
    return r.BrokerRegistered(node_id, incarnation, b"p%d" % incarnation, 4, ())


def begun() -> History:
    history = History()
    history.add(r.ClusterCreated("c" * 22, 4, "memory", 0), r.TermBegun(b"p0", 1, 0))
    history.add(registered(1, 0))
    return history


def with_topic() -> History:
    history = begun()
    history.add(
        r.TopicCreated("orders", ORDERS, False, 1, {}, [r.NewPartition(0, 0), r.NewPartition(1, 0)])
    )
    return history


def test_a_new_topic_is_led_at_epoch_0_and_opened_empty() -> None:
    history = with_topic()
    assert history.orders(1) == PartitionImage(1, 1, 0, 0, Position(0, 3, 0), None, True)
    assert history.image.topic_by_id(ORDERS) is history.image.topics["orders"]
    found = history.image.partition_of(1)
    assert found is not None and found[1] == history.orders(1)
    assert history.image.next_stream_id == 2


def test_a_registration_fences_the_older_incarnation_of_the_same_node_only() -> None:
    history = begun()
    history.add(registered(2, 1), registered(1, 2))
    assert [s.incarnation for s in history.image.unended()] == [0]
    assert [b.incarnation for b in history.image.live_brokers()] == [2, 1]


def test_an_end_appoints_new_leaders_with_a_higher_epoch_and_their_source() -> None:
    history = with_topic()
    history.add(r.Opened(0, [(0, 0)]))
    assert history.orders().is_new is False
    history.add(registered(1, 1))
    at = history.add(
        r.IncarnationEnded(
            0,
            9,
            b"p1",
            RECOVERY,
            1,
            [r.LeaderChange(0, 1, 1, 0), r.LeaderChange(1, 1, 1, None)],
        )
    )
    assert history.orders(0) == PartitionImage(0, 0, 1, 1, at, 0, False)
    assert history.orders(1) == PartitionImage(1, 1, 1, 1, at, None, True)
    assert history.image.unended() == []
    assert history.image.incarnations[0].recovery == RECOVERY


def test_opened_clears_the_source_of_that_epoch_only() -> None:
    history = with_topic()
    history.add(registered(1, 1))
    history.add(r.IncarnationEnded(0, 0, b"p1", None, 1, [r.LeaderChange(0, 1, 1, 0)]))
    history.add(r.Opened(0, [(0, 0)]), r.Opened(1, [(0, 0)]))
    assert history.orders().source == 0
    history.add(r.Opened(1, [(0, 1)]))
    assert history.orders().source is None


def test_an_end_whose_recovery_object_was_made_by_a_fenced_incarnation_is_void() -> None:
    history = with_topic()
    history.add(registered(1, 1), registered(1, 2))
    before = history.orders()
    history.add(r.IncarnationEnded(0, 9, b"p1", RECOVERY, 1, [r.LeaderChange(0, 1, 1, 0)]))
    assert history.orders() == before
    assert [s.incarnation for s in history.image.unended()] == [0, 1]


def test_a_second_end_of_the_same_incarnation_is_void() -> None:
    history = with_topic()
    history.add(registered(1, 1))
    history.add(r.IncarnationEnded(0, 9, b"p1", RECOVERY, 1, [r.LeaderChange(0, 1, 1, 0)]))
    after = history.orders()
    history.add(r.IncarnationEnded(0, 9, b"p1", None, 1, [r.LeaderChange(0, 1, 2, None)]))
    assert history.orders() == after


def test_a_leader_epoch_never_goes_back() -> None:
    history = with_topic()
    history.add(r.LeadersChanged([r.LeaderChange(0, 0, 5, 0)]))
    with pytest.raises(Corrupt, match="leader epoch of orders-0"):
        history.add(r.LeadersChanged([r.LeaderChange(0, 0, 5, 0)]))


@pytest.mark.parametrize(
    "record",
    [
        registered(1, 0),
        r.ClusterCreated("d" * 22, 4, "memory", 0),
        r.TopicCreated("other", UUID(int=2), False, 1, {}, [r.NewPartition(1, 0)]),
        r.TopicCreated("orders", UUID(int=2), False, 1, {}, [r.NewPartition(2, 0)]),
        r.IncarnationFenced(4),
        r.IncarnationEnded(0, 0, b"", None, 0, []),
    ],
    ids=["incarnation", "cluster", "stream", "topic", "unknown-incarnation", "not-fenced"],
)
def test_what_cannot_follow_stops_the_reader(record: r.Record) -> None:
    history = with_topic()
    with pytest.raises(Corrupt):
        history.add(record)


def test_a_position_comes_once() -> None:
    history = begun()
    with pytest.raises(Corrupt, match="after"):
        apply(history.image, r.RoundBegun(0), history.image.position)


def test_a_deleted_topic_leaves_nothing_and_its_name_can_be_used_again() -> None:
    history = with_topic()
    history.add(r.TopicDeleted(ORDERS))
    assert not history.image.topics and not history.image.streams and not history.image.topic_names
    history.add(
        r.ConfigsAltered("topic", "orders", {"retention.ms": "1"}, ORDERS),
        r.Opened(0, [(0, 0)]),
        r.TopicCreated("orders", UUID(int=2), False, 1, {}, [r.NewPartition(2, 0)]),
        r.ConfigsAltered("topic", "orders", {"retention.ms": "1"}, ORDERS),
    )
    assert history.image.topics["orders"].configs == {}


def test_configs_are_set_and_removed_key_by_key() -> None:
    history = with_topic()
    history.add(r.ConfigsAltered("topic", "orders", {"a": "1", "b": "2"}, ORDERS))
    history.add(r.ConfigsAltered("topic", "orders", {"a": None, "c": "3"}, ORDERS))
    assert history.image.resource_configs("topic", "orders") == {"b": "2", "c": "3"}
    history.add(r.ConfigsAltered("broker", "", {"x": "1"}))
    assert history.image.resource_configs("broker", "") == {"x": "1"}
    history.add(r.ConfigsAltered("broker", "", {"x": None}))
    assert ("broker", "") not in history.image.configs


def test_an_older_image_is_untouched_by_what_comes_after() -> None:
    history = with_topic()
    before, image = encode_image(history.image), history.image
    history.add(
        r.ConfigsAltered("topic", "orders", {"a": "1"}, ORDERS),
        r.LeadersChanged([r.LeaderChange(0, 0, 5, 0)]),
        r.TopicDeleted(ORDERS),
        registered(1, 1),
    )
    assert encode_image(image) == before


def test_a_snapshot_is_the_image() -> None:
    history = with_topic()
    history.add(
        r.ConfigsAltered("broker", "1", {"x": "1"}),
        r.FeatureLevelSet("group.version", 1),
        r.ProducerIdsAllocated(0, 0, 1000),
        registered(1, 1),
        r.IncarnationEnded(0, 9, b"p1", RECOVERY, 1, [r.LeaderChange(0, 1, 1, 0)]),
        r.RoundBegun(0),
    )
    data = encode_image(history.image)
    again = decode_image(data, "key")
    assert encode_image(again) == data
    assert again.topics["orders"] == history.image.topics["orders"]
    assert again.partition_of(1) == history.image.partition_of(1)
    follow = (r.TopicDeleted(ORDERS), Position(0, history.seq, 0))
    assert encode_image(apply(again, *follow)) == encode_image(apply(history.image, *follow))


def test_damaged_snapshots_are_corrupt_and_named() -> None:
    data = encode_image(with_topic().image)
    for broken in (b"", data[:-1], b"\x90", b"\x91\x02", data[:1] + b"\x07" + data[2:]):
        with pytest.raises(Corrupt, match="meta/snapshot/1"):
            decode_image(broken, "meta/snapshot/1")
