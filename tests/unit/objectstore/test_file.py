"""The file store: what is visible when, what is swept, and how the system's errors are told."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from objectstore.create import create_once
from objectstore.drivers import file as file_driver
from objectstore.drivers import file_suitability
from objectstore.drivers.file import FileStore
from objectstore.drivers.file_bytes import write_all
from objectstore.drivers.file_suitability import is_network_type, type_in_mounts
from objectstore.drivers.file_temporary import new_name, parse_name
from objectstore.errors import (
    AccessDenied,
    BucketMissing,
    PreconditionFailed,
    StoreUnavailable,
    UnsuitableStore,
)
from objectstore.header import encode_prefix


def run(root: Path, check: Callable[[FileStore], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await FileStore.open(str(root), lambda: 0)
        try:
            await check(store)
        finally:
            await store.close()

    asyncio.run(main())


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "key", ["", "/", "a//b", "../x", "a/../b", "./a", "a/", "/a", "a/.hw-1", "a\0"]
)
def test_a_key_that_could_leave_the_directory_is_refused(tmp_path: Path, key: str) -> None:
    async def check(store: FileStore) -> None:
        for request in (store.create(key, [b""]), store.get(key), store.delete([key])):
            with pytest.raises(ValueError, match="is no key"):
                await request

    run(tmp_path / "s", check)
    assert names(tmp_path) == []


def test_a_crash_between_write_and_link_leaves_nothing_that_a_listing_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: FileStore) -> None:
        left = tmp_path / "wal" / "1"
        left.mkdir(parents=True)
        dead = left / ".hw-1-1-0.tmp"  # process 1 did not start at tick 1
        dead.write_bytes(b"half")
        alive = left / new_name()
        alive.write_bytes(b"under way")
        assert [info.key async for info in store.list("")] == []
        assert not dead.exists(), "of a dead process: swept"
        assert alive.exists(), "of a living one: left alone"
        assert [u.key for u in await store.list_uploads("")] == []

    run(tmp_path, check)


def test_the_upload_of_a_dead_process_is_swept_and_that_of_a_living_one_listed(
    tmp_path: Path,
) -> None:
    async def check(store: FileStore) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / ".hw-1-1-0-7-1.upload").write_bytes(b"x")
        await store.start_upload("data/8-1")
        assert [u.key for u in await store.list_uploads("data/")] == ["data/8-1"]
        assert len(list((tmp_path / "data").iterdir())) == 1

    run(tmp_path, check)


def test_a_temporary_name_tells_its_process() -> None:
    for name, upload_of in ((new_name(), None), (new_name("5-17"), "5-17")):
        parsed = parse_name(name)
        assert parsed is not None and parsed.pid == os.getpid()
        assert parsed.upload_of == upload_of
        assert not parsed.owner_is_gone()
    assert parse_name("00000000000000000001") is None


def test_after_a_failed_fsync_another_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: FileStore) -> None:
        real, synced = os.fsync, []

        def failing(fd: int) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.endswith(".tmp"):
                synced.append(path)
                if len(synced) == 1:
                    raise OSError(errno.EIO, "Input/output error")
            real(fd)

        monkeypatch.setattr(os, "fsync", failing)
        ours = b"o" * 16
        assert await create_once(
            store, "wal/1", [encode_prefix(1, ours)], ours, rng=random.Random(0)
        )
        assert len(synced) == 2 and synced[0] != synced[1]

    run(tmp_path, check)
    assert names(tmp_path) == ["wal/1"]


def test_an_object_whose_directory_could_not_be_synced_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: FileStore) -> None:
        await store.create("wal/0", [b"x"])
        real, broken = os.fsync, True

        def failing(fd: int) -> None:
            if broken and os.readlink(f"/proc/self/fd/{fd}").endswith("/wal"):
                raise OSError(errno.EIO, "Input/output error")
            real(fd)

        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(StoreUnavailable):
            await store.create("wal/1", [b"x"])
        for request in (store.get("wal/1"), store.create("wal/1", [b"y"])):
            with pytest.raises(StoreUnavailable):
                await request
        broken = False
        assert await store.get("wal/1") == b"x"
        with pytest.raises(PreconditionFailed):
            await store.create("wal/1", [b"y"])

    run(tmp_path, check)
    assert names(tmp_path) == ["wal/0", "wal/1"]


def test_a_link_that_reports_an_error_but_happened_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(store: FileStore) -> None:
        real = os.link

        def lying(*arguments: object, **more: object) -> None:
            real(*arguments, **more)  # type: ignore[arg-type]
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "link", lying)
        await store.create("k", [b"x"])
        assert await store.get("k") == b"x"

    run(tmp_path, check)


@pytest.mark.parametrize(
    ("number", "error", "word"),
    [
        (errno.ENOSPC, StoreUnavailable, "full"),
        (errno.EDQUOT, StoreUnavailable, "full"),
        (errno.EROFS, AccessDenied, "let this user"),
        (errno.EACCES, AccessDenied, "let this user"),
        (errno.EIO, StoreUnavailable, "I/O|Input/output"),
    ],
)
def test_an_error_of_the_system_is_told_by_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], word: str
) -> None:
    async def check(store: FileStore) -> None:
        def failing(fd: int, buffers: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "writev", failing)
        with pytest.raises(error, match=word):
            await store.create("k", [b"x"])

    run(tmp_path, check)
    assert names(tmp_path) == []


def test_a_directory_that_vanishes_is_a_missing_bucket_until_it_is_back(tmp_path: Path) -> None:
    root, aside = tmp_path / "s", tmp_path / "aside"

    async def check(store: FileStore) -> None:
        await store.create("wal/1", [b"x"])
        for path in sorted(root.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        root.rmdir()
        with pytest.raises(BucketMissing):
            await store.create("wal/2", [b"x"])
        with pytest.raises(BucketMissing):
            await store.get("wal/1")
        with pytest.raises(BucketMissing):
            _ = [info async for info in store.list("wal/")]
        root.mkdir()
        await store.create("wal/2", [b"x"])
        assert await store.get("wal/2") == b"x"

    run(root, check)
    assert not aside.exists()


def test_a_create_meets_a_directory_that_another_process_prunes(tmp_path: Path) -> None:
    async def check(store: FileStore) -> None:
        for n in range(5):
            await store.create(f"data/ab/{n}", [b"x"])
            (tmp_path / "data" / "ab" / str(n)).unlink()
            (tmp_path / "data" / "ab").rmdir()
            if n % 2:
                (tmp_path / "data").rmdir()
        await store.create("data/ab/last", [b"x"])

    run(tmp_path, check)
    assert names(tmp_path) == ["data/ab/last"]


def test_deleting_the_last_object_removes_its_directories_but_not_the_root(tmp_path: Path) -> None:
    async def check(store: FileStore) -> None:
        await store.create("a/b/c", [b"x"])
        await store.create("a/d", [b"x"])
        await store.delete(["a/b/c"])
        assert os.listdir(tmp_path / "a") == ["d"]
        await store.delete(["a/d"])
        assert os.listdir(tmp_path) == []

    run(tmp_path, check)


def test_a_cancelled_create_links_nothing_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    async def check(store: FileStore) -> None:
        reached, go = Event(), Event()

        def slow(fd: int, chunks: list[bytes]) -> int:
            reached.set()
            go.wait()
            return write_all(fd, chunks)

        monkeypatch.setattr(file_driver, "write_all", slow)
        try:
            task = asyncio.create_task(store.create("k", [b"x"]))
            await asyncio.get_running_loop().run_in_executor(None, reached.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        finally:
            go.set()
        await store.create("other", [b"y"])

    run(tmp_path, check)
    assert "k" not in names(tmp_path)


def test_many_buffers_and_short_writes_reach_the_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.writev

    def short(fd: int, buffers: list[memoryview]) -> int:
        return real(fd, [buffers[0][:3]])

    monkeypatch.setattr(os, "writev", short)
    chunks = [b"%05d" % n for n in range(700)]
    with open(tmp_path / "f", "wb") as file:
        assert write_all(file.fileno(), chunks) == 3500
    assert (tmp_path / "f").read_bytes() == b"".join(chunks)


MOUNTS = [
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n",
    "27 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n",
    "30 27 0:40 / /mnt/share rw - nfs4 server:/x rw\n",
    "31 30 8:2 / /mnt/share/local\\040disk rw - xfs /dev/vdb rw\n",
]


def test_the_deepest_mount_tells_the_kind_of_file_system() -> None:
    for path, kind in (
        ("/home/x", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/a/b", "nfs4"),
        ("/mnt/shared", "ext4"),
        ("/mnt/share/local disk/x", "xfs"),
    ):
        assert type_in_mounts(path, MOUNTS) == kind, path
    assert is_network_type("nfs4") and is_network_type("fuse.sshfs") and not is_network_type("xfs")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_suitability, "file_system_type", lambda directory: "nfs4")
    with pytest.raises(UnsuitableStore, match="network file system"):
        asyncio.run(FileStore.open(str(tmp_path), lambda: 0))


def test_a_file_system_without_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*arguments: object, **more: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    with pytest.raises(UnsuitableStore, match="hard links"):
        asyncio.run(FileStore.open(str(tmp_path), lambda: 0))
    assert [*tmp_path.iterdir()] == []
