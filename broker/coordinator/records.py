"""Records of `__consumer_offsets` as this coordinator reads and writes them.

Versions written are Kafka 4.3.1's: group metadata 3; offset commit 4, or 1 with an expiry.
"""

from __future__ import annotations

from protocol.internal_records import (
    GroupMetadataKey,
    GroupMetadataValue,
    OffsetCommitKey,
    OffsetCommitValue,
    decode_group_metadata_value,
    decode_key,
    decode_offset_commit_value,
    encode_group_metadata_key,
    encode_group_metadata_value,
    encode_offset_commit_key,
    encode_offset_commit_value,
)

Key = GroupMetadataKey | OffsetCommitKey
Value = GroupMetadataValue | OffsetCommitValue
Record = tuple[Key, Value | None]


def encode_record(key: Key, value: Value | None) -> tuple[bytes, bytes | None]:
    if isinstance(key, GroupMetadataKey):
        assert value is None or isinstance(value, GroupMetadataValue), value
        encoded = None if value is None else encode_group_metadata_value(value)
        return encode_group_metadata_key(key), encoded
    if value is None:
        return encode_offset_commit_key(key), None
    assert isinstance(value, OffsetCommitValue), value
    version = 4 if value.expire_timestamp == -1 else 1
    return encode_offset_commit_key(key), encode_offset_commit_value(value, version)


def decode_record(key: bytes | None, value: bytes | None) -> Record | None:
    """None for a kind of record that this coordinator does not know.

    Raises MalformedFrame: the record is none of Kafka's.
    """
    known = None if key is None else decode_key(key)
    if known is None:
        return None
    if value is None:
        return known, None
    if isinstance(known, GroupMetadataKey):
        return known, decode_group_metadata_value(value)
    return known, decode_offset_commit_value(value)
