"""A store in a local directory: the embedded default, `file:///dir`.

An object is written to a temporary file beside its place and synced; link() then makes it visible
under its key, atomically and only if the key is free; the directory is synced last. No rename():
that would replace what is there.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from ..errors import AccessDenied, BucketMissing, NotFound, PreconditionFailed, StoreUnavailable
from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from ..threads import in_thread
from .file_bytes import read_range, write_all
from .file_directories import Directories, Removed, resync
from .file_suitability import refuse_unsuitable
from .file_temporary import PREFIX, new_name
from .file_walk import walk_objects, walk_uploads

THREADS = 8
PAGE_ROWS = 1000
_CREATE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

T = TypeVar("T")


class FileStore(ObjectStore):
    """Objects as files below `root`, which must exist and is never made by this class.

    now_ms: Unix milliseconds. executor: where blocking calls run; without one the driver has
    8 threads of its own. Use `FileStore.open`, which refuses an unfit directory.
    """

    def __init__(
        self, root: str, now_ms: Callable[[], int], executor: Executor | None = None
    ) -> None:
        self.root = os.path.abspath(root)
        self._now_ms = now_ms
        self._own_executor = (
            ThreadPoolExecutor(THREADS, thread_name_prefix="file-store")
            if executor is None
            else None
        )
        self._executor: Executor = executor or self._own_executor  # type: ignore[assignment]
        self._directories = Directories(self.root)
        # Directories whose fsync failed after a link: nothing there is believed until it worked.
        self._doubtful: dict[str, None] = {}

    @classmethod
    async def open(
        cls,
        root: str,
        now_ms: Callable[[], int],
        executor: Executor | None = None,
        *,
        make_root: bool = True,
    ) -> FileStore:
        """Raises UnsuitableStore, BucketMissing, AccessDenied."""
        store = cls(root, now_ms, executor)
        try:
            await store.blocking(store._prepare, make_root)
        except BaseException:
            await store.close()
            raise
        return store

    async def create(self, key: str, chunks: Chunks) -> None:
        directory, name = self._split(key)
        abandoned: builtins.list[bool] = []
        try:
            await self.blocking(self._create, key, directory, name, chunks, abandoned)
        except asyncio.CancelledError:
            # The caller may reuse its buffers now: what is not yet linked must not be.
            abandoned.append(True)
            raise

    async def get(self, key: str) -> bytes:
        return (await self.blocking(self._read, key, None))[0]

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        return await self.blocking(self._read, key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        if ".." in prefix.split("/"):
            raise ValueError(f"{prefix!r} is no prefix of keys")
        walk = walk_objects(self.root, prefix, start_after)
        while True:
            page = await self.blocking(self._page, walk)
            for row in page:
                yield row
            if len(page) < PAGE_ROWS:
                return

    async def delete(self, keys: Sequence[str]) -> None:
        await self.blocking(self._delete, [self._split(key) for key in keys])

    async def start_upload(self, key: str) -> Upload:
        directory, name = self._split(key)
        upload = FileUpload(self, key, directory, name)
        await self.blocking(upload.begin)
        return upload

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        def walk() -> builtins.list[UploadInfo]:
            with self.errors(prefix):
                return sorted(walk_uploads(self.root, prefix), key=lambda u: (u.key, u.token))

        return await self.blocking(walk)

    async def abort_upload(self, upload: UploadInfo) -> None:
        directory, name = self._split(upload.token, temporary=True)
        await self.blocking(self._delete, [(directory, name)])

    async def date_ms(self) -> int:
        return self._now_ms()

    async def close(self) -> None:
        if self._own_executor is not None:
            # Threads end after the call under way; waiting here would block the loop.
            self._own_executor.shutdown(wait=False)
        self._directories.close()

    # --- in the executor ---

    def _prepare(self, make_root: bool) -> None:
        with self.errors(self.root):
            if make_root:
                try:
                    self._make_root()
                except FileNotFoundError as error:
                    raise BucketMissing(f"{self.root}: the directory cannot be made") from error
            if not os.path.isdir(self.root):
                raise BucketMissing(f"{self.root}: there is no such directory")
            refuse_unsuitable(self.root)

    def _make_root(self) -> None:
        missing = []
        path = self.root
        while not os.path.exists(path):
            missing.append(path)
            path = os.path.dirname(path)
        for directory in reversed(missing):
            os.makedirs(directory, 0o750, exist_ok=True)
            parent = os.open(os.path.dirname(directory), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)

    def _create(
        self,
        key: str,
        directory: str,
        name: str,
        chunks: Chunks,
        abandoned: builtins.list[bool],
    ) -> None:
        temporary = new_name()

        def write_and_link(parent: int) -> None:
            fd = open_new(temporary, parent)
            try:
                try:
                    write_all(fd, chunks)
                    # Fails: this file is given up for good, the next attempt writes another. A
                    # second fsync could report success for pages that the first one dropped.
                    os.fsync(fd)
                finally:
                    os.close(fd)
                if not abandoned:
                    self.publish(key, directory, parent, temporary, name)
            finally:
                _unlink(temporary, parent)

        self.at_directory(key, directory, write_and_link)

    def publish(self, key: str, directory: str, parent: int, temporary: str, name: str) -> None:
        """Link a synced file under its name and make that durable."""
        try:
            os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except FileExistsError as error:
            # Whoever sees that object now acts on it, so it must not vanish in a power cut.
            self._sync_directory(directory, parent)
            raise PreconditionFailed(f"{key}: there is an object already") from error
        except OSError:
            if not _same_file(temporary, name, parent):
                raise
        self._sync_directory(directory, parent)

    def _sync_directory(self, directory: str, parent: int) -> None:
        try:
            if directory in self._doubtful:
                resync(parent)
                self._doubtful.pop(directory, None)
            else:
                os.fsync(parent)
        except OSError:
            self._doubtful[directory] = None
            raise

    def at_directory(self, what: str, directory: str, action: Callable[[int], T]) -> T:
        """`action` on the directory's descriptor; made if absent, again if pruned under us."""
        with self.errors(what):
            while True:
                try:
                    with self._directories.hold(directory) as parent:
                        return action(parent)
                except Removed:
                    self._directories.drop(directory)

    def _read(self, key: str, ranges: Sequence[tuple[int, int]] | None) -> builtins.list[bytes]:
        directory, name = self._split(key)
        with self.errors(key):
            if directory in self._doubtful:
                with self._directories.hold(directory) as parent:
                    self._sync_directory(directory, parent)
            try:
                fd = os.open(self._path(directory, name), os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                if not os.path.isdir(self.root):
                    raise BucketMissing(f"{self.root}: the directory is gone") from error
                raise NotFound(f"{key}: no such object") from error
            try:
                if ranges is None:
                    ranges = [(0, os.fstat(fd).st_size)]
                return [read_range(fd, start, end) for start, end in ranges]
            except IsADirectoryError as error:
                raise NotFound(f"{key}: no such object") from error
            finally:
                os.close(fd)

    def _page(self, walk: Iterator[ObjectInfo]) -> builtins.list[ObjectInfo]:
        with self.errors("list"):
            return [*islice(walk, PAGE_ROWS)]

    def _delete(self, places: Sequence[tuple[str, str]]) -> None:
        """Not synced: garbage that comes back after a power cut is collected again."""
        parents: dict[str, None] = {}
        for directory, name in places:
            path = self._path(directory, name)
            with self.errors(path):
                try:
                    os.unlink(path)
                except (FileNotFoundError, NotADirectoryError):
                    continue
            parents[directory] = None
        for directory in parents:
            self._prune(directory)

    def _prune(self, directory: str) -> None:
        """Remove empty directories up to the root. rmdir() refuses one that is used again."""
        while directory:
            try:
                os.rmdir(os.path.join(self.root, directory))
            except OSError:
                return
            self._directories.drop(directory)
            directory = directory.rpartition("/")[0]

    # --- names, errors, threads ---

    def _split(self, key: str, *, temporary: bool = False) -> tuple[str, str]:
        """Directory (relative, "" for the root) and file name. ValueError for an unsafe key."""
        for segment in key.split("/"):
            if segment in ("", ".", "..") or "\0" in segment:
                raise ValueError(f"{key!r} is no key: empty, `.` and `..` segments are not allowed")
            if segment.startswith(PREFIX) and not temporary:
                raise ValueError(f"{key!r} is no key: {PREFIX} begins the names of temporary files")
        directory, _, name = key.rpartition("/")
        return directory, name

    def _path(self, directory: str, name: str) -> str:
        return os.path.join(self.root, directory, name) if directory else f"{self.root}/{name}"

    async def blocking(self, call: Callable[..., T], *arguments: object) -> T:
        return await in_thread(self._executor, call, *arguments)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if not os.path.isdir(self.root):
                raise BucketMissing(
                    f"{self.root}: the directory is gone; bring it back or stop the broker"
                ) from error
            raise StoreUnavailable(f"{what}: {error.strerror} ({error.filename})") from error
        except OSError as error:
            if error.errno in _FULL:
                raise StoreUnavailable(
                    f"{what}: the disk of {self.root} is full ({error.strerror}): free some space"
                ) from error
            if error.errno in _DENIED:
                raise AccessDenied(
                    f"{what}: {error.strerror}: let this user read and write {self.root}"
                ) from error
            raise StoreUnavailable(f"{what}: {error.strerror}") from error


class FileUpload(Upload):
    """Parts are appended to one temporary file, which `complete` links under the key."""

    def __init__(self, store: FileStore, key: str, directory: str, name: str) -> None:
        self._store = store
        self._key = key
        self._directory = directory
        self._name = name
        self._temporary = new_name(upload_of=name)
        self._size_bytes = 0
        self._failed = False

    def begin(self) -> None:
        def make(parent: int) -> None:
            os.close(open_new(self._temporary, parent))

        self._store.at_directory(self._key, self._directory, make)

    async def part(self, chunks: Chunks) -> None:
        await self._exclusively(self._append, chunks)

    async def complete(self) -> None:
        await self._exclusively(self._publish)

    async def abort(self) -> None:
        self._failed = True
        path = f"{self._directory}/{self._temporary}" if self._directory else self._temporary
        await self._store.abort_upload(UploadInfo(self._key, path, 0))

    async def _exclusively(self, call: Callable[..., None], *arguments: object) -> None:
        """One step at a time; a failed or cancelled one leaves nothing to go on with."""
        if self._failed:
            raise StoreUnavailable(f"{self._key}: this upload has failed: start another")
        self._failed = True
        await self._store.blocking(call, *arguments)
        self._failed = False

    def _append(self, chunks: Chunks) -> None:
        def append(parent: int) -> None:
            fd = os.open(self._temporary, os.O_WRONLY | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.lseek(fd, self._size_bytes, os.SEEK_SET)
                self._size_bytes += write_all(fd, chunks)
                # Each part: a final fsync on another descriptor could miss an error of this one.
                os.fsync(fd)
            finally:
                os.close(fd)

        self._store.at_directory(self._key, self._directory, append)

    def _publish(self) -> None:
        def link(parent: int) -> None:
            self._store.publish(self._key, self._directory, parent, self._temporary, self._name)
            _unlink(self._temporary, parent)

        self._store.at_directory(self._key, self._directory, link)


def open_new(name: str, parent: int) -> int:
    """Open a file to be made. Raises Removed: `parent` was pruned since it was opened."""
    try:
        return os.open(name, _CREATE_FLAGS, 0o640, dir_fd=parent)
    except FileNotFoundError as error:
        raise Removed(errno.ENOENT, "pruned while in use", name) from error


def _unlink(name: str, parent: int) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except OSError:
        pass  # swept when this process is gone


def _same_file(first: str, second: str, parent: int) -> bool:
    try:
        one = os.stat(first, dir_fd=parent, follow_symlinks=False)
        two = os.stat(second, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(one, two)
