"""Record batches to produce, whole and broken."""

from __future__ import annotations

import struct
from typing import Any
from uuid import UUID

from protocol.record_batch import HEADER_SIZE, seal_crc
from protocol.records import Record, encode_batch
from tests.peers.differential.schema import Values

TIME = 1_700_000_000_000
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4

# Places of the header's fields.
LENGTH, MAGIC, CRC, ATTRIBUTES, LAST_DELTA, COUNT = 8, 16, 17, 21, 23, 57


def batch(
    *values: bytes,
    codec: int = 0,
    producer: tuple[int, int, int] = (-1, -1, -1),
    timestamp: int = TIME,
    step_ms: int = 1000,
    attributes: int = 0,
    base_offset: int = 0,
) -> bytes:
    """producer: id, epoch, base sequence. Records without key, `step_ms` apart."""
    records = [
        Record(base_offset + i, timestamp + i * step_ms, None, value)
        for i, value in enumerate(values or (b"one", b"two", b"three"))
    ]
    return bytes(encode_batch(records, base_offset, *producer, codec=codec, attributes=attributes))


def changed(data: bytes, at: int, fmt: str, value: Any, *, seal: bool = True) -> bytes:
    """The batch with one field of its header overwritten; its CRC computed anew if `seal`."""
    out = bytearray(data)
    struct.pack_into(">" + fmt, out, at, value)
    if seal:
        seal_crc(out)
    return bytes(out)


def old_message_set(magic: int) -> bytes:
    """One record in the format of magic 0 or 1, as far as its header goes."""
    body = struct.pack(">bb", magic, 0)
    body += struct.pack(">q", TIME) if magic else b""
    body += struct.pack(">i", -1) + struct.pack(">i", 50) + bytes(50)
    return struct.pack(">qiI", 0, len(body) + 4, 0) + body


def produce_body(
    version: int,
    topic: tuple[str, UUID],
    *partitions: tuple[int, bytes | None],
    acks: int = -1,
    timeout_ms: int = 15_000,
    transactional_id: str | None = None,
) -> Values:
    name, topic_id = topic
    return {
        "transactionalId": transactional_id,
        "acks": acks,
        "timeoutMs": timeout_ms,
        "topicData": [
            {
                **({"name": name} if version < 13 else {"topicId": topic_id}),
                "partitionData": [
                    {"index": index, "records": records} for index, records in partitions
                ],
            }
        ],
    }


HEADER = HEADER_SIZE
