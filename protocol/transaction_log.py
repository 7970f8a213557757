"""Kafka's record format of `__transaction_state`.

    key    version int16 (0), transactional id string
    value  version int16 (0; 1 is flexible), producer id int64, producer epoch int16,
           timeout int32, status int8, partitions (nullable): topic, partitions int32;
           last update and start timestamp int64
           tags of version 1: 0 previous producer id int64, 1 next producer id int64,
           2 client transaction version int16, 3 next producer epoch int16

Source: TransactionLogKey and TransactionLogValue, kafka-transaction-coordinator 4.3.1; KIP-890.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.cursor import Reader, Writer
from protocol.errors import MalformedFrame

_NEWEST_VALUE = 1
_I64 = struct.Struct(">q")
_I16 = struct.Struct(">h")


@dataclass(slots=True)
class TransactionLogValue:
    """One transactional id's state. Times in ms; partitions: (topic, partitions), None for null.

    status: Kafka's TransactionState ids (0 Empty, 1 Ongoing, 2 PrepareCommit, 3 PrepareAbort,
    4 CompleteCommit, 5 CompleteAbort, 6 Dead, 7 PrepareEpochFence).
    """

    producer_id: int
    producer_epoch: int
    transaction_timeout_ms: int
    status: int
    partitions: Sequence[tuple[str, Sequence[int]]] | None
    last_update_timestamp_ms: int
    start_timestamp_ms: int
    previous_producer_id: int = -1
    next_producer_id: int = -1
    client_transaction_version: int = 0
    next_producer_epoch: int = -1


def encode_transaction_key(transactional_id: str) -> bytes:
    writer = Writer()
    writer.integer(0, 2)
    writer.string(transactional_id)
    return bytes(writer.out)


def decode_transaction_key(data: bytes | memoryview) -> str | None:
    """The transactional id; None for a kind of key that is not known here.

    Raises MalformedFrame.
    """
    reader = Reader(data)
    return reader.string() if reader.integer(2) == 0 else None


def encode_transaction_value(value: TransactionLogValue, version: int = 1) -> bytes:
    """version: 0 drops what only tags carry."""
    writer = Writer(version >= 1)
    writer.integer(version, 2)
    writer.integer(value.producer_id, 8)
    writer.integer(value.producer_epoch, 2)
    writer.integer(value.transaction_timeout_ms, 4)
    writer.integer(value.status, 1)
    writer.count(-1 if value.partitions is None else len(value.partitions))
    for topic, partitions in value.partitions or ():
        writer.string(topic)
        writer.count(len(partitions))
        for partition in partitions:
            writer.integer(partition, 4)
        writer.tags()
    writer.integer(value.last_update_timestamp_ms, 8)
    writer.integer(value.start_timestamp_ms, 8)
    tags: list[tuple[int, bytes]] = []
    if value.previous_producer_id != -1:
        tags.append((0, _I64.pack(value.previous_producer_id)))
    if value.next_producer_id != -1:
        tags.append((1, _I64.pack(value.next_producer_id)))
    if value.client_transaction_version != 0:
        tags.append((2, _I16.pack(value.client_transaction_version)))
    if value.next_producer_epoch != -1:
        tags.append((3, _I16.pack(value.next_producer_epoch)))
    writer.tags(*tags)
    return bytes(writer.out)


def decode_transaction_value(data: bytes | memoryview) -> TransactionLogValue:
    """Raises MalformedFrame: cut short, or a version that is not known here."""
    reader = Reader(data)
    version = reader.integer(2)
    if not 0 <= version <= _NEWEST_VALUE:
        raise MalformedFrame(f"transaction value of version {version}")
    reader.flexible = version >= 1
    producer_id = reader.integer(8)
    producer_epoch = reader.integer(2)
    timeout_ms = reader.integer(4)
    status = reader.integer(1)
    count = reader.nullable_count()
    partitions: list[tuple[str, Sequence[int]]] | None = None
    if count is not None:
        partitions = []
        for _ in range(count):
            topic = reader.string()
            numbers = [reader.integer(4) for _ in range(reader.count())]
            reader.skip_tags()
            partitions.append((topic, numbers))
    value = TransactionLogValue(
        producer_id,
        producer_epoch,
        timeout_ms,
        status,
        partitions,
        reader.integer(8),
        reader.integer(8),
    )
    for tag, raw in reader.tags():
        if tag == 0:
            value.previous_producer_id = _tag_int(raw, _I64)
        elif tag == 1:
            value.next_producer_id = _tag_int(raw, _I64)
        elif tag == 2:
            value.client_transaction_version = _tag_int(raw, _I16)
        elif tag == 3:
            value.next_producer_epoch = _tag_int(raw, _I16)
    return value


def _tag_int(raw: bytes, layout: struct.Struct) -> int:
    try:
        (value,) = layout.unpack(raw)
    except struct.error:
        raise MalformedFrame(f"a tag of {len(raw)} bytes, not {layout.size}") from None
    return int(value)
