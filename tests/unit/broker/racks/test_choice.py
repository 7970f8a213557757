"""Of each rack one broker serves reads, and every broker computes the same one."""

from __future__ import annotations

from broker.racks.choice import KnownRacks, Racks
from s3stream.metadata.features import FIRST_LEVEL, HEADWATER_VERSION, MOVES_LEVEL
from s3stream.metadata.image import (
    EMPTY_IMAGE,
    BrokerRegistration,
    MetadataImage,
    changed,
)
from s3stream.metadata.persistent_map import PersistentMap

STREAMS = 600


def image_of(
    racks: dict[int, str | None],
    *,
    fenced: tuple[int, ...] = (),
    draining: tuple[int, ...] = (),
    old: tuple[int, ...] = (),
    level: int = MOVES_LEVEL,
) -> MetadataImage:
    """racks: by node id; the incarnation is the node id and a hundred."""
    brokers = {
        node: BrokerRegistration(
            node,
            100 + node,
            b"",
            (),
            rack,
            node in fenced,
            None,
            FIRST_LEVEL if node in old else MOVES_LEVEL,
        )
        for node, rack in racks.items()
    }
    return changed(
        EMPTY_IMAGE,
        brokers=PersistentMap(brokers.items()),
        draining=PersistentMap((100 + node, True) for node in draining),
        features=PersistentMap([(HEADWATER_VERSION, level)]),
    )


def serving(racks: dict[int, str | None], rack: str, leader: int = 1) -> list[int]:
    found = Racks(image_of(racks))
    return [found.serving(rack, stream, leader) for stream in range(STREAMS)]


def test_replicas_are_the_leader_and_one_broker_of_each_other_rack() -> None:
    racks = Racks(image_of({1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: None}))
    for stream in range(50):
        leader, *others = racks.replicas(stream, 1)
        assert leader == 1 and len(others) == 2
        assert others[0] in (3, 4) and others[1] == 5
        assert racks.replicas(stream, 6)[0] == 6, "a leader without a rack"
        assert len(racks.replicas(stream, 6)) == 4


def test_without_racks_or_without_a_leader_nobody_else_serves() -> None:
    plain = Racks(image_of({1: None, 2: None}))
    assert not plain and plain.replicas(7, 1) == [1] and plain.replicas(7, -1) == []
    assert Racks(image_of({1: "a", 2: "b"})).replicas(7, -1) == []
    alone = Racks(image_of({1: "a", 2: "a"}))
    assert alone.replicas(7, 1) == [1]


def test_who_is_fenced_or_leaving_or_of_an_older_version_serves_nobody() -> None:
    racks: dict[int, str | None] = {1: "a", 2: "b", 3: "b", 4: "b", 5: "b"}
    found = Racks(image_of(racks, fenced=(2,), draining=(3,), old=(4,)))
    assert {found.serving("b", stream, 1) for stream in range(50)} == {5}
    none = Racks(image_of(racks, fenced=(2, 5), draining=(3,), old=(4,)))
    assert none.replicas(7, 1) == [1] and none.serving("b", 7, 1) == 1
    before = Racks(image_of(racks, level=FIRST_LEVEL))
    assert not before and before.replicas(7, 1) == [1]


def test_the_brokers_of_a_rack_share_its_streams() -> None:
    chosen = serving({1: "a", 2: "b", 3: "b", 4: "b"}, "b")
    for node in (2, 3, 4):
        assert STREAMS / 4 < chosen.count(node) < STREAMS / 2


def test_when_a_broker_comes_or_goes_only_its_share_changes() -> None:
    three = serving({1: "a", 2: "b", 3: "b", 4: "b"}, "b")
    two = serving({1: "a", 2: "b", 3: "b"}, "b")
    for with_it, without in zip(three, two, strict=True):
        assert with_it == without or with_it == 4


def test_only_who_was_chosen_serves_and_a_leader_in_the_rack_serves_itself() -> None:
    found = Racks(image_of({1: "a", 2: "b", 3: "b"}))
    for stream in range(20):
        assert found.serving("a", stream, 1) == 1
        assert found.serving("nowhere", stream, 1) == 1
        assert found.serving("b", stream, 3) == 3


def test_racks_are_computed_once_for_each_set_of_brokers() -> None:
    known, image = KnownRacks(), image_of({1: "a", 2: "b"})
    assert known.of(image) is known.of(changed(image, next_stream_id=7))
    assert known.of(changed(image, draining=PersistentMap([(102, True)]))).replicas(1, 1) == [1]
