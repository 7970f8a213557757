from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectstore.errors import Corrupt, NotFound
from s3stream.block_cache import BlockCache
from s3stream.compaction import Output
from s3stream.compaction.merge import NewObject, merge
from s3stream.fold import object_ranges, ranges_by_stream
from s3stream.object_reader import ObjectReader
from s3stream.refs import ObjectRange, ObjectRef
from tests.unit.wal.whole_object import read_object
from wal.format import ControlMarker, Kind, LargeBatchRef, add_sums, read_index

from .counting_store import CountingStore
from .stored_objects import batch, entry, object_range, put_object

MIB = 1 << 20
NEW = NewObject(1, 900, bytes(range(16)))


class Setting:
    """Streams spread over several objects, as uploads leave them."""

    def __init__(self, objects: list[dict[int, list[int]]]) -> None:
        """objects: {stream id: body sizes of its batches in it}."""
        self.store = CountingStore()
        self.batches: dict[int, list[bytes]] = {}
        self.ranges: dict[int, list[ObjectRange]] = {}
        for n, held in enumerate(objects):
            entries = []
            for stream_id, bodies in held.items():
                own = self.batches.setdefault(stream_id, [])
                for body in bodies:
                    own.append(batch(len(own), body_bytes=body, seed=stream_id, epoch=n // 2))
                    entries.append(entry(stream_id, own[-1]))
            if entries:
                ref, index = put_object(self.store, n, entries)
                for stream_id, bodies in held.items():
                    if bodies:
                        self.ranges.setdefault(stream_id, []).append(
                            object_range(ref, index, stream_id)
                        )

    def output(self) -> Output:
        return Output(tuple((s, r) for s in sorted(self.ranges) for r in self.ranges[s]))

    async def merge(self, part_bytes: int = 64 * MIB) -> ObjectRef:
        ref = await merge(self.store, self.output(), NEW, rng=Random(1), part_bytes=part_bytes)
        assert ref is not None
        return ref

    async def read_back(self, ref: ObjectRef) -> dict[int, bytes]:
        index = await read_index(self.store, ref.key, ref.size_bytes, ref.write_id)
        reader = ObjectReader(self.store, BlockCache(64 * MIB))
        found = {}
        for stream_id, pieces in ranges_by_stream(index).items():
            ranges = object_ranges(ref, pieces)
            end = ranges[-1].end_offset
            views = await reader.read_stream(stream_id, ranges, 0, end, 1 << 40)
            found[stream_id] = b"".join(views)
        return found

    def expected(self) -> dict[int, bytes]:
        return {s: b"".join(own) for s, own in self.batches.items() if own}


def test_merged_object_holds_every_batch_unchanged_and_with_its_sum() -> None:
    setting = Setting([{1: [100, 200_000], 2: [50]}, {2: [700_000, 900_000], 3: [5]}, {1: [9]}])

    async def run() -> None:
        ref = await setting.merge()
        assert await setting.read_back(ref) == setting.expected()
        merged = await read_object(setting.store, ref.key, ref.write_id)
        assert merged.header.kind is Kind.MERGED
        for stream_id, pieces in ranges_by_stream(merged.index).items():
            before = add_sums(*(one.sum for one in setting.ranges[stream_id]))
            assert add_sums(*(one.sum for one in pieces)) == before

    asyncio.run(run())


@given(
    st.lists(
        st.dictionaries(
            st.integers(1, 4),
            st.lists(st.sampled_from([1, 300, 40_000, 600_000, 1_500_000]), max_size=4),
            min_size=1,
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=30, deadline=None)
def test_any_objects_can_be_merged_and_large_ones_go_up_in_equal_parts(
    objects: list[dict[int, list[int]]],
) -> None:
    setting = Setting(objects)
    if not setting.ranges:
        return

    async def run() -> None:
        sent: list[int] = []
        start = setting.store.start_upload

        async def start_upload(key: str):  # type: ignore[no-untyped-def]
            upload = await start(key)
            part = upload.part

            async def counted(chunks):  # type: ignore[no-untyped-def]
                sent.append(sum(map(len, chunks)))
                await part(chunks)

            upload.part = counted  # type: ignore[method-assign]
            return upload

        setting.store.start_upload = start_upload  # type: ignore[method-assign]
        ref = await setting.merge(part_bytes=500_000)
        assert await setting.read_back(ref) == setting.expected()
        assert all(size == 500_000 for size in sent[:-1])

    asyncio.run(run())


def test_each_source_block_is_read_once() -> None:
    setting = Setting([{s: [300_000, 300_000] for s in range(1, 9)} for _ in range(3)])
    asyncio.run(setting.merge())
    read = sum(end - start for _, start, end in setting.store.reads)
    stored = sum(one.object.size_bytes for one in setting.ranges[1])
    assert read <= stored * 1.01


def test_flipped_source_block_is_told_by_its_key_and_nothing_is_written() -> None:
    setting = Setting([{1: [100_000], 2: [100]}, {1: [100]}])
    ref = setting.ranges[1][0].object
    setting.store.flip(ref.key, 5000)

    async def run() -> None:
        with pytest.raises(Corrupt, match=ref.key):
            await setting.merge()
        assert NEW.key not in [info.key async for info in setting.store.list("data/")]

    asyncio.run(run())


def test_batches_that_do_not_add_up_to_their_sum_are_not_copied() -> None:
    """The index lies, with a sound checksum: what a bug in an uploader would leave."""
    setting = Setting([{1: [100]}])
    one = setting.ranges[1][0]
    wrong = ObjectRange(
        one.object, 0, 1, one.size_bytes, 1, 1, 0, 0, one.max_timestamp, 0, bytes(16)
    )
    output = Output(((1, wrong),))

    async def run() -> None:
        with pytest.raises(Corrupt, match="not what it was"):
            await merge(setting.store, output, NEW, rng=Random(1))

    asyncio.run(run())


def test_vanished_source_is_not_found() -> None:
    setting = Setting([{1: [100]}, {1: [100]}])
    asyncio.run(setting.store.delete([setting.ranges[1][0].object.key]))
    with pytest.raises(NotFound):
        asyncio.run(setting.merge())


def test_key_that_another_object_has_is_left_alone() -> None:
    setting = Setting([{1: [100]}])
    setting.store.put_now(NEW.key, [b"HWOB" + bytes(100)])

    async def run() -> None:
        assert await merge(setting.store, setting.output(), NEW, rng=Random(1)) is None

    asyncio.run(run())


def test_a_batch_out_of_line_is_never_what_a_merge_meets() -> None:
    store = CountingStore()
    large, _ = put_object(store, 0, [entry(1, batch(0, 2, body_bytes=2 * MIB))], kind=Kind.BATCH)
    reference = entry(1, batch(10, 2, body_bytes=2 * MIB, epoch=4, seed=-310))
    reference.reference = LargeBatchRef(large.key, large.write_id, large.size_bytes)
    ref, index = put_object(store, 1, [entry(1, batch(9)), reference])
    output = Output(((1, object_range(ref, index, 1)),))

    async def run() -> None:
        with pytest.raises(Corrupt, match=f"{ref.key}: stream 1 has a batch out of line"):
            await merge(store, output, NEW, rng=Random(1))

    asyncio.run(run())


def test_producers_of_joined_ranges_are_as_if_written_at_once() -> None:
    """Ranges that end up in one block tell of producers what a single upload of them would."""
    store = CountingStore()
    parts = []
    for n in range(3):
        own = []
        for i in range(4):
            one = entry(1, batch(n * 4 + i))
            one.producer_id, one.producer_epoch = 77, 0 if n < 2 else 1
            one.base_sequence, one.timestamp_ms = n * 4 + i, 500 + n
            one.is_transactional = n == 0
            own.append(one)
        if n == 1:
            own[0].marker = ControlMarker(4, 77, 0, 3, True, 0)
        parts.append(own)
    written = [put_object(store, n, own) for n, own in enumerate(parts)]
    _, at_once = put_object(store, 50, [one for own in parts for one in own])
    output = Output(tuple((1, object_range(ref, index, 1)) for ref, index in written))

    async def run() -> None:
        new = await merge(store, output, NEW, rng=Random(1))
        assert new is not None
        index = await read_index(store, new.key, new.size_bytes)
        assert index.ranges[0].producers == at_once.ranges[0].producers
        assert index.ranges == at_once.ranges

    asyncio.run(run())
