"""Entries of streams as bytes: index pages, the delta of a checkpoint, recovery objects.

All three are one shape, msgpack of `_Stored`. Ranges name their object by its place in a table,
since the streams of one upload share it.

A checkpoint is pages plus a delta: entries of the streams that changed since the pages were
written, and ids of streams that are gone. When the delta outgrows `delta_limit_bytes`, the
touched pages are written anew.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from objectstore.errors import Corrupt

from .entries import PageRef, StreamEntry
from .history import ObjectTable, StoredRange
from .refs import ObjectRange, ObjectRef

FORMAT_VERSION = 2
# Version 1 knew no history: the field's default is what it meant.
_READ_VERSIONS = (1, 2)


class _Stored(msgspec.Struct, array_like=True):
    """entries: by stream id, each without its ranges; ranges: one list for each entry."""

    version: int
    objects: list[ObjectRef]
    entries: list[StreamEntry]
    ranges: list[list[StoredRange]]
    gone: list[int]


@dataclass(frozen=True, slots=True)
class Part:
    """Some streams' entries, encoded; ids from `low` to `high`, both inclusive."""

    low: int
    high: int
    body: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)


def encode_entries(entries: Iterable[StreamEntry], gone: Iterable[int] = ()) -> bytes:
    """entries: by stream id. They are copied: later changes do not show."""
    table = ObjectTable()
    bare: list[StreamEntry] = []
    ranges: list[list[StoredRange]] = []
    for entry in entries:
        ranges.append([table.stored(one) for one in entry.ranges])
        bare.append(replace(entry, ranges=[]))
    return _encoder.encode(_Stored(FORMAT_VERSION, table.objects, bare, ranges, list(gone)))


def decode_entries(data: bytes | memoryview, where: str) -> tuple[list[StreamEntry], list[int]]:
    """(entries, ids of streams that are gone). where: for the error. Raises Corrupt."""
    try:
        stored = _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise Corrupt(f"{where}: unreadable stream entries: {error}") from error
    if stored.version not in _READ_VERSIONS:
        raise Corrupt(
            f"{where}: stream entries of format {stored.version}, this version reads "
            f"{FORMAT_VERSION}; start the newer version that wrote it"
        )
    if len(stored.ranges) != len(stored.entries):
        raise Corrupt(f"{where}: {len(stored.entries)} entries, {len(stored.ranges)} lists")
    objects = stored.objects
    for entry, ranges in zip(stored.entries, stored.ranges, strict=True):
        try:
            entry.ranges = [ObjectRange(objects[one[0]], *one[1:]) for one in ranges]
        except IndexError:
            raise Corrupt(f"{where}: stream {entry.stream_id} names an unknown object") from None
        _check_contiguous(entry, where)
    return stored.entries, stored.gone


def _check_contiguous(entry: StreamEntry, where: str) -> None:
    both = [*entry.history, *entry.ranges]
    expected = both[0].base_offset if both else entry.next_offset
    for one in both:
        if one.base_offset != expected or one.end_offset <= one.base_offset:
            raise Corrupt(
                f"{where}: stream {entry.stream_id} has a range at {one.base_offset}, expected "
                f"at {expected}"
            )
        expected = one.end_offset
    if expected != entry.next_offset or not 0 <= entry.start_offset <= entry.next_offset:
        raise Corrupt(
            f"{where}: stream {entry.stream_id} from {entry.start_offset} ends at "
            f"{entry.next_offset}, its ranges at {expected}"
        )


def delta_limit_bytes(pages: Sequence[PageRef], least_bytes: int) -> int:
    """A delta up to this size goes into every checkpoint; beyond, pages are rewritten."""
    return max(least_bytes, sum(page.size_bytes for page in pages) // 4)


def split(entries: Iterable[StreamEntry], streams: int, size_bytes: int) -> Iterator[Part]:
    """Encoded parts of at most `streams` entries and about `size_bytes` each.

    entries: by stream id.
    """
    batch: list[StreamEntry] = []
    weight = 0
    for entry in entries:
        if batch and (len(batch) >= streams or weight >= size_bytes):
            yield _part(batch)
            batch, weight = [], 0
        batch.append(entry)
        weight += 200 + 64 * len(entry.ranges) + 64 * len(entry.producers)
        weight += 128 * len(entry.history)
    if batch:
        yield _part(batch)


def _part(entries: list[StreamEntry]) -> Part:
    return Part(entries[0].stream_id, entries[-1].stream_id, encode_entries(entries))


def rewrite(
    pages: Sequence[PageRef],
    entries: Mapping[int, StreamEntry],
    changed: Iterable[int],
    *,
    streams: int,
    size_bytes: int,
) -> tuple[list[PageRef], list[Part]]:
    """(pages that stay, parts that become new pages) so that together they hold all of `entries`.

    pages: of the last checkpoint, by stream id. A page is touched when a stream that changed lies
    in it, or belongs after it; what is not covered by any page goes to its left neighbour.
    """
    lows = [page.low for page in pages]
    touched = {max(0, bisect_right(lows, stream_id) - 1) for stream_id in changed}
    if not pages:
        return [], list(split((entries[i] for i in sorted(entries)), streams, size_bytes))
    kept = [page for position, page in enumerate(pages) if position not in touched]
    anew: dict[int, list[StreamEntry]] = {position: [] for position in sorted(touched)}
    for stream_id in sorted(entries):
        position = max(0, bisect_right(lows, stream_id) - 1)
        if position in anew:
            anew[position].append(entries[stream_id])
    parts: list[Part] = []
    for group in anew.values():
        parts += split(group, streams, size_bytes)
    return kept, parts
