"""Produce and Fetch requests built by hand, so that the client is never what is measured.

Produce version 9 and Fetch version 12: the newest flexible ones that name topics, served alike by
this broker and by Apache Kafka.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Sequence

from protocol.batch_header import HEADER_SIZE
from protocol.records import Record, encode_batch

PRODUCE, FETCH = 0, 1
_HEAD = struct.Struct(">ihhih")
_CLIENT = b"bench"
_PARTITION = struct.Struct(">ihqqq")
_FETCHED = struct.Struct(">ihqqq")
_BATCH = struct.Struct(">qi")
_LAST_OFFSET_DELTA = struct.Struct(">i")
_CORRELATION_POSITION = 8


class BadAnswer(Exception):
    """An error code, or an answer to another request."""


def batch_of(size_bytes: int, record_bytes: int = 1024) -> bytes:
    """A record batch of `size_bytes` or little less, without a producer id; the values do not
    compress. At least one record, of `record_bytes`.
    """
    now_ms = int(time.time() * 1000)
    value = random.Random(7).randbytes(record_bytes)
    # A record's own fields take 7 to 12 bytes beside its value.
    count = max(1, (size_bytes - HEADER_SIZE) // (record_bytes + 12))
    return bytes(encode_batch([Record(i, now_ms, None, value) for i in range(count)]))


def produce_frame(
    topic: str, batches: Sequence[tuple[int, bytes]], acks: int = -1, timeout_ms: int = 30_000
) -> bytearray:
    """One request with one batch for each partition. batches: (partition, batch)."""
    body = bytearray(_header(PRODUCE, 9))
    body += b"\x00" + struct.pack(">hi", acks, timeout_ms) + b"\x02" + _compact(topic)
    body += _varint(len(batches) + 1)
    for index, batch in batches:
        body += struct.pack(">i", index) + _varint(len(batch) + 1) + batch + b"\x00"
    body += b"\x00\x00"
    return bytearray(struct.pack(">i", len(body)) + body)


def fetch_frame(
    topic: str,
    offsets: Sequence[tuple[int, int]],
    max_wait_ms: int,
    max_bytes: int,
    partition_max_bytes: int,
) -> bytearray:
    """Without a session. offsets: (partition, offset)."""
    body = bytearray(_header(FETCH, 12))
    body += struct.pack(">iiiibii", -1, max_wait_ms, 1, max_bytes, 0, 0, -1)
    body += b"\x02" + _compact(topic) + _varint(len(offsets) + 1)
    for index, offset in offsets:
        body += struct.pack(">iiqiqi", index, -1, offset, -1, -1, partition_max_bytes) + b"\x00"
    body += b"\x00\x01\x01\x00"
    return bytearray(struct.pack(">i", len(body)) + body)


def set_correlation(frame: bytearray, correlation_id: int) -> None:
    struct.pack_into(">i", frame, _CORRELATION_POSITION, correlation_id)


def connect(bootstrap: str) -> socket.socket:
    host, _, port = bootstrap.rpartition(":")
    link = socket.create_connection((host, int(port)), 30)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.settimeout(60)
    return link


class Answers:
    """Response frames of one connection."""

    def __init__(self, link: socket.socket, buffer_bytes: int = 1 << 18) -> None:
        self._link = link
        self._buffer = bytearray(buffer_bytes)
        self._start = self._end = 0

    def next(self) -> memoryview:
        """A frame without its length; valid until the next call."""
        self._need(4)
        (size,) = struct.unpack_from(">i", self._buffer, self._start)
        self._start += 4
        self._need(size)
        frame = memoryview(self._buffer)[self._start : self._start + size]
        self._start += size
        return frame

    @property
    def buffered(self) -> bool:
        return self._start < self._end

    def _need(self, size: int) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + size > len(self._buffer):
            left = bytes(self._buffer[self._start : self._end])
            if size > len(self._buffer):
                self._buffer = bytearray(size * 2)
            self._buffer[: len(left)] = left
            self._start, self._end = 0, len(left)
        while self._end - self._start < size:
            with memoryview(self._buffer) as view:
                got = self._link.recv_into(view[self._end :])
            if not got:
                raise BadAnswer("the broker closed the connection")
            self._end += got


def check_produced(frame: memoryview, topic: str) -> None:
    """Raises BadAnswer where a partition has an error."""
    position = 5 + 1 + 1 + len(topic.encode())  # correlation, tags, count, name
    count, position = _read_varint(frame, position)
    for _ in range(count - 1):
        index, error, *_rest = _PARTITION.unpack_from(frame, position)
        if error:
            raise BadAnswer(f"{topic}-{index}: error {error}")
        position += _PARTITION.size + 3  # no record errors, no message, no tags


def fetched(frame: memoryview, topic: str) -> list[tuple[int, int, int, int]]:
    """(partition, bytes, offset behind them or -1, high watermark) of each partition."""
    position = 5 + 4
    (error,) = struct.unpack_from(">h", frame, position)
    if error:
        raise BadAnswer(f"fetch: error {error}")
    position += 2 + 4 + 1
    if frame[position - 1] == 1:
        return []
    position += 1 + len(topic.encode())
    count, position = _read_varint(frame, position)
    found = []
    for _ in range(count - 1):
        index, code, high, _stable, _start = _FETCHED.unpack_from(frame, position)
        if code:
            raise BadAnswer(f"{topic}-{index}: error {code}")
        position += _FETCHED.size
        aborted, position = _read_varint(frame, position)
        assert aborted <= 1, "no transactions here"
        position += 4
        size, position = _read_varint(frame, position)
        size = max(0, size - 1)
        found.append((index, size, _behind(frame, position, position + size), high))
        position += size
        tags, position = _read_varint(frame, position)
        assert not tags, "an unknown tag"
    return found


def _behind(frame: memoryview, position: int, end: int) -> int:
    """The offset behind the last whole batch; -1 without one."""
    behind = -1
    while end - position >= 61:
        base, length = _BATCH.unpack_from(frame, position)
        if position + 12 + length > end:
            break  # Kafka may cut the last one short
        (delta,) = _LAST_OFFSET_DELTA.unpack_from(frame, position + 23)
        behind = base + delta + 1
        position += 12 + length
    return behind


def _header(key: int, version: int) -> bytes:
    return _HEAD.pack(0, key, version, 0, len(_CLIENT))[4:] + _CLIENT + b"\x00"


def _compact(text: str) -> bytes:
    raw = text.encode()
    return _varint(len(raw) + 1) + raw


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(frame: memoryview, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = frame[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7


def unique(name: str) -> str:
    """A topic name that no other run has."""
    return f"{name}-{os.urandom(4).hex()}"
