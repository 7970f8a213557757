"""Blocks on local disk: the second level of the block cache, and nothing that anybody relies on.

    <dir>/<cluster id>/<node id>/lock     held by the one process that uses the directory
                                 state    which boot of the machine wrote here, and how it ended
                                 lmdb/    the blocks

The key of a value is the BLAKE2b of cluster id, object key, write id and block number, so a store
that was made anew, another bucket or another broker's blocks are never found. A value is

    position  size  field
    0         4     magic, b"HWBC"
    4         16    write id of the object
    20        8     block number
    28        8     length of the block
    36        4     crc32c of the block
    40        4     crc32c of the 40 bytes before
    44        -     the block

and a value that does not fit is a miss. Writes are not synced: after a crash of the machine the
boot id differs and the cache is made anew. Any failure turns the cache off, with one warning.

A block is kept when it had to be fetched a second time: most of what catches up comes by once, and
would cost another copy and a write for nobody.

All work on files runs in the executor, one call at a time for writes; the loop never waits.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import lmdb
from crc32c import crc32c

log = logging.getLogger(__name__)

_HEAD = struct.Struct(">4s16sQQI")
_CRC = struct.Struct(">I")
HEAD_SIZE = _HEAD.size + _CRC.size
assert HEAD_SIZE == 44
MAGIC = b"HWBC"

# Blocks waiting to be written; beyond it they are not cached on disk.
QUEUE_BYTES = 32 << 20
WRITE_BYTES = 8 << 20
# How many blocks are known to have been offered once: of some 16 GB of history, in about 2 MB.
OFFERED_ONCE = 16_384
# LMDB needs free pages in a row for a large value: a map is never filled to the brim.
FILL_SHARE = 0.8
LEAST_BYTES = 16 << 20
CLOSED = "closed"

T = TypeVar("T")


@dataclass(slots=True)
class DiskCacheCounters:
    hits: int = 0
    misses: int = 0
    rejected: int = 0
    written_blocks: int = 0
    skipped_blocks: int = 0
    evicted_blocks: int = 0


class DiskCache:
    """One directory of blocks, used by this process alone. Made by `open`."""

    def __init__(self, files: _Files, executor: Executor | None) -> None:
        self._files = files
        self._executor = executor
        self._queue: OrderedDict[bytes, tuple[bytes, int, memoryview, int]] = OrderedDict()
        self._queue_bytes = 0
        self._forget: list[bytes] = []
        self._offered_once: OrderedDict[bytes, None] = OrderedDict()
        self._writer: asyncio.Task[None] | None = None
        # Calls in the executor; one goes on when who waits for it is cancelled.
        self._calls: dict[asyncio.Future[Any], None] = {}
        self._off = False
        self._closed = False
        self.counters = files.counters

    @classmethod
    async def open(
        cls,
        directory: Path,
        max_bytes: int,
        cluster_id: str,
        node_id: int,
        *,
        executor: Executor | None,
    ) -> DiskCache | None:
        """None, after one warning, where there can be no cache: locked, unwritable, too small.

        max_bytes: on disk. executor: None for the loop's own.
        """
        if max_bytes < LEAST_BYTES:
            return None
        place = directory / cluster_id / str(node_id)
        loop = asyncio.get_running_loop()
        try:
            files = await loop.run_in_executor(
                executor, _Files.open, place, max_bytes, cluster_id.encode()
            )
        except (OSError, lmdb.Error) as error:
            log.warning("no disk cache in %s: %s", place, error)
            return None
        return cls(files, executor)

    async def get(self, key: str, write_id: bytes, blocks: Sequence[int]) -> dict[int, bytes]:
        """Those of the blocks that are here and whole."""
        if self._off or self._closed:
            return {}
        wanted = [(block, self._files.name(key, write_id, block)) for block in blocks]
        found = await self._run(lambda: self._files.get(write_id, wanted))
        return found if found is not None else {}

    def offer(self, key: str, write_id: bytes, block: int, data: memoryview, crc: int) -> None:
        """A block that was fetched from the store: `put` the second time."""
        name = self._files.name(key, write_id, block)
        if name in self._offered_once:
            del self._offered_once[name]
            self.put(key, write_id, block, data, crc)
            return
        self._offered_once[name] = None
        if len(self._offered_once) > OFFERED_ONCE:
            self._offered_once.popitem(last=False)

    def put(self, key: str, write_id: bytes, block: int, data: memoryview, crc: int) -> None:
        """Keep a block, soon; not if too much waits already. crc: its crc32c, checked.

        data: unchanged from now on.
        """
        if self._off or self._closed or self._queue_bytes + len(data) > QUEUE_BYTES:
            self.counters.skipped_blocks += 1
            return
        name = self._files.name(key, write_id, block)
        if name in self._queue:
            return
        self._queue[name] = (write_id, block, data, crc)
        self._queue_bytes += len(data)
        self._start_writer()

    def forget(self, key: str, write_id: bytes, block: int) -> None:
        """The block found here was not what the object's index says: do not give it out again."""
        if not self._off and not self._closed:
            self._forget.append(self._files.name(key, write_id, block))
            self._start_writer()

    async def flush(self) -> None:
        """Until everything put so far is written or given up."""
        while self._writer is not None:
            await asyncio.shield(self._writer)

    async def close(self) -> None:
        """Writes what waits, and lets the directory go. Idempotent."""
        if self._closed:
            return
        await self.flush()
        self._closed = True
        # LMDB's memory must not go away under a call that reads it.
        if self._calls:
            await asyncio.wait(list(self._calls))
        await asyncio.get_running_loop().run_in_executor(self._executor, self._files.close)

    def _start_writer(self) -> None:
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(
                self._write_queue(), name="disk-cache-writer"
            )

    async def _write_queue(self) -> None:
        """Ends when nothing waits: an idle cache has no task."""
        try:
            while (self._queue or self._forget) and not self._off:
                batch: list[tuple[bytes, bytes, int, memoryview, int]] = []
                size_bytes = 0
                while self._queue and size_bytes < WRITE_BYTES:
                    name, (write_id, block, data, crc) = self._queue.popitem(last=False)
                    batch.append((name, write_id, block, data, crc))
                    size_bytes += len(data)
                forgotten, self._forget = self._forget, []
                await self._run(lambda: self._files.write(batch, forgotten))  # noqa: B023
                self._queue_bytes -= size_bytes
        finally:
            self._writer = None
            if self._off:
                self._queue.clear()
                self._queue_bytes = 0
                self._forget.clear()

    @property
    def oldest_call(self) -> object | None:
        """That is not done yet; None: all are."""
        return next(iter(self._calls), None)

    async def _run(self, work: Callable[[], T]) -> T | None:
        call = asyncio.get_running_loop().run_in_executor(self._executor, work)
        self._calls[call] = None
        call.add_done_callback(self._called)
        try:
            return await asyncio.shield(call)
        except (OSError, lmdb.Error) as error:
            if not self._off:
                self._off = True
                log.warning("the disk cache in %s is off from now on: %s", self._files.place, error)
            return None

    def _called(self, call: asyncio.Future[Any]) -> None:
        del self._calls[call]
        if not call.cancelled():
            call.exception()  # who waited may have been cancelled


class _Files:
    """The directory; every method blocks. Reads may run beside each other and beside one write."""

    def __init__(
        self, place: Path, lock: int, env: lmdb.Environment, max_bytes: int, cluster: bytes
    ) -> None:
        self.place = place
        self.counters = DiskCacheCounters()
        self._cluster = cluster
        self._lock = lock
        self._env = env
        self._limit_bytes = int(max_bytes * FILL_SHARE)
        self._sizes: OrderedDict[bytes, int] = OrderedDict()  # oldest first
        self._bytes = 0
        self._recent: dict[bytes, None] = {}  # read since they were written or last spared

    @classmethod
    def open(cls, place: Path, max_bytes: int, cluster: bytes) -> _Files:
        place.mkdir(parents=True, exist_ok=True)
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError("another process uses this directory") from None
            state = place / "state"
            if _read_state(state) not in (CLOSED, _boot_id() or CLOSED):
                # Unsynced pages may be lost or torn since the machine went down: LMDB would trust
                # them.
                shutil.rmtree(place / "lmdb", ignore_errors=True)
            state.write_text(_boot_id())
            try:
                files = cls(place, lock, _environment(place, max_bytes), max_bytes, cluster)
                files._scan()
            except lmdb.Error as error:
                log.warning("the disk cache in %s is made anew: %s", place, error)
                shutil.rmtree(place / "lmdb", ignore_errors=True)
                files = cls(place, lock, _environment(place, max_bytes), max_bytes, cluster)
        except BaseException:
            os.close(lock)
            raise
        return files

    def name(self, key: str, write_id: bytes, block: int) -> bytes:
        digest = blake2b(self._cluster, digest_size=32)
        digest.update(struct.pack(">I16sQ", len(self._cluster), write_id, block))
        digest.update(key.encode())
        return digest.digest()

    def get(self, write_id: bytes, wanted: list[tuple[int, bytes]]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        with self._env.begin(buffers=True) as txn:
            for block, name in wanted:
                value = txn.get(name)
                if value is None:
                    self.counters.misses += 1
                elif (data := _decode(memoryview(value), write_id, block)) is None:
                    self.counters.rejected += 1
                else:
                    self.counters.hits += 1
                    self._recent[name] = None
                    found[block] = data
        return found

    def write(
        self,
        batch: list[tuple[bytes, bytes, int, memoryview, int]],
        forgotten: list[bytes],
    ) -> None:
        if forgotten:
            self._delete(forgotten)
        # A full map fails the whole transaction: make room before, and once more if LMDB still
        # finds no run of free pages.
        incoming = sum(len(data) + HEAD_SIZE for _, _, _, data, _ in batch)
        self._make_room(incoming)
        try:
            self._put(batch)
        except lmdb.MapFullError:
            self._make_room(max(incoming, self._limit_bytes // 2))
            try:
                self._put(batch)
            except lmdb.MapFullError:
                self.counters.skipped_blocks += len(batch)

    def close(self) -> None:
        try:
            self._env.sync(True)
            (self.place / "state").write_text(CLOSED)
        except (OSError, lmdb.Error):
            pass  # then the next process that opens it on another boot makes it anew
        self._env.close()
        os.close(self._lock)

    def _put(self, batch: list[tuple[bytes, bytes, int, memoryview, int]]) -> None:
        with self._env.begin(write=True) as txn:
            for name, write_id, block, data, crc in batch:
                head = _HEAD.pack(MAGIC, write_id, block, len(data), crc)
                txn.put(name, b"".join((head, _CRC.pack(crc32c(head)), data)))
        for name, _, _, data, _ in batch:
            self._bytes += len(data) + HEAD_SIZE - self._sizes.pop(name, 0)
            self._sizes[name] = len(data) + HEAD_SIZE
            self.counters.written_blocks += 1

    def _make_room(self, incoming: int) -> None:
        """Oldest first; what was read since is spared once."""
        doomed: list[bytes] = []
        while self._sizes and self._bytes + incoming > self._limit_bytes:
            name, size = self._sizes.popitem(last=False)
            if name in self._recent:
                del self._recent[name]
                self._sizes[name] = size
                continue
            doomed.append(name)
            self._bytes -= size
        if doomed:
            self._delete(doomed)
            self.counters.evicted_blocks += len(doomed)

    def _delete(self, names: list[bytes]) -> None:
        with self._env.begin(write=True) as txn:
            for name in names:
                txn.delete(name)
        for name in names:
            self._bytes -= self._sizes.pop(name, 0)
            self._recent.pop(name, None)

    def _scan(self) -> None:
        """What an earlier process left, in the order of the keys (their age is not kept)."""
        pages_bytes = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if (self.place / "lmdb" / "data.mdb").stat().st_size < pages_bytes:
            # Reading a page beyond the file's end would kill the process.
            self._env.close()
            raise lmdb.CorruptedError("the file was cut short")
        with self._env.begin(buffers=True) as txn:
            for name, value in txn.cursor():
                self._sizes[bytes(name)] = len(value)
                self._bytes += len(value)


def _environment(place: Path, max_bytes: int) -> lmdb.Environment:
    return lmdb.open(
        str(place / "lmdb"),
        map_size=max_bytes,
        subdir=True,
        sync=False,
        metasync=False,
        max_dbs=0,
        max_readers=64,
        readahead=False,
    )


def _decode(value: memoryview, write_id: bytes, block: int) -> bytes | None:
    """The block, copied out of the map; None unless every byte is as it was written."""
    if len(value) < HEAD_SIZE:
        return None
    magic, found_id, found_block, size, crc = _HEAD.unpack_from(value)
    (head_crc,) = _CRC.unpack_from(value, _HEAD.size)
    if magic != MAGIC or crc32c(value[: _HEAD.size]) != head_crc:
        return None
    if (found_id, found_block, size) != (write_id, block, len(value) - HEAD_SIZE):
        return None
    data = bytes(value[HEAD_SIZE:])
    return data if crc32c(data) == crc else None


def _read_state(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _boot_id() -> str:
    """Differs after each start of the machine; where there is none the cache never survives."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
