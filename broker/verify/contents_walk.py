"""Reads every batch that a stream's ranges name, once, and proves each: checksums, order, sums.

Objects are read whole, block by block, several at a time; what each range should hold is compared
with what its batches are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from protocol.record_batch import assign, crc_ok, iter_headers
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import (
    HEADER_SIZE,
    ObjectIndex,
    StreamRange,
    batch_sum,
    check_block,
    read_blocks,
    read_index,
)
from wal.parallel import each_of

from .fault import Amount, Fault, total
from .stream_walk import StreamView

OBJECTS_AT_ONCE = 4
READ_BYTES = 8 << 20

OnProgress = Callable[[int], None]
CheckContents: TypeAlias = (
    "Callable[[ObjectStore, dict[ObjectRef, list[Wanted]], OnProgress], Awaitable[Contents]]"
)


@dataclass(slots=True)
class Contents:
    """What was read and found right."""

    objects: int = 0
    amount: Amount = field(default_factory=Amount)


def check_views(views: Iterable[tuple[str, StreamView]]) -> dict[ObjectRef, list[Wanted]]:
    """What to read of which object, after the ranges of each stream were found to fit.

    views: (name of the partition, its stream). Raises Fault.
    """
    wanted: dict[ObjectRef, list[Wanted]] = {}
    for name, view in views:
        expected = view.ranges[0].base_offset if view.ranges else view.next_offset
        if expected > view.start_offset:
            raise Fault(f"{name}: begins at {view.start_offset}, but its first range at {expected}")
        for one in view.ranges:
            if one.base_offset != expected:
                raise Fault(f"{name}: a hole at {expected}: {one.base_offset} follows")
            expected = one.end_offset
            wanted.setdefault(one.object, []).append(Wanted(name, view.stream_id, one))
        if expected != view.next_offset:
            raise Fault(f"{name}: ends at {view.next_offset}, but its ranges at {expected}")
        if total(view.ranges) + view.trimmed != view.total:
            raise Fault(f"{name}: live and trimmed are not the total of what was appended")
    return wanted


@dataclass(frozen=True, slots=True)
class Wanted:
    partition: str
    stream_id: int
    range: ObjectRange


async def check_contents(
    store: ObjectStore, wanted: dict[ObjectRef, list[Wanted]], on_progress: OnProgress
) -> Contents:
    """on_progress: called with the bytes of each object that is done. Raises Fault, Corrupt."""
    contents = Contents()

    async def one(ref: ObjectRef) -> None:
        amount = await check_object(store, ref, wanted[ref])
        contents.objects += 1
        contents.amount = contents.amount + amount
        on_progress(ref.size_bytes)

    await each_of(one, sorted(wanted, key=lambda ref: ref.key), OBJECTS_AT_ONCE)
    return contents


async def check_presence(
    store: ObjectStore, wanted: dict[ObjectRef, list[Wanted]], on_progress: OnProgress
) -> Contents:
    """Whether the objects are listed, as large as they should be. Raises NotFound."""
    sizes: dict[str, int] = {}
    for prefix in sorted({ref.key.split("/")[0] + "/" for ref in wanted}):
        async for info in store.list(prefix):
            sizes[info.key] = info.size_bytes
    contents = Contents()
    for ref in sorted(wanted, key=lambda ref: ref.key):
        found = sizes.get(ref.key)
        if found != ref.size_bytes:
            what = "missing" if found is None else f"{found} bytes instead of {ref.size_bytes}"
            named = ", ".join(sorted({one.partition for one in wanted[ref]})[:5])
            raise NotFound(f"{ref.key}: {what} (records of {named})")
        contents.objects += 1
        on_progress(ref.size_bytes)
    return contents


async def check_object(store: ObjectStore, ref: ObjectRef, wanted: list[Wanted]) -> Amount:
    index = await read_index(
        store, ref.key, ref.size_bytes, ref.write_id, index_size=ref.index_size
    )
    if await store.get_range(ref.key, 0, HEADER_SIZE) != index.header:
        raise Corrupt(f"{ref.key}: its header and the copy in its index differ")
    by_block: dict[int, list[StreamRange]] = {}
    amount = Amount()
    for one in wanted:
        pieces = _pieces(ref.key, index, one)
        amount = amount + total(pieces)
        for piece in pieces:
            if piece.reference is not None:
                await _check_out_of_line(store, piece)
            else:
                by_block.setdefault(piece.block, []).append(piece)
    await _check_blocks(store, ref.key, index, by_block)
    return amount


def _pieces(key: str, index: ObjectIndex, one: Wanted) -> list[StreamRange]:
    """The block-level ranges that make up a stream's range. Raises Fault unless exactly they do."""
    pieces = [
        piece
        for piece in index.ranges
        if piece.stream_id == one.stream_id
        and piece.base_offset >= one.range.base_offset
        and piece.end_offset <= one.range.end_offset
    ]
    expected = one.range.base_offset
    for piece in pieces:
        if piece.base_offset != expected:
            raise Fault(f"{key}: {one.partition} has a hole at {expected}")
        expected = piece.end_offset
    if expected != one.range.end_offset or total(pieces) != Amount.of(one.range):
        raise Fault(
            f"{key}: its ranges of {one.partition} from {one.range.base_offset} on are not what "
            "the chain says"
        )
    return pieces


async def _check_blocks(
    store: ObjectStore, key: str, index: ObjectIndex, by_block: dict[int, list[StreamRange]]
) -> None:
    numbers = sorted(by_block)
    while numbers:
        group, size = [numbers.pop(0)], 0
        position = index.blocks[group[0]].position
        while numbers and numbers[0] == group[-1] + 1 and size < READ_BYTES:
            group.append(numbers.pop(0))
            size = index.blocks[group[-1]].position - position
        last = index.blocks[group[-1]]
        data = memoryview(await store.get_range(key, position, last.position + last.size))
        for number in group:
            entry = index.blocks[number]
            first = entry.position - position
            block = data[first : first + entry.size]
            check_block(block, key, entry)
            for piece in by_block[number]:
                _check_batches(
                    key, piece, block[piece.position : piece.position + piece.size_bytes]
                )


async def _check_out_of_line(store: ObjectStore, piece: StreamRange) -> None:
    reference = piece.reference
    assert reference is not None
    index = await read_index(store, reference.key, reference.size, reference.write_id)
    if len(index.ranges) != 1 or index.ranges[0].reference is not None:
        raise Fault(f"{reference.key}: not an object of one batch")
    kept = index.ranges[0]
    (block,) = await read_blocks(store, reference.key, index, [kept.block])
    batch = bytearray(block[kept.position : kept.position + kept.size_bytes])
    assign(batch, piece.base_offset, piece.leader_epoch)
    _check_batches(reference.key, piece, memoryview(batch))


def _check_batches(key: str, piece: StreamRange, batches: memoryview) -> None:
    """Every batch of a range: its CRC, its place, and their sum. Raises Fault naming the first."""
    expected = piece.base_offset
    total_sum = count = records = 0
    try:
        for position, header in iter_headers(batches):
            where = f"{key}: stream {piece.stream_id}, the batch at offset {header.base_offset}"
            if header.base_offset != expected:
                raise Fault(f"{where}: expected at {expected}")
            if not crc_ok(batches[position:], header):
                raise Fault(f"{where}: fails its CRC")
            if header.leader_epoch != piece.leader_epoch:
                raise Fault(f"{where}: of leader epoch {header.leader_epoch}")
            expected = header.next_offset
            count += 1
            records += header.record_count
            total_sum += batch_sum(
                header.base_offset,
                header.last_offset,
                header.size_bytes,
                header.crc,
                header.leader_epoch,
            )
    except ValueError as error:
        raise Fault(f"{key}: stream {piece.stream_id} from {piece.base_offset}: {error}") from error
    found = Amount(total_sum % (1 << 128), count, records, len(batches))
    if expected != piece.end_offset or found != Amount.of(piece):
        raise Fault(
            f"{key}: stream {piece.stream_id} from {piece.base_offset} to {piece.end_offset}: "
            "its batches do not add up to what the index says"
        )
