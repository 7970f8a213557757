"""Variable-length integers, strings and tagged fields, shared by the hand-written codecs.

Readers take (data, position) and give (value, next position). They raise MalformedFrame, never
IndexError or struct.error, so that a codec built from them needs no net around it. Writers
append to a bytearray.

Limits are Kafka's: a varint has at most 5 bytes, a string at most 32,767.
Source: KIP-482 (flexible versions), org.apache.kafka.common.protocol.ByteBufferAccessor.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from protocol.errors import MalformedFrame

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_MAX_STRING_BYTES = 0x7FFF
_ZERO_ID = bytes(16)


class NodeEndpoint(NamedTuple):
    """Where a leader that a response hints at is found (KIP-951)."""

    node_id: int
    host: str
    port: int
    rack: str | None = None


def read_uvarint(data: memoryview, position: int) -> tuple[int, int]:
    """An unsigned varint of 1 to 5 bytes, below 2**31 (Java's int is signed)."""
    if position < len(data) and data[position] < 0x80:
        return data[position], position + 1
    value = 0
    for shift in (0, 7, 14, 21, 28):
        if position >= len(data):
            raise MalformedFrame("a varint is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0x7FFFFFFF:
                raise MalformedFrame(f"varint {value} does not fit into 31 bits")
            return value, position
    raise MalformedFrame("a varint has more than 5 bytes")


def write_uvarint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)


def take(data: memoryview, position: int, length: int) -> tuple[memoryview, int]:
    """A slice of exactly `length` bytes, sharing memory with `data`."""
    end = position + length
    if end > len(data):
        raise MalformedFrame(f"{length} bytes announced, {len(data) - position} left")
    return data[position:end], end


def read_i16(data: memoryview, position: int) -> tuple[int, int]:
    try:
        return _I16.unpack_from(data, position)[0], position + 2
    except struct.error:
        raise MalformedFrame("an int16 is cut short") from None


def read_i32(data: memoryview, position: int) -> tuple[int, int]:
    try:
        return _I32.unpack_from(data, position)[0], position + 4
    except struct.error:
        raise MalformedFrame("an int32 is cut short") from None


def read_nullable_string(data: memoryview, position: int, compact: bool) -> tuple[str | None, int]:
    if compact:
        length, position = read_uvarint(data, position)
        length -= 1
    else:
        length, position = read_i16(data, position)
    if length < 0:
        return None, position
    if length > _MAX_STRING_BYTES:
        raise MalformedFrame(f"a string of {length} bytes")
    view, position = take(data, position, length)
    # Java decodes bad UTF-8 into U+FFFD instead of failing, and so do we.
    return str(view, "utf-8", "replace"), position


def read_string(data: memoryview, position: int, compact: bool) -> tuple[str, int]:
    value, position = read_nullable_string(data, position, compact)
    if value is None:
        raise MalformedFrame("a string that may not be null is null")
    return value, position


def read_nullable_bytes(
    data: memoryview, position: int, compact: bool
) -> tuple[memoryview | None, int]:
    if compact:
        length, position = read_uvarint(data, position)
        length -= 1
    else:
        length, position = read_i32(data, position)
    if length < 0:
        return None, position
    return take(data, position, length)


def read_nullable_count(data: memoryview, position: int, compact: bool) -> tuple[int | None, int]:
    """The length of an array. Every element has at least one byte, so more is refused at once."""
    if compact:
        count, position = read_uvarint(data, position)
        count -= 1
    else:
        count, position = read_i32(data, position)
    if count < 0:
        return None, position
    if count > len(data) - position:
        raise MalformedFrame(f"an array of {count} elements in {len(data) - position} bytes")
    return count, position


def read_count(data: memoryview, position: int, compact: bool) -> tuple[int, int]:
    count, position = read_nullable_count(data, position, compact)
    if count is None:
        raise MalformedFrame("an array that may not be null is null")
    return count, position


def read_topic_id(data: memoryview, position: int) -> tuple[UUID | None, int]:
    """A UUID; the zero one, which Kafka uses for "none", is None."""
    view, position = take(data, position, 16)
    raw = view.tobytes()
    return (None if raw == _ZERO_ID else UUID(bytes=raw)), position


def skip_tags(data: memoryview, position: int) -> int:
    """Step over a section of tagged fields that means nothing to the reader."""
    if position < len(data) and data[position] == 0:
        return position + 1
    count, position = read_uvarint(data, position)
    for _ in range(count):
        _tag, position = read_uvarint(data, position)
        length, position = read_uvarint(data, position)
        _view, position = take(data, position, length)
    return position


def write_nullable_string(out: bytearray, value: str | None, compact: bool) -> None:
    if value is None:
        out += b"\x00" if compact else b"\xff\xff"
        return
    raw = value.encode("utf-8")
    if compact:
        write_uvarint(out, len(raw) + 1)
    else:
        out += _I16.pack(len(raw))
    out += raw


def write_count(out: bytearray, count: int, compact: bool) -> None:
    """The length of an array; -1 for null."""
    if compact:
        write_uvarint(out, count + 1)
    else:
        out += _I32.pack(count)


def write_tag(out: bytearray, tag: int, value: bytes | bytearray) -> None:
    write_uvarint(out, tag)
    write_uvarint(out, len(value))
    out += value


def node_endpoints_value(endpoints: Sequence[NodeEndpoint]) -> bytearray:
    """The value of the NodeEndpoints tag of Produce and Fetch responses."""
    out = bytearray()
    write_uvarint(out, len(endpoints) + 1)
    for endpoint in endpoints:
        out += _I32.pack(endpoint.node_id)
        write_nullable_string(out, endpoint.host, True)
        out += _I32.pack(endpoint.port)
        write_nullable_string(out, endpoint.rack, True)
        out.append(0)
    return out
