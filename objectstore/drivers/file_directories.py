"""Directories that hold objects: opened, made durable once, kept open, given up when removed."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from .file_temporary import new_name

OPEN_DIRECTORIES = 128


@dataclass(slots=True)
class _Open:
    fd: int
    users: int = 0
    dropped: bool = False


class Directories:
    """Descriptors of directories whose whole path is known to be durable.

    An entry is durable only when every directory above it is, so the first use of a directory
    syncs the path up to the root, even if another process made it: that one may not have got so
    far. Holding the descriptor proves that it is still the same directory: in one that was removed
    (and perhaps made anew) nothing can be created, ENOENT tells, and `drop` starts over.

    Thread-safe: the driver's executor may have several threads.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def hold(self, relative: str) -> Iterator[int]:
        """Descriptor of `root/relative`, made if absent; "" is the root, which is never made.

        Raises FileNotFoundError: the root is missing. Closed by us, after the last use.
        """
        with self._lock:
            entry = self._open.get(relative)
            if entry is not None:
                entry.users += 1
                self._open.move_to_end(relative)
        if entry is None:
            entry = self._admit(relative, self._make(relative))
        try:
            yield entry.fd
        finally:
            with self._lock:
                entry.users -= 1
                self._close_if_unused(entry)

    def drop(self, relative: str) -> None:
        """Forget a directory that turned out to be gone."""
        with self._lock:
            entry = self._open.pop(relative, None)
            if entry is not None:
                entry.dropped = True
                self._close_if_unused(entry)

    def close(self) -> None:
        for relative in list(self._open):
            self.drop(relative)

    def _admit(self, relative: str, fd: int) -> _Open:
        with self._lock:
            already = self._open.get(relative)
            if already is not None:  # another thread was faster
                os.close(fd)
                already.users += 1
                return already
            entry = self._open[relative] = _Open(fd, users=1)
            while len(self._open) > OPEN_DIRECTORIES:
                _, oldest = self._open.popitem(last=False)
                oldest.dropped = True
                self._close_if_unused(oldest)
            return entry

    def _close_if_unused(self, entry: _Open) -> None:
        if entry.dropped and not entry.users and entry.fd >= 0:
            os.close(entry.fd)
            entry.fd = -1

    def _make(self, relative: str) -> int:
        """Walk down from the root, making what is missing and syncing each parent."""
        fd = open_directory(self._root)
        try:
            for name in relative.split("/") if relative else ():
                child = _make_child(fd, name)
                try:
                    os.fsync(fd)
                except OSError:
                    os.close(child)
                    raise
                os.close(fd)
                fd = child
        except BaseException:
            os.close(fd)
            raise
        return fd


def open_directory(path: str, dir_fd: int | None = None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)


def resync(fd: int) -> None:
    """Make a directory durable whose fsync failed once.

    A second fsync of the same state may report success for what was dropped, so the directory is
    changed first, which makes the system write it anew.
    """
    name = new_name()
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=fd))
    os.unlink(name, dir_fd=fd)
    os.fsync(fd)


def _make_child(parent: int, name: str) -> int:
    """Open `name` in `parent`, making it if need be; it may vanish and come back meanwhile."""
    while True:
        try:
            return open_directory(name, parent)
        except FileNotFoundError:
            pass
        try:
            os.mkdir(name, 0o750, dir_fd=parent)
        except FileExistsError:
            pass
        except FileNotFoundError as error:
            raise Removed(errno.ENOENT, "pruned while in use", name) from error


class Removed(FileNotFoundError):
    """A directory on the way was pruned between two steps: start over from the root."""
