"""When uploads go, what is in them, and what they leave behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from objectstore.errors import Corrupt
from s3stream.config import S3StreamConfig
from s3stream.entries import StreamEntry
from s3stream.node_log import StreamStorage
from s3stream.registry import StreamRegistry
from s3stream.takeover import recover
from tests.simulation.loop import SimulatedLoop
from tests.unit.wal.whole_object import read_object
from wal import Fenced, end_log, wal_log
from wal.format import Kind, read_header
from wal.keys import data_key

from .log_rig import SMALL, WINDOW, Life, living, make_entry, open_new, read_all, run


def data_objects(storage: StreamStorage) -> set[str]:
    return {one.object.key for e in storage.registry.entries.values() for one in e.ranges}


def test_bytes_start_an_upload_and_everything_durable_goes_along() -> None:
    config = replace(SMALL, upload_trigger_bytes=50_000)

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, config) as (life, store):
            streams = await open_new(life, [3, 1, 2])
            for n in range(52):
                await streams[1 + n % 3].append(make_entry(streams[1 + n % 3], value=bytes(1000)))
            await asyncio.sleep(5)
            assert life.storage.uploader.uploads == 1
            (key,) = {one for one in data_objects(life.storage) if one.startswith("data/")}
            index = (await read_object(store, key)).index
            spans = [(one.stream_id, one.base_offset) for one in index.ranges]
            assert [one[0] for one in spans] == [1, 2, 3]
            assert spans == sorted(spans)
            assert life.storage.wal.trim > 40
            assert life.storage.registry.tail_bytes < 10_000

    run(body)


def test_the_count_of_log_objects_starts_an_upload() -> None:
    config = replace(SMALL, upload_max_objects=30)

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, config) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for _ in range(35):
                await stream.append(make_entry(stream))
            await asyncio.sleep(5)
            assert life.storage.uploader.uploads == 1
            assert len(stream.entry.ranges) < 10

    run(body)


def test_age_starts_an_upload_while_there_is_traffic() -> None:
    config = replace(SMALL, upload_max_age_s=60.0)

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, config) as (life, _):
            stream = (await open_new(life, [1]))[1]
            for _ in range(13):
                await stream.append(make_entry(stream))
                await asyncio.sleep(5)
            assert life.storage.uploader.uploads == 1
            # Put off by a pause until traffic comes back.
            await stream.append(make_entry(stream))
            await asyncio.sleep(200)
            assert life.storage.uploader.uploads == 1
            await stream.append(make_entry(stream))
            await asyncio.sleep(1)
            assert life.storage.uploader.uploads == 2

    run(body)


def test_a_stream_that_fills_an_object_gets_its_own() -> None:
    config = replace(SMALL, data_object_bytes=20_000, upload_trigger_bytes=1 << 19)

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, config) as (life, _):
            streams = await open_new(life, [1, 2, 3])
            for n in range(50):
                stream = streams[2 if n < 40 else 1 + 2 * (n % 2)]
                await stream.append(make_entry(stream, value=bytes(1000)))
            written = {n: await read_all(one) for n, one in streams.items()}
            await life.storage.uploader.upload()
            owners: dict[str, set[int]] = {}
            for stream_id, one in streams.items():
                for part in one.entry.ranges:
                    owners.setdefault(part.object.key, set()).add(stream_id)
                    assert part.object.size_bytes < 24_000
            assert sorted(map(sorted, owners.values())) == [[1, 3], [2], [2], [2]]
            life.storage.cache.shrink(0)
            assert {n: await read_all(one) for n, one in streams.items()} == written

    run(body)


def test_an_upload_waits_out_the_store_and_loses_nothing_pinned() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            for _ in range(5):
                await stream.append(make_entry(stream, value=bytes(1000)))
            pinned = life.storage.cache.pinned_bytes
            store.rule("before", "create", "data/*", times=20)
            uploading = loop.create_task(life.storage.uploader.upload())
            await asyncio.sleep(5)
            assert not uploading.done()
            assert life.storage.cache.pinned_bytes == pinned
            late = stream.append(make_entry(stream))
            await late
            await uploading
            assert [one.object.key[:4] for one in stream.entry.ranges] == ["data", "wal/"]
            assert life.storage.numbers.lowest_unsettled == 1

    run(body)


def test_a_taken_key_gets_the_next_number() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            await store.inner.create(data_key(1, 0), [b"another's"])
            await life.storage.uploader.upload()
            assert [one.object.key for one in stream.entry.ranges] == [data_key(1, 1)]
            assert life.storage.numbers.lowest_unsettled == 2

    run(body)


def test_fenced_in_the_middle_of_an_upload_ends_the_broker_with_that_word() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            await end_log(store, wal_log(1), WINDOW, b"other", Random(1))
            life.storage.uploader.ask()
            with pytest.raises(Fenced):
                await life.task

    run(body)


def test_trims_and_drops_during_an_upload_hold() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, store):
            streams = await open_new(life, [1, 2, 3])
            for n in range(30):
                one = streams[1 + n % 3]
                await one.append(make_entry(one))
            store.rule("before", "create", "data/*", times=10)
            uploading = loop.create_task(life.storage.uploader.upload())
            await asyncio.sleep(0.01)
            await streams[1].trim(7)
            await streams[2].trim(10)
            await life.storage.drop_streams([3])
            assert not uploading.done()
            await uploading
            assert (streams[1].start_offset, streams[2].start_offset) == (7, 10)
            assert len(streams[1].entry.ranges) == 1
            assert streams[2].entry.ranges == []
            assert life.storage.registry.tail_bytes == 0
            assert len(data_objects(life.storage)) == 1

    run(body)


# Checkpoints

PAGED = S3StreamConfig(
    log_cache_bytes=1 << 20,
    upload_trigger_bytes=20_000,
    checkpoint_objects=15,
    page_streams=3,
    delta_bytes=3000,
    inline_delta_bytes=1000,
    wal=SMALL.wal,
)


async def work(loop: SimulatedLoop, life: Life, seed: int) -> None:
    rng = Random(seed)
    streams = await open_new(life, range(20))
    for _ in range(150):
        one = rng.choice(list(streams.values()))
        dice = rng.random()
        if dice < 0.85:
            entry = make_entry(
                one,
                value=bytes(rng.choice((10, 1000))),
                producer_id=3,
                producer_epoch=0,
                base_sequence=one.next_offset,
            )
            await one.append(entry)
        elif dice < 0.98:
            await one.trim(rng.randint(one.start_offset, one.high_watermark))
        else:
            del streams[one.stream_id]
            await life.storage.drop_streams([one.stream_id])


@pytest.mark.parametrize("seed", range(4))
def test_what_is_recovered_is_exactly_what_was_live(seed: int) -> None:
    async def body(loop: SimulatedLoop) -> None:
        adopting = replace(PAGED, adopt_share_bytes=1, upload_max_objects=40)
        config = adopting if seed % 2 else PAGED
        async with living(loop, config) as (life, store):
            await work(loop, life, seed)
            assert bool(life.storage.uploader.adopted_objects) is bool(seed % 2)
            await asyncio.sleep(2)
            live = life.storage.registry
            assert live.checkpoint is not None and len(live.checkpoint.pages) > 3
            end = life.storage.wal.durable_seq
            await life.kill()
            ended = await end_log(store, wal_log(1), WINDOW, b"other", Random(1))
            assert ended.end == end
            recovered = (await recover(store, 1, end)).registry
            assert recovered.entries == live.entries
            assert recovered.uploaded_seq == live.uploaded_seq
            assert recovered.tail_bytes == live.tail_bytes
            assert recovered.changed.keys() == live.changed.keys()
            assert recovered.references.held() == live.references.held()

    run(body, seed)


def test_a_checkpoint_writes_only_the_pages_that_changed() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, replace(PAGED, delta_bytes=1)) as (life, _):
            streams = await open_new(life, range(12))
            await life.storage.checkpointer.write()
            first = life.storage.registry.checkpoint
            for n in (3, 4, 5) * 3:
                await streams[n].append(make_entry(streams[n]))
            await life.storage.checkpointer.write()
            second = life.storage.registry.checkpoint
            assert first is not None and second is not None
            assert len(first.pages) == len(second.pages) == 4
            assert [a == b for a, b in zip(first.pages, second.pages, strict=True)] == [
                True, False, True, True,
            ]  # fmt: skip
            held = life.storage.references()
            assert first.pages[1].key not in held
            assert {one.key for one in second.pages} <= held

    run(body)


def test_a_large_delta_is_an_object_of_its_own_until_the_pages_take_it_in() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, replace(PAGED, delta_bytes=1 << 20)) as (life, store):
            await open_new(life, range(30))
            await life.storage.checkpointer.write()
            checkpoint = life.storage.registry.checkpoint
            assert checkpoint is not None and checkpoint.pages == [] and checkpoint.delta == b""
            assert checkpoint.delta_ref is not None
            assert (await read_header(store, checkpoint.delta_ref.key)).kind == Kind.DELTA
            assert checkpoint.delta_ref.key in life.storage.references()

    run(body)


def test_a_flipped_bit_in_a_page_stops_the_recovery_and_names_it() -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, replace(PAGED, delta_bytes=1)) as (life, store):
            await open_new(life, range(5))
            await life.close()
            checkpoint = life.storage.registry.checkpoint
            assert checkpoint is not None
            key = checkpoint.pages[0].key
            data = bytearray(await store.inner.get(key))
            data[len(data) // 2] ^= 1
            await store.inner.delete([key])
            await store.inner.create(key, [data])
            end = await end_log(store, wal_log(1), WINDOW, b"other", Random(1))
            with pytest.raises(Corrupt, match=key):
                await recover(store, 1, end.end)

    run(body)


def test_an_object_out_of_order_is_not_folded() -> None:
    registry = StreamRegistry(1)
    registry.entries[1] = StreamEntry(1, 0, (0, 0, 0))

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, _):
            stream = (await open_new(life, [1]))[1]
            await stream.append(make_entry(stream))
            one = stream.entry.ranges[0].object
            index = await life.storage.reader.index(one)
            with pytest.raises(Corrupt, match="folded after -1"):
                registry.fold(1, one, index)

    run(body)
