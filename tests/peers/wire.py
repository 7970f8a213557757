"""Requests by hand, for loads that ordinary clients do not make: many connections of one process,
one batch as large as a request may be. Layouts: Kafka's protocol guide (Produce 3, Fetch 4).
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass

from protocol.records import Record, encode_batch

PRODUCE, FETCH = 0, 1


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _request(key: int, version: int, body: bytes) -> bytes:
    frame = struct.pack(">hhih", key, version, 1, -1) + body
    return struct.pack(">i", len(frame)) + frame


def produce_request(topic: str, batch: bytearray, timeout_ms: int) -> list[bytes | bytearray]:
    """One batch for partition 0, acks=all. The pieces in order: the batch is not copied."""
    head = struct.pack(">hhi", -1, -1, timeout_ms)
    head += struct.pack(">i", 1) + _string(topic) + struct.pack(">iii", 1, 0, len(batch))
    frame_head = struct.pack(">hhih", PRODUCE, 3, 1, -1) + head
    return [struct.pack(">i", len(frame_head) + len(batch)) + frame_head, batch]


def fetch_request(
    topic: str, partition: int, offset: int, *, max_bytes: int, max_wait_ms: int = 500
) -> bytes:
    """Of one partition."""
    body = struct.pack(">iiiib", -1, max_wait_ms, 1, max_bytes, 0)
    body += struct.pack(">i", 1) + _string(topic)
    body += struct.pack(">iiqi", 1, partition, offset, max_bytes)
    return _request(FETCH, 4, body)


@dataclass(frozen=True)
class Produced:
    error: int
    base_offset: int


def produced(answer: bytes) -> Produced:
    """The one partition of an answer to `produce_request`, its frame's length left out."""
    (topic_size,) = struct.unpack_from(">h", answer, 8)
    _, error, base_offset = struct.unpack_from(">ihq", answer, 10 + topic_size + 4)
    return Produced(error, base_offset)


@dataclass(frozen=True)
class Fetched:
    """next_offset: behind the last whole batch, None where there is none."""

    error: int
    high_watermark: int
    size_bytes: int
    next_offset: int | None


def fetched(answer: bytes | bytearray) -> Fetched:
    """The one partition of an answer to `fetch_request`, its frame's length left out."""
    (topic_size,) = struct.unpack_from(">h", answer, 12)
    position = 14 + topic_size + 4
    _, error, high_watermark, _, aborted = struct.unpack_from(">ihqqi", answer, position)
    position += 26 + 16 * max(aborted, 0)
    (size,) = struct.unpack_from(">i", answer, position)
    position += 4
    end = position + max(size, 0)
    next_offset = None
    while end - position >= 61:
        base, length = struct.unpack_from(">qi", answer, position)
        if position + 12 + length > end:
            break
        (last_delta,) = struct.unpack_from(">i", answer, position + 23)
        next_offset = base + last_delta + 1
        position += 12 + length
    return Fetched(error, high_watermark, max(size, 0), next_offset)


def batch_of(size_bytes: int, value: bytes) -> bytearray:
    """One batch with one record: `value` again and again, `size_bytes` of it."""
    count = max(1, size_bytes // len(value))
    return encode_batch([Record(0, 1_700_000_000_000, None, value * count)])


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *pieces: bytes | bytearray
) -> bytes:
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)
