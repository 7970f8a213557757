"""Hashes, timers, overlays and subscriptions by themselves."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.coordinator import GroupConfig
from broker.coordinator.classic_group import (
    TRANSITIONS,
    ClassicGroup,
    GroupState,
    subscribed_topics,
)
from broker.coordinator.java_hash import hash_map_order, java_hash, partition_for
from broker.coordinator.records import Record, decode_record, encode_record
from broker.coordinator.state import DurableState, LatestState
from broker.coordinator.timers import Timers
from protocol.internal_records import GroupMetadataValue, OffsetCommitKey, OffsetCommitValue
from tests.unit.broker.coordinator.requests import subscription
from tests.unit.broker.coordinator.virtual_loop import run


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # By Java's String.hashCode.
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("polygenelubricants", -(2**31)),
        ("\U0001f600", 1772899),
    ],
)
def test_hash_is_javas(text: str, value: int) -> None:
    assert java_hash(text) == value


def test_partition_of_a_group_is_kafkas() -> None:
    assert partition_for("polygenelubricants", 50) == 0
    assert partition_for("hello", 50) == 22
    assert all(0 <= partition_for(f"group-{i}", 50) < 50 for i in range(200))


def test_hash_map_order_is_javas() -> None:
    assert hash_map_order(["roundrobin", "range"]) == hash_map_order(["range", "roundrobin"])


def test_newest_append_of_a_key_outlasts_an_older_one() -> None:
    durable = DurableState()
    latest = LatestState(durable)
    key = OffsetCommitKey("g", "a", 0)
    write: list[Record] = [(key, OffsetCommitValue(1, "", 0))]
    erase: list[Record] = [(key, None)]
    latest.apply(1, write)
    latest.apply(2, erase)
    durable.replay(*write[0])
    latest.settle(1, write)
    assert latest.offset("g", ("a", 0)) is None
    assert durable.offset("g", ("a", 0)) is not None
    durable.replay(*erase[0])
    latest.settle(2, erase)
    assert latest.offsets("g") == {}
    assert latest.has_group("g")


def test_dead_is_the_only_end() -> None:
    assert [state for state, to in TRANSITIONS.items() if not to] == [GroupState.DEAD]
    assert all(GroupState.DEAD in to for state, to in TRANSITIONS.items() if to)


@given(st.lists(st.text(max_size=20).filter(lambda t: t < "\ud800" or t > "\udfff"), max_size=5))
def test_subscription_is_read_whatever_follows(topics: list[str]) -> None:
    try:
        encoded = b"".join(struct.pack(">h", len(t.encode())) + t.encode() for t in topics)
    except UnicodeEncodeError:
        return
    data = struct.pack(">hi", 3, len(topics)) + encoded + struct.pack(">i", 2) + b"xy"
    assert subscribed_topics(data) == topics
    assert subscribed_topics(data + b"newer fields") == topics
    assert subscribed_topics(data[:-1]) is None


@given(st.binary(max_size=60))
def test_no_metadata_breaks_the_reader_of_subscriptions(data: bytes) -> None:
    assert subscribed_topics(data) is None or isinstance(subscribed_topics(data), list)


def test_subscription_without_topics_is_known_to_be_empty() -> None:
    assert subscribed_topics(subscription()) == []
    assert subscribed_topics(b"") is None


def test_deadline_set_again_fires_once_and_later() -> None:
    async def main() -> list[float]:
        fired: list[float] = []
        loop = asyncio.get_running_loop()
        timers = Timers(lambda: False)
        timers.set(("a",), 1_000, lambda: fired.append(loop.time()))
        await asyncio.sleep(0.9)
        timers.set(("a",), 1_000, lambda: fired.append(loop.time()))
        await asyncio.sleep(0.5)
        timers.set(("a",), 200, lambda: fired.append(loop.time()))
        await asyncio.sleep(10)
        assert len(timers) == 0
        return fired

    assert [round(t, 3) for t in run(main())] == [1.6]


def test_deadline_waits_while_paused_and_then_starts_in_full() -> None:
    async def main() -> list[tuple[str, float]]:
        fired: list[tuple[str, float]] = []
        loop = asyncio.get_running_loop()
        paused = True
        timers = Timers(lambda: paused)
        timers.set(("expels",), 1_000, lambda: fired.append(("expels", loop.time())))
        timers.set(("late",), 6_000, lambda: fired.append(("late", loop.time())))
        timers.set(("delay",), 1_000, lambda: fired.append(("delay", loop.time())), expels=False)
        await asyncio.sleep(5)
        paused = False
        timers.resume()
        await asyncio.sleep(20)
        return fired

    assert run(main()) == [("delay", 1.0), ("expels", 6.0), ("late", 11.0)]


def test_cancelled_deadline_is_gone() -> None:
    async def main() -> None:
        timers = Timers(lambda: False)
        timers.set(("a",), 1_000, lambda: pytest.fail("cancelled"))
        timers.cancel(("a",))
        timers.cancel(("never set",))
        await asyncio.sleep(2)
        assert ("a",) not in timers

    run(main())


@pytest.mark.parametrize(
    "values",
    [
        {"group_min_session_timeout_ms": 0},
        {"group_max_size": 0},
        {"group_initial_rebalance_delay_ms": -1},
        {"group_min_session_timeout_ms": 7, "group_max_session_timeout_ms": 6},
        {"offset_metadata_max_bytes": -1},
    ],
)
def test_config_refuses_what_kafka_refuses(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"group\.|offset\."):
        GroupConfig(**values)


# Written by Apache Kafka 4.3.1: key and value, in hexadecimal.
WRITTEN_BY_KAFKA = {
    "new group": (
        "000200053733342d67",
        "0003000000000000ffffffff000001a2096ad26e00000000",
    ),
    "group with a static member": (
        "000200053733342d67",
        (
            "00030008636f6e73756d657200000001000572616e676500286f6e652d30613232613838662d383866342d34"
            "3866622d616665642d353436623631366237306630000001a2096ad2730000000100286f6e652d3061323261"
            "3838662d383866342d343866622d616665642d35343662363136623730663000036f6e65000570726f626500"
            "0a2f3132372e302e302e3100002710000027100000000d000000000001000161ffffffff000000046d696e65"
        ),
    ),
    "offset": (
        "000100053733342d6700016100000000",
        "0004000000000000000500000003036869000001a2096adbff0100101c511018d95e49a8a81fc0e400e107a2",
    ),
    "group that is gone": ("000200053733342d67", None),
    "offset that is gone": ("000100053733342d6700016200000000", None),
}


@pytest.mark.parametrize("name", WRITTEN_BY_KAFKA)
def test_records_are_read_and_written_as_kafka_writes_them(name: str) -> None:
    key_hex, value_hex = WRITTEN_BY_KAFKA[name]
    key = bytes.fromhex(key_hex)
    value = None if value_hex is None else bytes.fromhex(value_hex)
    record = decode_record(key, value)
    assert record is not None
    assert encode_record(*record) == (key, value)


def test_group_read_from_kafkas_record_is_the_group_it_was() -> None:
    key_hex, value_hex = WRITTEN_BY_KAFKA["group with a static member"]
    assert value_hex is not None
    record = decode_record(bytes.fromhex(key_hex), bytes.fromhex(value_hex))
    assert record is not None
    key, value = record
    assert isinstance(value, GroupMetadataValue)
    group = ClassicGroup.from_metadata(key.group, value)
    assert (group.state, group.generation) == (GroupState.STABLE, 1)
    assert group.static_members == {"one": group.leader}
    assert group.is_subscribed("a")
    assert not group.is_subscribed("b")
