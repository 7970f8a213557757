"""Byte strings named KAFKA_* were written by Apache Kafka 4.3.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.control_batch import EndTransactionMarker, MarkerType, decode_marker, encode_marker
from protocol.errors import MalformedFrame
from protocol.internal_records import (
    ConsumerAssignment,
    ConsumerSubscription,
    GroupMember,
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
    TransactionLogValue,
    decode_assignment,
    decode_group_metadata_value,
    decode_key,
    decode_offset_commit_value,
    decode_subscription,
    decode_transaction_key,
    decode_transaction_value,
    encode_assignment,
    encode_group_metadata_key,
    encode_group_metadata_value,
    encode_offset_commit_key,
    encode_offset_commit_value,
    encode_subscription,
    encode_transaction_key,
    encode_transaction_value,
)
from protocol.record_batch import crc_ok, parse_header
from protocol.records import Record, encode_batch

KAFKA_OFFSET_KEY = "000100056772702d3100017400000000"
KAFKA_GROUP_KEY = "000200056772702d31"
KAFKA_OFFSET_V4 = (
    "0004000000000000000300000004066dc3a97461000001a20965901c010010117dd7df35fa42269e226c7efb3c8311"
)
KAFKA_OFFSET_V1 = "000100000000000000010000000001a20965903a000001a2096716da"
KAFKA_EMPTY_GROUP = "0003000000000000ffffffff000001a209658f8a00000000"
KAFKA_GROUP = (
    "00030008636f6e73756d657200000001000572616e6765002b696e73742d312d38623263666337362d326264382d"
    "343431392d626531392d346638336135663530646463000001a209658f9f00000001002b696e73742d312d386232"
    "63666337362d326264382d343431392d626531392d3466383361356635306464630006696e73742d310002636c00"
    "0a2f3132372e302e302e31000493e00000afc80000000d0000000000010001740000000000000015000000000001"
    "000174000000010000000000000000"
)
KAFKA_TRANSACTION_KEY = "0000000474782d31"
KAFKA_TRANSACTION_EMPTY = (
    "0001000000000000000000000000ea600000000001a209659206ffffffffffffffff0100080000000000000000"
)
KAFKA_TRANSACTION_ONGOING = (
    "0001000000000000000000000000ea6001020274020000000000000001a209659221000001a209659221"
    "0100080000000000000000"
)
KAFKA_COMMIT = (
    "000000000000003f000000420000000002e644c33d003000000000000001a209659278000001a209659278"
    "00000000000000000000ffffffff000000012000000008000000010c00000000000000"
)
KAFKA_ABORT = (
    "000000000000004100000042000000000234b4d824003000000000000001a2096592d7000001a2096592d7"
    "00000000000000000000ffffffff000000012000000008000000000c00000000000000"
)


def test_keys_are_kafkas() -> None:
    offset, group = OffsetCommitKey("grp-1", "t", 0), GroupMetadataKey("grp-1")
    assert decode_key(bytes.fromhex(KAFKA_OFFSET_KEY)) == offset
    assert decode_key(bytes.fromhex(KAFKA_GROUP_KEY)) == group
    assert encode_offset_commit_key(offset).hex() == KAFKA_OFFSET_KEY
    assert encode_group_metadata_key(group).hex() == KAFKA_GROUP_KEY
    assert decode_key(b"\x00\x00" + bytes.fromhex(KAFKA_OFFSET_KEY)[2:]) == offset
    assert decode_key(b"\x00\x63rest") is None


def test_committed_offsets_are_kafkas() -> None:
    value = decode_offset_commit_value(bytes.fromhex(KAFKA_OFFSET_V4))
    assert value == OffsetCommitValue(
        3, "méta", 0x1A20965901C, 4, -1, UUID("117dd7df-35fa-4226-9e22-6c7efb3c8311")
    )
    assert encode_offset_commit_value(value).hex() == KAFKA_OFFSET_V4
    expiring = decode_offset_commit_value(bytes.fromhex(KAFKA_OFFSET_V1))
    assert expiring == OffsetCommitValue(1, "", 0x1A20965903A, -1, 0x1A2096716DA)
    assert encode_offset_commit_value(expiring).hex() == KAFKA_OFFSET_V1


def test_groups_are_kafkas() -> None:
    empty = decode_group_metadata_value(bytes.fromhex(KAFKA_EMPTY_GROUP))
    assert (empty.protocol_type, empty.generation, empty.protocol) == ("", 0, None)
    assert encode_group_metadata_value(empty).hex() == KAFKA_EMPTY_GROUP
    group = decode_group_metadata_value(bytes.fromhex(KAFKA_GROUP))
    [member] = group.members
    assert (group.protocol_type, group.generation, group.protocol) == ("consumer", 1, "range")
    assert group.leader == member.member_id
    assert (member.group_instance_id, member.client_id) == ("inst-1", "cl")
    assert (member.rebalance_timeout, member.session_timeout) == (300_000, 45_000)
    assert decode_subscription(member.subscription).topics == ["t"]
    assert decode_assignment(member.assignment).partitions == [("t", [0])]
    assert encode_group_metadata_value(group).hex() == KAFKA_GROUP


def test_transactions_are_kafkas() -> None:
    assert decode_transaction_key(bytes.fromhex(KAFKA_TRANSACTION_KEY)) == "tx-1"
    assert encode_transaction_key("tx-1").hex() == KAFKA_TRANSACTION_KEY
    for raw, status, partitions in (
        (KAFKA_TRANSACTION_EMPTY, 0, None),
        (KAFKA_TRANSACTION_ONGOING, 1, [("t", [0])]),
    ):
        value = decode_transaction_value(bytes.fromhex(raw))
        assert (value.status, value.partitions, value.previous_producer_id) == (
            status,
            partitions,
            0,
        )
        assert encode_transaction_value(value).hex() == raw


def test_markers_are_kafkas() -> None:
    for raw, kind in ((KAFKA_COMMIT, MarkerType.COMMIT), (KAFKA_ABORT, MarkerType.ABORT)):
        batch = bytes.fromhex(raw)
        assert crc_ok(batch, parse_header(batch))
        marker = decode_marker(batch)
        assert marker is not None
        assert (marker.type, marker.producer_id, marker.coordinator_epoch) == (kind, 0, 0)
        again = encode_marker(
            kind,
            producer_id=marker.producer_id,
            producer_epoch=marker.producer_epoch,
            coordinator_epoch=marker.coordinator_epoch,
            timestamp=marker.timestamp,
            base_offset=marker.offset,
            leader_epoch=0,
        )
        assert again.hex() == raw


def test_a_marker_says_whose_transaction_ended_and_where() -> None:
    batch = encode_marker(
        MarkerType.ABORT,
        producer_id=7,
        producer_epoch=3,
        coordinator_epoch=12,
        timestamp=99,
        base_offset=1000,
        leader_epoch=4,
    )
    header = parse_header(batch)
    assert header.is_control and header.is_transactional and header.leader_epoch == 4
    assert decode_marker(batch) == EndTransactionMarker(MarkerType.ABORT, 7, 3, 12, 1000, 99)


def test_other_control_records_are_no_markers_and_data_is_no_control_batch() -> None:
    other = encode_batch([Record(0, 0, b"\x00\x00\x00\x02", b"")], attributes=0x20)
    assert decode_marker(other) is None
    with pytest.raises(ValueError, match="not a control batch"):
        decode_marker(encode_batch([Record(0, 0, b"", b"")]))
    short = encode_batch([Record(0, 0, b"\x00\x00\x00\x01", b"\x00")], attributes=0x20)
    with pytest.raises(ValueError, match="cut short"):
        decode_marker(short)


GROUP = GroupMetadataValue(
    "consumer",
    5,
    "range",
    "m1",
    1234,
    [
        GroupMember("m1", "c", "/h", 10, 20, b"sub", b"asg", "inst"),
        GroupMember("m2", "", "", 11, 21, b"", b"", None),
    ],
)


@pytest.mark.parametrize("version", range(5))
def test_groups_read_back_in_every_version(version: int) -> None:
    decoded = decode_group_metadata_value(encode_group_metadata_value(GROUP, version))
    assert (decoded.generation, decoded.protocol, decoded.leader) == (5, "range", "m1")
    assert decoded.current_state_timestamp == (1234 if version >= 2 else -1)
    first, second = decoded.members
    assert first.group_instance_id == ("inst" if version >= 3 else None)
    assert first.rebalance_timeout == (10 if version >= 1 else 20)
    assert (first.subscription, first.assignment, second.session_timeout) == (b"sub", b"asg", 21)


@pytest.mark.parametrize("version", range(5))
def test_committed_offsets_read_back_in_every_version(version: int) -> None:
    value = OffsetCommitValue(2**40, "m", 5, 6, 7, UUID(int=8))
    decoded = decode_offset_commit_value(encode_offset_commit_value(value, version))
    assert decoded == OffsetCommitValue(
        2**40,
        "m",
        5,
        6 if version >= 3 else -1,
        7 if version == 1 else -1,
        UUID(int=8) if version >= 4 else None,
    )


@pytest.mark.parametrize("version", range(2))
def test_transactions_read_back_in_every_version(version: int) -> None:
    value = TransactionLogValue(1, 2, 3, 4, [("t", [1, 2]), ("u", [])], 5, 6, 7, 8, 2, 9)
    decoded = decode_transaction_value(encode_transaction_value(value, version))
    if version == 0:
        value = TransactionLogValue(1, 2, 3, 4, [("t", [1, 2]), ("u", [])], 5, 6)
    assert decoded == value


@pytest.mark.parametrize("version", range(4))
def test_subscriptions_and_assignments_read_back_in_every_version(version: int) -> None:
    subscription = ConsumerSubscription(["a", "b"], b"u", [("a", [1, 2])], 4, "r", version)
    decoded = decode_subscription(encode_subscription(subscription))
    assert (decoded.topics, decoded.user_data, decoded.version) == (["a", "b"], b"u", version)
    assert decoded.owned_partitions == ([("a", [1, 2])] if version >= 1 else [])
    assert decoded.generation_id == (4 if version >= 2 else -1)
    assert decoded.rack_id == ("r" if version >= 3 else None)
    assignment = ConsumerAssignment([("a", [0]), ("b", [])], None, version)
    assert decode_assignment(encode_assignment(assignment)) == assignment


def test_a_subscription_from_the_future_is_read_as_far_as_it_is_known() -> None:
    raw = encode_subscription(ConsumerSubscription(["a"], rack_id="r"))
    future = b"\x00\x09" + raw[2:] + b"something new"
    assert decode_subscription(future).rack_id == "r"


@pytest.mark.parametrize(
    "decode",
    [
        decode_key,
        decode_offset_commit_value,
        decode_group_metadata_value,
        decode_transaction_key,
        decode_transaction_value,
        decode_subscription,
        decode_assignment,
    ],
)
@given(version=st.integers(-1, 6), noise=st.binary(max_size=100))
def test_damaged_internal_records_raise_nothing_but_malformed_frame(
    decode: Callable[[bytes], Any], version: int, noise: bytes
) -> None:
    for raw in (noise, version.to_bytes(2, "big", signed=True) + noise):
        try:
            decode(raw)
        except MalformedFrame:
            pass
