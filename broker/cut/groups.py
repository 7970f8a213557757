"""Groups whose committed offset lies behind what is kept of a partition.

Their consumers are told OFFSET_OUT_OF_RANGE and reset, as `auto.offset.reset` says; an operator
wants to know which.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from objectstore.store import ObjectStore
from protocol.errors import MalformedFrame
from protocol.internal_records import OffsetCommitKey, decode_key, decode_offset_commit_value
from protocol.record_batch import iter_headers
from protocol.records import Record, decode_records
from s3stream.entries import StreamEntry
from s3stream.history import read_history
from s3stream.refs import ObjectRange
from wal.format import read_blocks, read_index

OFFSETS_TOPIC = "__consumer_offsets"


@dataclass(frozen=True, slots=True)
class GroupBehind:
    """committed: what the group will be given as its place; end_offset: of what is kept."""

    group: str
    topic: str
    partition: int
    committed: int
    end_offset: int

    def __str__(self) -> str:
        return (
            f"{self.group}: committed {self.committed} in {self.topic}-{self.partition}, which "
            f"ends at {self.end_offset} now: its consumer resets"
        )


async def groups_behind(
    store: ObjectStore, offsets: list[StreamEntry], ends: dict[tuple[str, int], int]
) -> list[GroupBehind]:
    """offsets: what is kept of the partitions of `__consumer_offsets`, proven before. ends: of all
    other partitions that are known.
    """
    committed: dict[OffsetCommitKey, int] = {}
    for entry in offsets:
        async for record in _records(store, entry):
            try:
                key = None if record.key is None else decode_key(record.key)
                if not isinstance(key, OffsetCommitKey):
                    continue
                if record.value is None:
                    committed.pop(key, None)
                else:
                    committed[key] = decode_offset_commit_value(record.value).offset
            except MalformedFrame:
                continue  # of a version that is not known here
    found = [
        GroupBehind(key.group, key.topic, key.partition, offset, ends[key.topic, key.partition])
        for key, offset in committed.items()
        if offset > ends.get((key.topic, key.partition), offset)
    ]
    return sorted(found, key=lambda one: (one.group, one.topic, one.partition))


async def _records(store: ObjectStore, entry: StreamEntry) -> AsyncIterator[Record]:
    """In order, from the start of the partition on."""
    ranges: list[ObjectRange] = []
    for index in entry.history:
        ranges += await read_history(store, index, entry.stream_id)
    for one in [*ranges, *entry.ranges]:
        async for batch in _batches(store, one, entry.stream_id):
            for record in decode_records(batch):
                if record.offset >= entry.start_offset:
                    yield record


async def _batches(
    store: ObjectStore, one: ObjectRange, stream_id: int
) -> AsyncIterator[memoryview]:
    ref = one.object
    index = await read_index(store, ref.key, ref.size_bytes, ref.write_id)
    for piece in index.ranges:
        if piece.stream_id != stream_id or not (
            one.base_offset <= piece.base_offset < one.end_offset
        ):
            continue
        if piece.reference is not None:
            continue  # a commit is never as large as that
        (block,) = await read_blocks(store, ref.key, index, [piece.block])
        data = memoryview(block)[piece.position : piece.position + piece.size_bytes]
        for position, header in iter_headers(data):
            if not header.is_control:
                yield data[position : position + header.size_bytes]
