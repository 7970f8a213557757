"""Log objects that stay the home of their batches: which, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest

from objectstore.errors import Corrupt
from s3stream import fold
from s3stream.adoption import is_adopted
from s3stream.compaction import CompactionConfig, object_uses, plan_compaction
from s3stream.control import Adopted, Uploaded, decode_control
from s3stream.entries import StreamEntry
from s3stream.node_log import StreamStorage
from s3stream.refs import ObjectRange, ObjectRef
from s3stream.stream import Stream
from s3stream.takeover import recover
from tests.simulation.loop import SimulatedLoop
from tests.unit.wal.whole_object import read_object
from wal import end_log, wal_log
from wal.format import read_header
from wal.keys import data_key

from .log_rig import (
    SMALL,
    WINDOW,
    living,
    make_entry,
    open_new,
    read_all,
    run,
    take_over,
    until_recorded,
)
from .test_fold import check_sums, names, opened, piece, ref, uploaded, written

# Four batches of 4 KB fill a log object.
ADOPTING = replace(SMALL, adopt_share_bytes=4000, upload_max_age_s=60.0)


# The rule


@pytest.mark.parametrize(
    ("object_bytes", "shares", "adopted"),
    [
        (8 << 20, [8 << 20], True),
        (8 << 20, [1 << 20] * 8, True),
        (8 << 20, [512 << 10] * 16, True),
        (8 << 20, [500 << 10] * 16, False),
        (8 << 20, [7 << 20, 1, 1, 1], True),  # on average
        (8 << 20, [4 << 20], True),
        (8 << 20, [(4 << 20) - 1], False),  # merging would rewrite it at once
        (600 << 10, [600 << 10], True),  # it need not be full
        (100, [100], False),
        (100, [], False),
    ],
)
def test_an_object_is_adopted_whose_shares_are_large_and_that_is_mostly_wanted(
    object_bytes: int, shares: list[int], adopted: bool
) -> None:
    assert is_adopted(object_bytes, shares, 512 << 10) is adopted


@pytest.mark.parametrize("streams", [1, 2, 4, 16])
@pytest.mark.parametrize("object_mib", [1, 3, 8])
def test_merging_adopted_objects_writes_no_more_than_uploads_and_their_merging(
    streams: int, object_mib: int
) -> None:
    total_mib = 1024
    adopted_mib = merged_mib(streams, object_mib, total_mib, wal_log(0).key)
    uploaded_mib = total_mib + merged_mib(streams, 64, total_mib, lambda n: data_key(0, n))
    assert adopted_mib <= uploaded_mib
    if streams == 1:
        assert adopted_mib <= total_mib  # the log and a stream's own objects: twice


def merged_mib(streams: int, object_mib: int, total_mib: int, key: Callable[[int], str]) -> int:
    """What merging writes of so much history, which comes object by object; sizes are in bytes
    where MiB are meant, a thousand of them.
    """
    config = CompactionConfig(
        base_tier_bytes=1000, max_object_bytes=1024_000, own_object_bytes=64_000,
        own_object_max_bytes=256_000,
    )  # fmt: skip
    entries = [StreamEntry(one, 0, (0, 0, 0), ranges=[]) for one in range(streams)]
    written = made = number = 0

    def span(one: ObjectRef, base: int, end: int) -> ObjectRange:
        return ObjectRange(one, base, end, end - base, 1, 1, 0, 0, 0, 0, bytes(16))

    while made < total_mib * 1000:
        size = object_mib * 1000 // streams
        home = ObjectRef(key(number), bytes(16), 80 + size * streams, 80 + size * streams, 0)
        number += 1
        for entry in entries:
            entry.ranges.append(span(home, entry.next_offset, entry.next_offset + size))
            entry.next_offset = entry.uploaded_to = entry.next_offset + size
        made += size * streams
        while (plan := plan_compaction(object_uses(entries), config)) is not None:
            for output in plan.outputs:
                written += output.size_bytes
                end = 80 + output.size_bytes
                merged = ObjectRef(data_key(1, number), bytes(16), end, end, 0)
                number += 1
                for stream_id, gone in output.ranges:
                    ranges = entries[stream_id].ranges
                    at = ranges.index(gone)
                    ranges[at] = span(merged, gone.base_offset, gone.end_offset)
                    before = ranges[at - 1] if at else gone
                    if before.object == merged and before.end_offset == gone.base_offset:
                        ranges[at - 1 : at + 1] = [
                            span(merged, before.base_offset, gone.end_offset)
                        ]
    return written // 1000


# The fold


def test_what_is_adopted_stays_between_what_is_copied() -> None:
    entry = written(5, 10, 15, 20)
    staying = {ref("wal/1"), ref("wal/3")}
    copies = uploaded("data/0", piece(0, 5)) + uploaded("data/0", piece(10, 15))
    fold.upload(entry, copies, staying)
    assert names(entry) == ["data/0", "wal/1", "data/0", "wal/3"]
    assert entry.uploaded_to == 20 and entry.tail() == []
    check_sums(entry)
    fold.trim(entry, 12)
    assert names(entry) == ["data/0", "wal/3"]
    check_sums(entry)


def test_all_of_a_tail_may_be_adopted_and_no_more_than_the_record_names() -> None:
    entry = written(5, 10)
    fold.append(entry, ref("wal/9"), [piece(10, 12)])
    removed, added = fold.upload(entry, [], {ref("wal/0"), ref("wal/1")})
    assert removed == added == entry.ranges[:2]
    assert [one.object.key for one in entry.tail()] == ["wal/9"]
    check_sums(entry)


def test_an_object_of_the_same_name_and_another_write_is_not_adopted() -> None:
    entry = written(5)
    other = ref("wal/0")
    fold.upload(entry, [], {type(other)(other.key, b"x" * 16, other.size_bytes, 80, 20)})
    assert entry.uploaded_to == 0


def test_what_lies_behind_an_unreadable_batch_awaits_the_next_upload() -> None:
    entry = written(5, 10, 15)
    fold.upload(entry, [], {ref("wal/0"), ref("wal/2")})
    assert entry.uploaded_to == 5
    assert [one.object.key for one in entry.tail()] == ["wal/1", "wal/2"]
    fold.upload(entry, uploaded("data/0", piece(5, 10)), {ref("wal/2")})
    assert names(entry) == ["wal/0", "data/0", "wal/2"] and entry.tail() == []
    check_sums(entry)


def test_a_copy_behind_a_gap_contradicts_the_log() -> None:
    entry = written(5, 10, 15)
    with pytest.raises(Corrupt, match="leaves out 5"):
        fold.upload(entry, uploaded("data/0", piece(10, 15)), {ref("wal/0")})


def test_a_copy_of_what_is_adopted_contradicts_the_log() -> None:
    entry = written(5, 10)
    with pytest.raises(Corrupt, match="does not hold what stream 1 has"):
        fold.upload(entry, uploaded("data/0", piece(0, 10)), {ref("wal/1")})


def test_a_start_that_moved_past_what_is_adopted_drops_it() -> None:
    entry = written(5, 10, 15)
    fold.trim(entry, 12)
    fold.upload(entry, uploaded("data/0", piece(10, 15)), {ref("wal/0"), ref("wal/1")})
    assert names(entry) == ["data/0"]
    check_sums(entry)
    closed = opened()
    closed.closed = True
    assert fold.upload(closed, [], {ref("wal/0")}) == ([], [])


# The life of an adopted object


async def fill(stream: Stream, objects: int, sizes: Sequence[int] = (4000,) * 4) -> None:
    """So many log objects of the batches given, full or not."""
    for _ in range(objects):
        futures = [stream.append(make_entry(stream, value=bytes(size))) for size in sizes]
        await asyncio.gather(*futures)


def homes(stream: Stream) -> list[str]:
    return [one.object.key.split("/")[0] for one in stream.entry.ranges]


def test_large_shares_are_written_once_and_small_ones_are_collected_in_an_object() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, ADOPTING) as (life, store):
            streams = await open_new(life, [1, 2])
            await fill(streams[1], 3)
            await fill(streams[2], 5, (20,))
            await fill(streams[1], 2, (20,))
            await fill(streams[1], 1)
            written = {n: await read_all(one) for n, one in streams.items()}
            await life.storage.uploader.upload()
            assert homes(streams[1]) == ["wal", "wal", "wal", "data", "wal"]
            assert homes(streams[2]) == ["data"]
            assert life.storage.registry.tail_bytes == 0
            assert life.storage.uploader.adopted_objects == 4
            life.storage.cache.shrink(0)
            assert life.storage.cache.total_bytes == 0
            assert {n: await read_all(one) for n, one in streams.items()} == written
            keys = [info.key async for info in store.inner.list("data/")]
            made = [(await read_object(store, key)).header.kind.name for key in keys]
            assert made.count("DATA") == 1

    run(body)


def test_an_upload_without_adoption_is_recorded_as_ever() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, ADOPTING) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await fill(stream, 2, (20,))
            await life.storage.uploader.upload()
            await fill(stream, 2)
            await life.storage.uploader.upload()
            found = []
            async for info in store.inner.list("wal/"):
                for record in (await read_object(store, info.key)).index.controls:
                    found.append(type(decode_control(record, info.key)))
            assert [one for one in found if one in (Uploaded, Adopted)] == [Uploaded, Adopted]

    run(body)


def test_bytes_that_are_adopted_start_no_upload_and_pin_no_memory() -> None:
    config = replace(ADOPTING, upload_trigger_bytes=50_000, log_cache_bytes=400_000)

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, config) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for _ in range(60):
                await fill(stream, 1)
                assert life.storage.cache.pinned_bytes == 0
                assert life.storage.cache.total_bytes <= 400_000
            storage = life.storage
            assert storage.uploader.uploads == 0 and storage.registry.tail_bytes > 900_000
            # What tailing consumers want is in memory all the same.
            assert stream.fetch_cached(stream.high_watermark - 1, stream.high_watermark, 1)
            assert stream.fetch_cached(0, 1, 1) is None
            assert len(await read_all(stream)) > 60 * 16_000

    run(body)


def test_a_small_object_that_came_before_pins_the_large_ones_until_it_is_copied() -> None:
    config = replace(ADOPTING, log_cache_bytes=400_000)

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, config) as (life, _):
            stream = (await open_new(life, [1]))[1]
            storage = life.storage
            await fill(stream, 1, (20,))
            await fill(stream, 5)
            assert storage.cache.pinned_bytes == storage.cache.total_bytes > 80_000
            await fill(stream, 20)
            await asyncio.sleep(1)
            # Half of the cache was pinned: one upload, of the one small batch.
            assert storage.uploader.uploads == 1 and storage.uploader.uploaded_bytes < 1000
            assert storage.cache.pinned_bytes == 0
            assert set(homes(stream)[1:]) == {"wal"} and homes(stream)[0] == "data"

    run(body)


def test_an_object_that_refers_to_a_batch_out_of_line_is_not_adopted() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, ADOPTING) as (life, _):
            stream = (await open_new(life, [1]))[1]
            early = make_entry(stream, value=bytes(9000))
            reference = await life.storage.write_large_batch(early)
            early.reference = reference
            futures = [stream.append(early)]
            futures += [stream.append(make_entry(stream, value=bytes(4000))) for _ in range(3)]
            await asyncio.gather(*futures)
            written = await read_all(stream)
            await life.storage.uploader.upload()
            assert "wal" not in homes(stream)[:1] and stream.entry.large == []
            life.storage.cache.shrink(0)
            assert await read_all(stream) == written

    run(body)


@pytest.mark.parametrize("when", ["after the record", "after the trim", "before both"])
def test_a_crash_around_the_adoption_loses_nothing(when: str) -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, ADOPTING) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await fill(stream, 3)
            await fill(stream, 1, (20,))
            await fill(stream, 3)
            written = await read_all(stream)
            if when != "before both":
                uploading = loop.create_task(life.storage.uploader.upload())
                await until_recorded(stream)
                if when == "after the trim":
                    await uploading
                    await fill(stream, 1, (20,))
                    written = await read_all(stream)
                    newest = wal_log(1).key(life.storage.wal.durable_seq - 1)
                    assert (await read_header(store, newest)).trim > 5
            live = life.storage.registry.entries
            end = life.storage.wal.durable_seq
            await life.kill()
            if when != "before both":
                await asyncio.gather(uploading, return_exceptions=True)
                await end_log(store, wal_log(1), WINDOW, b"process", Random(1))
                assert (await recover(store, 1, end)).registry.entries == live
            heir, streams = await take_over(store, 1, 2, loop, ADOPTING)
            assert await read_all(streams[1]) == written
            # What the dead log did not come to, its heir does: another's objects are as good.
            await heir.storage.uploader.upload()
            assert homes(streams[1])[:7] == ["wal"] * 3 + ["data"] + ["wal"] * 3
            assert streams[1].entry.tail() == []
            assert await read_all(streams[1]) == written
            await heir.kill()

    run(body)


def test_fenced_while_it_adopts_the_heir_has_everything() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, ADOPTING) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await fill(stream, 4)
            written = await read_all(stream)
            uploading = loop.create_task(life.storage.uploader.upload())
            heir, streams = await take_over(store, 1, 2, loop, ADOPTING)
            await asyncio.gather(uploading, return_exceptions=True)
            await heir.storage.uploader.upload()
            assert set(homes(streams[1])) == {"wal"}
            heir.storage.cache.shrink(0)
            assert await read_all(streams[1]) == written
            await heir.kill()

    run(body)


def test_trims_closings_and_drops_while_an_upload_is_written_hold() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, ADOPTING) as (life, store):
            streams = await open_new(life, [1, 2, 3, 4])
            for stream in streams.values():
                await fill(stream, 2)
                await fill(stream, 1, (20,))
                await fill(stream, 1)
            store.rule("before", "create", "data/*", times=3)
            uploading = loop.create_task(life.storage.uploader.upload())
            await asyncio.sleep(0)
            await streams[1].trim(9)
            await life.storage.close_streams([2])
            await life.storage.drop_streams([3])
            held = _held_of(life.storage)
            await uploading
            assert homes(streams[1]) == ["wal"] and homes(streams[4]) == ["wal"] * 2 + [
                "data",
                "wal",
            ]
            assert set(homes_of(life.storage, 2)) == {"wal"}
            assert all(key in held for key in _held_of(life.storage) if key.startswith("wal/"))

    run(body)


def homes_of(storage: StreamStorage, stream_id: int) -> list[str]:
    entry = storage.registry.entry(stream_id)
    return [one.object.key.split("/")[0] for one in entry.ranges]


def _held_of(storage: StreamStorage) -> set[str]:
    return storage.references()
