from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest
from crc32c import crc32c

import s3stream.disk_cache
from s3stream.block_cache import BlockCache
from s3stream.disk_cache import CLOSED, DiskCache
from wal.format import Kind

from .counting_store import CountingStore
from .stored_objects import batch, entry, put_object

MIB = 1 << 20
SIZE = 64 * MIB
WRITE_ID = bytes(range(16))


async def opened(
    directory: Path, *, cluster: str = "cluster-a", node: int = 1, max_bytes: int = SIZE
) -> DiskCache:
    cache = await DiskCache.open(directory, max_bytes, cluster, node, executor=None)
    assert cache is not None
    return cache


def block(seed: int, size: int = 300_000) -> bytes:
    return Random(seed).randbytes(size)


def put(cache: DiskCache, key: str, number: int, data: bytes, write_id: bytes = WRITE_ID) -> None:
    cache.put(key, write_id, number, memoryview(data), crc32c(data))


def test_blocks_survive_a_restart(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path)
        for n in range(5):
            put(cache, "data/x", n, block(n))
        await cache.close()
        cache = await opened(tmp_path)
        found = await cache.get("data/x", WRITE_ID, [0, 3, 9])
        assert found == {0: block(0), 3: block(3)}
        await cache.close()

    asyncio.run(run())


def test_a_read_whose_caller_went_away_ends_before_the_files_are_closed(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path)
        put(cache, "data/x", 0, block(0))
        await cache.flush()
        reading, go_on = threading.Event(), threading.Event()
        told = []

        def slow(value: memoryview, write_id: bytes, number: int) -> bytes:
            reading.set()
            go_on.wait(10)
            told.append(bytes(value[:4]))
            return b""

        with patch.object(s3stream.disk_cache, "_decode", slow):
            read = asyncio.create_task(cache.get("data/x", WRITE_ID, [0]))
            await asyncio.to_thread(reading.wait)
            read.cancel()
            await asyncio.wait([read])
            closing = asyncio.create_task(cache.close())
            await asyncio.sleep(0.05)
            assert not closing.done()
            go_on.set()
            await closing
        assert told == [b"HWBC"]

    asyncio.run(run())


def test_blocks_survive_a_killed_process(tmp_path: Path) -> None:
    script = f"""
import asyncio, os
from pathlib import Path
from random import Random
from crc32c import crc32c
from s3stream.disk_cache import DiskCache
async def run():
    cache = await DiskCache.open(Path({str(tmp_path)!r}), {SIZE}, "cluster-a", 1, executor=None)
    data = Random(1).randbytes(300_000)
    cache.put("data/x", bytes(range(16)), 0, memoryview(data), crc32c(data))
    await cache.flush()
    os._exit(9)
asyncio.run(run())
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, check=False)
    assert done.returncode == 9

    async def run() -> None:
        cache = await opened(tmp_path)
        assert await cache.get("data/x", WRITE_ID, [0]) == {0: block(1)}
        await cache.close()

    asyncio.run(run())


def test_another_write_at_the_same_key_is_never_answered_from_the_cache(tmp_path: Path) -> None:
    """The store was wiped and made anew: same keys, other write ids."""

    async def run() -> None:
        cache = await opened(tmp_path)
        put(cache, "data/x", 0, block(0))
        await cache.flush()
        assert await cache.get("data/x", bytes(16), [0]) == {}
        await cache.close()

    asyncio.run(run())


def test_another_bucket_is_never_answered_from_the_cache(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path)
        put(cache, "data/x", 0, block(0))
        await cache.close()
        other = await opened(tmp_path, cluster="cluster-b")
        assert await other.get("data/x", WRITE_ID, [0]) == {}
        await other.close()
        # Not even when the files of one cluster's cache are moved to another's place.
        shutil.copytree(tmp_path / "cluster-a", tmp_path / "cluster-c")
        moved = await opened(tmp_path, cluster="cluster-c")
        assert await moved.get("data/x", WRITE_ID, [0]) == {}
        await moved.close()

    asyncio.run(run())


def test_second_broker_has_a_directory_of_its_own(tmp_path: Path) -> None:
    async def run() -> None:
        first = await opened(tmp_path, node=1)
        second = await opened(tmp_path, node=2)
        put(first, "data/x", 0, block(0))
        await first.flush()
        assert await second.get("data/x", WRITE_ID, [0]) == {}
        await first.close()
        await second.close()

    asyncio.run(run())


def test_directory_in_use_means_no_disk_cache_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        first = await opened(tmp_path)
        with caplog.at_level(logging.WARNING):
            again = await DiskCache.open(tmp_path, SIZE, "cluster-a", 1, executor=None)
        assert again is None
        assert len(caplog.records) == 1
        await first.close()
        await (await opened(tmp_path)).close()

    asyncio.run(run())


def test_unwritable_place_means_no_disk_cache_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a directory")

    async def run() -> None:
        with caplog.at_level(logging.WARNING):
            cache = await DiskCache.open(tmp_path / "file", SIZE, "c", 1, executor=None)
        assert cache is None

    asyncio.run(run())
    assert len(caplog.records) == 1


def test_oldest_blocks_go_when_the_cache_is_full(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path, max_bytes=16 * MIB)
        for n in range(120):
            put(cache, "data/x", n, block(n))
            await cache.flush()
        assert cache.counters.evicted_blocks > 60
        newest = await cache.get("data/x", WRITE_ID, list(range(110, 120)))
        assert newest == {n: block(n) for n in range(110, 120)}
        assert await cache.get("data/x", WRITE_ID, [0]) == {}
        await cache.close()
        size_bytes = (tmp_path / "cluster-a" / "1" / "lmdb" / "data.mdb").stat().st_size
        assert size_bytes <= 17 * MIB

    asyncio.run(run())


def test_block_that_is_read_outlives_those_that_are_not(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path, max_bytes=16 * MIB)
        put(cache, "data/hot", 0, block(1000))
        for n in range(150):
            put(cache, "data/x", n, block(n))
            await cache.flush()
            assert await cache.get("data/hot", WRITE_ID, [0]) == {0: block(1000)}
        await cache.close()

    asyncio.run(run())


def test_flipped_byte_on_disk_is_a_miss_and_the_store_is_asked(tmp_path: Path) -> None:
    store = CountingStore()
    ref, index = put_object(store, 0, [entry(7, batch(0, body_bytes=300_000))], kind=Kind.DATA)
    blocks = list(enumerate(index.blocks))

    async def run() -> None:
        cache = BlockCache(0, await opened(tmp_path))
        await cache.read(store, ref, blocks)
        (whole,) = await cache.read(store, ref, blocks)
        expected = bytes(whole)
        await cache.close()
        path = tmp_path / "cluster-a" / "1" / "lmdb" / "data.mdb"
        stored = bytearray(path.read_bytes())
        at = stored.index(expected[1000:1100])
        stored[at] ^= 1
        path.write_bytes(stored)
        store.reads.clear()
        disk = await opened(tmp_path)
        cache = BlockCache(10 * MIB, disk)
        (again,) = await cache.read(store, ref, blocks)
        assert again == expected
        assert disk.counters.rejected == 1
        assert len(store.reads) == 1
        await cache.close()

    asyncio.run(run())


def test_block_found_on_disk_needs_no_request_to_the_store(tmp_path: Path) -> None:
    store = CountingStore()
    entries = [entry(7, batch(i, body_bytes=700_000)) for i in range(3)]
    ref, index = put_object(store, 0, entries)
    blocks = list(enumerate(index.blocks))

    async def run() -> None:
        disk = await opened(tmp_path)
        cache = BlockCache(0, disk)
        first = [bytes(view) for view in await cache.read(store, ref, blocks)]
        # What comes by once is not worth a write.
        await disk.flush()
        assert disk.counters.written_blocks == 0
        await cache.read(store, ref, blocks)
        await cache.close()
        assert disk.counters.written_blocks == len(blocks)
        store.reads.clear()
        cache = BlockCache(10 * MIB, await opened(tmp_path))
        assert [bytes(view) for view in await cache.read(store, ref, blocks)] == first
        assert store.reads == []
        await cache.close()

    asyncio.run(run())


@pytest.mark.parametrize("damage", ["garbage", "empty", "cut"])
def test_damaged_database_is_made_anew(tmp_path: Path, damage: str) -> None:
    async def fill() -> None:
        cache = await opened(tmp_path)
        for n in range(20):
            put(cache, "data/x", n, block(n))
        await cache.close()

    asyncio.run(fill())
    path = tmp_path / "cluster-a" / "1" / "lmdb" / "data.mdb"
    whole = path.read_bytes()
    damaged = {"garbage": Random(1).randbytes(50_000), "empty": b"", "cut": whole[: MIB // 2]}
    path.write_bytes(damaged[damage])

    async def run() -> None:
        cache = await opened(tmp_path)
        assert await cache.get("data/x", WRITE_ID, list(range(20))) == {}
        put(cache, "data/x", 0, block(0))
        await cache.flush()
        assert await cache.get("data/x", WRITE_ID, [0]) == {0: block(0)}
        await cache.close()

    asyncio.run(run())


def test_cache_of_a_machine_that_went_down_unsynced_is_made_anew(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path)
        put(cache, "data/x", 0, block(0))
        await cache.close()
        state = tmp_path / "cluster-a" / "1" / "state"
        assert state.read_text() == CLOSED
        state.write_text("another boot")
        cache = await opened(tmp_path)
        assert await cache.get("data/x", WRITE_ID, [0]) == {}
        await cache.close()

    asyncio.run(run())


def test_directory_deleted_while_in_use_is_no_trouble(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path)
        put(cache, "data/x", 0, block(0))
        await cache.flush()
        shutil.rmtree(tmp_path)
        put(cache, "data/x", 1, block(1))
        await cache.flush()
        found = await cache.get("data/x", WRITE_ID, [0, 1])
        assert all(data == block(n) for n, data in found.items())
        await cache.close()

    asyncio.run(run())


def test_more_than_the_queue_takes_is_left_out_not_kept_in_memory(tmp_path: Path) -> None:
    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            cache = await DiskCache.open(tmp_path, SIZE, "c", 1, executor=executor)
            assert cache is not None
            data = block(0, 4 * MIB)
            for n in range(20):
                put(cache, "data/x", n, data)
            assert cache.counters.skipped_blocks >= 12
            await cache.close()
            assert cache.counters.written_blocks == 20 - cache.counters.skipped_blocks

    asyncio.run(run())


def test_failing_disk_turns_the_cache_off_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        cache = await opened(tmp_path)

        def fail(*_: object) -> None:
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(cache._files, "_put", fail)
        with caplog.at_level(logging.WARNING):
            for n in range(5):
                put(cache, "data/x", n, block(n))
                await cache.flush()
        assert len(caplog.records) == 1
        assert await cache.get("data/x", WRITE_ID, [0]) == {}
        await cache.close()

    asyncio.run(run())


def test_what_was_offered_long_ago_counts_as_new(tmp_path: Path) -> None:
    async def run() -> None:
        cache = await opened(tmp_path)

        def offer(n: int) -> None:
            data = block(n)
            cache.offer("data/x", WRITE_ID, n, memoryview(data), crc32c(data))

        with patch.object(s3stream.disk_cache, "OFFERED_ONCE", 3):
            for n in (0, 1, 2, 3):
                offer(n)
            offer(0)
            offer(3)
        await cache.flush()
        assert await cache.get("data/x", WRITE_ID, [0, 3]) == {3: block(3)}
        await cache.close()

    asyncio.run(run())
