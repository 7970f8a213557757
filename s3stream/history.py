"""Index objects of a stream's history: a run of its older ranges, kept out of its entry.

    entry.history   one summary for each index object, by offset: a range that names it
    entry.ranges    what follows, range by range

An index object is immutable. What an entry says of it is the sum of the ranges in it, so sums,
sizes and newest timestamps are known without reading it; who needs the ranges reads it on demand.
Its body is msgpack of `_Stored`; each object of its ranges is named once.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import msgspec
from msgspec.structs import astuple

from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from wal.format import Kind, read_blob

from .entries import Tally
from .refs import ObjectRange, ObjectRef

FORMAT_VERSION = 1
DIGEST_BYTES = 16

StoredRange = tuple[int, int, int, int, int, int, int, int, int, int, bytes]
"""An ObjectRange with the place of its object in a table."""


class _Stored(msgspec.Struct, array_like=True):
    version: int
    stream_id: int
    objects: list[ObjectRef]
    ranges: list[StoredRange]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


class ObjectTable:
    """The objects that some ranges name, each once."""

    def __init__(self) -> None:
        self.objects: list[ObjectRef] = []
        self._numbers: dict[str, int] = {}

    def stored(self, one: ObjectRange) -> StoredRange:
        ref, *rest = astuple(one)
        number = self._numbers.get(ref.key)
        if number is None:
            number = self._numbers[ref.key] = len(self.objects)
            self.objects.append(ref)
        return (number, *rest)


def encode_history(stream_id: int, ranges: Sequence[ObjectRange]) -> bytes:
    """ranges: neighbours, by offset."""
    table = ObjectTable()
    stored = [table.stored(one) for one in ranges]
    return _encoder.encode(_Stored(FORMAT_VERSION, stream_id, table.objects, stored))


def decode_history(data: bytes | memoryview, where: str) -> tuple[int, list[ObjectRange]]:
    """(stream id, its ranges: at least one, without a gap). Raises Corrupt naming `where`."""
    try:
        stored = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Corrupt(f"{where}: unreadable history: {error}") from error
    if stored.version != FORMAT_VERSION:
        raise Corrupt(
            f"{where}: history of format {stored.version}, this version reads {FORMAT_VERSION}; "
            "start the newer version that wrote it"
        )
    objects = stored.objects
    if any(not 0 <= one[0] < len(objects) for one in stored.ranges):
        raise Corrupt(f"{where}: a range names an unknown object")
    ranges = [ObjectRange(objects[one[0]], *one[1:]) for one in stored.ranges]
    if not ranges or any(one.end_offset != two.base_offset for one, two in pairwise(ranges)):
        raise Corrupt(f"{where}: its ranges are none, or leave a gap")
    return stored.stream_id, ranges


async def read_history(store: ObjectStore, index: ObjectRange, stream_id: int) -> list[ObjectRange]:
    """The ranges that an entry of `stream_id` keeps in that index object, checked.

    Raises NotFound (a shorter one took its place, or it was trimmed away), Corrupt, or what else
    the store raises.
    """
    ref = index.object
    blob = await read_blob(store, ref.key, Kind.HISTORY, ref.write_id)
    owner, ranges = decode_history(blob.body, ref.key)
    if owner != stream_id or summary(ref, ranges) != index:
        raise Corrupt(f"{ref.key}: not the history that stream {stream_id} names")
    return ranges


def summary(ref: ObjectRef, ranges: Sequence[ObjectRange]) -> ObjectRange:
    """Neighbouring ranges as one, which names the index object that holds them."""
    first, last = ranges[0], ranges[-1]
    tally = Tally.of(ranges)
    newest = first
    for one in ranges[1:]:
        if one.max_timestamp > newest.max_timestamp:
            newest = one
    return ObjectRange(
        ref,
        first.base_offset,
        last.end_offset,
        tally.size_bytes,
        tally.record_count,
        tally.batch_count,
        first.first_leader_epoch,
        last.last_leader_epoch,
        newest.max_timestamp,
        newest.max_timestamp_offset,
        tally.sum,
    )


def digest(ranges: Sequence[ObjectRange]) -> bytes:
    """16 bytes by which equal ranges in equal objects are known; the same in every version."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for one in ranges:
        text = f"{one.object.key} {one.object.write_id.hex()} {one.base_offset} {one.end_offset}\n"
        state.update(text.encode())
    return state.digest()
