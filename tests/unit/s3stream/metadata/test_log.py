from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from uuid import UUID

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import Corrupt
from s3stream.metadata import records as r
from s3stream.metadata.image import EMPTY_IMAGE, MetadataImage
from s3stream.metadata.log import TermLog
from s3stream.metadata.snapshot import encode_image, list_snapshots
from s3stream.metadata.tail import load, read_on
from wal.errors import Fenced, HoleInLog, TrimmedAway
from wal.format import Kind, decode_header
from wal.keys import data_key, meta_log, snapshot_key, wal_log
from wal.seal import end_log

WINDOW = 4


def new_store() -> MemoryStore:
    return MemoryStore(lambda: 0)


def new_log(
    store: MemoryStore, term: int, image: MetadataImage, snapshot_records: int = 1000
) -> TermLog:
    return TermLog(
        store,
        term,
        WINDOW,
        image,
        rng=Random(term + 7),
        on_image=lambda old, new: None,
        snapshot_records=snapshot_records,
    )


@asynccontextmanager
async def running(log: TermLog) -> AsyncIterator[TermLog]:
    task = asyncio.create_task(log.run())
    try:
        yield log
        await log.close(5)
    finally:
        log.abort()
        await asyncio.gather(task, return_exceptions=True)


async def create_cluster(log: TermLog) -> None:
    await log.append(
        [
            r.ClusterCreated("c" * 22, WINDOW, "memory", 0),
            r.TermBegun(b"p0", 1, 0),
            r.BrokerRegistered(1, 0, b"p0", 4, ()),
        ]
    )


def topic(number: int, stream_id: int) -> r.TopicCreated:
    return r.TopicCreated(
        f"topic-{number}", UUID(int=number + 1), False, 1, {}, [r.NewPartition(stream_id, 0)]
    )


async def idle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def keys(store: MemoryStore, prefix: str = "") -> list[str]:
    return [key for key in store._keys if key.startswith(prefix)]


def test_records_are_planned_at_once_and_in_the_image_only_when_durable() -> None:
    async def main() -> None:
        async with running(new_log(new_store(), 0, EMPTY_IMAGE)) as log:
            await create_cluster(log)
            durable = log.append([topic(0, 0)])
            assert "topic-0" in log.planned.topics
            assert "topic-0" not in log.image.topics
            await durable
            assert log.planned is log.image
            assert log.image.topics["topic-0"].partitions[0].appointment == (0, 1, 0)

    asyncio.run(main())


def test_a_reader_folds_the_same_image() -> None:
    async def main() -> None:
        store = new_store()
        assert await load(store) is None
        async with running(new_log(store, 0, EMPTY_IMAGE)) as log:
            await create_cluster(log)
            for number in range(5):
                await log.append([topic(number, number)])
            loaded = await load(store)
            assert loaded is not None
            assert encode_image(loaded.image) == encode_image(log.image)
            assert (loaded.term, loaded.next_seq, loaded.records) == (0, 6, 8)

    asyncio.run(main())


def test_a_reader_goes_on_through_terms_and_an_empty_one() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE)) as log:
            await create_cluster(log)
        first = await load(store)
        assert first is not None
        for term, maker in ((0, b"p1"), (1, b"p2")):
            await end_log(store, meta_log(term), WINDOW, maker, Random(term))
        async with running(new_log(store, 2, first.image)) as log:
            await log.append([r.TermBegun(b"p2", 1, 0)])
        loaded = await read_on(store, first)
        assert (loaded.term, loaded.next_seq, loaded.owner) == (2, 1, b"p2")
        assert loaded.image.position == (2, 0, 0)

    asyncio.run(main())


def test_the_loser_of_a_term_is_fenced_and_its_record_is_nowhere() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE)) as log:
            await create_cluster(log)
            await end_log(store, meta_log(0), WINDOW, b"p1", Random(1))
            durable = log.append([topic(0, 0)])
            with pytest.raises(Fenced, match="p1"):
                await durable
            loaded = await load(store)
            assert loaded is not None and not loaded.image.topics

    asyncio.run(main())


def test_snapshots_shorten_the_start_and_old_records_and_snapshots_go() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE, snapshot_records=10)) as log:
            await create_cluster(log)
            for number in range(60):
                await log.append([topic(number, number)])
                await idle()
            loaded = await load(store)
            assert loaded is not None and loaded.snapshot is not None
            assert loaded.records <= 11
            assert encode_image(loaded.image) == encode_image(log.image)
            assert len(await list_snapshots(store)) == 3
            records = keys(store, meta_log(0).prefix)
            assert records[0] == meta_log(0).key(0), "the cluster's first object stays"
            assert len(records) < 30

    asyncio.run(main())


def test_records_of_ended_terms_go_but_seals_and_ends_stay() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE)) as log:
            await create_cluster(log)
            for number in range(5):
                await log.append([topic(number, number)])
        before = await load(store)
        assert before is not None
        ended = await end_log(store, meta_log(0), WINDOW, b"p1", Random(1))
        assert ended.end == 6
        async with running(new_log(store, 1, before.image, snapshot_records=1)) as log:
            for number in range(5, 8):
                await log.append([topic(number, number)])
                await idle()
            left = keys(store, meta_log(0).prefix)
            assert left[0] == meta_log(0).key(0)
            assert left[-1] == meta_log(0).end_key
            kinds = [decode_header(await store.get(key), key).kind for key in left[1:-1]]
            assert kinds == [Kind.SEAL] * (WINDOW + 1)
            loaded = await load(store)
            assert loaded is not None
            assert encode_image(loaded.image) == encode_image(log.image)

    asyncio.run(main())


def test_a_sleeping_reader_whose_records_went_away_starts_again_from_a_snapshot() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE, snapshot_records=5)) as log:
            await create_cluster(log)
            early = await load(store)
            assert early is not None
            for number in range(40):
                await log.append([topic(number, number)])
                await idle()
            with pytest.raises((HoleInLog, TrimmedAway)):
                await read_on(store, early)
            again = await load(store)
            assert again is not None
            assert encode_image(again.image) == encode_image(log.image)

    asyncio.run(main())


def test_metadata_without_a_beginning_stops_the_start() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE)) as log:
            await create_cluster(log)
            await log.append([topic(0, 0)])
        await end_log(store, meta_log(0), WINDOW, b"p1", Random(1))
        await store.delete([meta_log(0).key(0)])
        with pytest.raises((HoleInLog, Corrupt)):
            await load(store)
        await store.delete(keys(store, meta_log(0).prefix)[:-1])
        with pytest.raises((HoleInLog, Corrupt)):
            await load(store)

    asyncio.run(main())


def test_a_foreign_file_under_meta_is_no_reason_to_make_a_cluster() -> None:
    async def main() -> None:
        store = new_store()
        await store.create("meta/readme.txt", [b"hands off"])
        with pytest.raises(Corrupt, match=r"meta/readme.txt.*left as it is"):
            await load(store)

    asyncio.run(main())


@pytest.mark.parametrize("left", [wal_log(3).key(7), data_key(3, 9)])
def test_no_cluster_is_made_over_what_another_left(left: str) -> None:
    async def main() -> None:
        store = new_store()
        await store.create("probe/abc", [b"x"])
        assert await load(store) is None
        await store.create(left, [b"x"])
        with pytest.raises(Corrupt, match="left as it is"):
            await load(store)

    asyncio.run(main())


def test_a_flipped_bit_in_record_or_snapshot_is_found_and_named() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE, snapshot_records=4)) as log:
            await create_cluster(log)
            for number in range(6):
                await log.append([topic(number, number)])
                await idle()
        newest = (await list_snapshots(store))[-1]
        for key in (keys(store, meta_log(0).prefix)[-1], snapshot_key(newest.term, newest.seq)):
            data, modified = store._objects[key]
            for position in range(0, len(data), 7):
                broken = bytearray(data)
                broken[position] ^= 0x10
                store._objects[key] = (bytes(broken), modified)
                with pytest.raises((Corrupt, HoleInLog), match=key):
                    await load(store)
            store._objects[key] = (data, modified)
        assert await load(store) is not None

    asyncio.run(main())


def test_a_record_that_cannot_follow_is_refused_and_leaves_the_log_as_it_was() -> None:
    async def main() -> None:
        store = new_store()
        async with running(new_log(store, 0, EMPTY_IMAGE)) as log:
            await create_cluster(log)
            with pytest.raises(Corrupt, match="given out twice"):
                log.append([topic(1, 5), topic(2, 5)])
            assert "topic-1" not in log.planned.topics and log.ahead == 0
            await log.append([topic(3, 5)])
        loaded = await load(store)
        assert loaded is not None and sorted(loaded.image.topics) == ["topic-3"]

    asyncio.run(main())
