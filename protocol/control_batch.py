"""Control batches: the markers that end a transaction (KIP-98).

A control batch is transactional, has one record, and belongs to the producer that it ends.

    key    version int16 (0), type int16 (0 abort, 1 commit)
    value  version int16 (0), coordinator epoch int32
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from protocol.batch_header import CONTROL_BIT, TRANSACTIONAL_BIT, Buffer, parse_header
from protocol.records import Record, decode_records, encode_batch

_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")
_VERSION: Final = 0


class MarkerType(IntEnum):
    ABORT = 0
    COMMIT = 1


class EndTransactionMarker(NamedTuple):
    """One marker. offset: of the marker itself, the end of the transaction."""

    type: MarkerType
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    offset: int
    timestamp: int


def encode_marker(
    marker_type: MarkerType,
    *,
    producer_id: int,
    producer_epoch: int,
    coordinator_epoch: int,
    timestamp: int,
    base_offset: int = 0,
    leader_epoch: int = -1,
) -> bytearray:
    """The batch that commits or aborts what the producer wrote. timestamp: ms since 1970."""
    record = Record(
        base_offset,
        timestamp,
        _KEY.pack(_VERSION, marker_type),
        _VALUE.pack(_VERSION, coordinator_epoch),
    )
    return encode_batch(
        [record],
        base_offset=base_offset,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        leader_epoch=leader_epoch,
        attributes=TRANSACTIONAL_BIT | CONTROL_BIT,
    )


def decode_marker(batch: Buffer) -> EndTransactionMarker | None:
    """The marker in a control batch; None for a control record of another type.

    Later versions of key and value only add fields, as in Kafka.
    Raises ValueError: not a control batch, or one that cannot be read.
    """
    header = parse_header(batch)
    if not header.is_control:
        raise ValueError(f"the batch at offset {header.base_offset} is not a control batch")
    records = decode_records(batch)
    if len(records) != 1:
        raise ValueError(f"a control batch of {len(records)} records at {header.base_offset}")
    record = records[0]
    try:
        version, kind = _KEY.unpack_from(record.key or b"")
        if version < 0:
            raise ValueError(f"control key version {version}")
        if kind not in (MarkerType.ABORT, MarkerType.COMMIT):
            return None
        version, coordinator_epoch = _VALUE.unpack_from(record.value or b"")
        if version < 0:
            raise ValueError(f"marker version {version}")
    except struct.error:
        raise ValueError(f"a marker cut short at offset {record.offset}") from None
    return EndTransactionMarker(
        MarkerType(kind),
        header.producer_id,
        header.producer_epoch,
        coordinator_epoch,
        record.offset,
        record.timestamp,
    )
