"""Walking a store's directory in the order of its keys, sweeping what dead processes left."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..store import ObjectInfo, UploadInfo
from .file_temporary import PREFIX, parse_name


def walk_objects(root: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    """Objects whose key starts with `prefix` and sorts after `start_after`, in byte order.

    Each directory is synced before it is believed: what a crashed process linked there and did
    not sync may otherwise be listed now and gone after the next power cut.
    """
    for directory, relative in _directories_below(root, prefix):
        yield from _walk(directory, relative, prefix, start_after)


def walk_uploads(root: str, prefix: str) -> Iterator[UploadInfo]:
    """Unfinished uploads under `prefix`, in no particular order; tokens are relative paths."""
    for directory, relative in _directories_below(root, prefix):
        yield from _walk_uploads(directory, relative, prefix)


def _directories_below(root: str, prefix: str) -> Iterator[tuple[str, str]]:
    """The one directory that holds all keys of `prefix`, if it is there: path, key part."""
    relative = prefix.rpartition("/")[0]
    directory = os.path.join(root, relative) if relative else root
    if os.path.isdir(directory):
        yield directory, relative + "/" if relative else ""
    elif not os.path.isdir(root):
        raise FileNotFoundError(root)


def _walk(directory: str, relative: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    # A directory sorts by its name and a slash: "a.b" comes before "a/b".
    for order_name, entry in _entries(directory):
        key = relative + order_name
        if order_name.endswith("/"):
            touches = key.startswith(prefix) or prefix.startswith(key)
            # Everything below starts with `key`: skip it when all of that is known already.
            if touches and (key >= start_after or start_after.startswith(key)):
                yield from _walk(entry.path, key, prefix, start_after)
        elif key.startswith(prefix) and key > start_after:
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted meanwhile
            yield ObjectInfo(key, stat.st_size, stat.st_mtime_ns // 1_000_000)


def _walk_uploads(directory: str, relative: str, prefix: str) -> Iterator[UploadInfo]:
    for order_name, entry in _entries(directory, temporary=True):
        key = relative + order_name
        if order_name.endswith("/"):
            if key.startswith(prefix) or prefix.startswith(key):
                yield from _walk_uploads(entry.path, key, prefix)
            continue
        parsed = parse_name(entry.name)
        if parsed is None or parsed.upload_of is None:
            continue
        key = relative + parsed.upload_of
        if key.startswith(prefix):
            try:
                started_ms = entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000
            except FileNotFoundError:
                continue
            yield UploadInfo(key, relative + entry.name, started_ms)


def _entries(directory: str, temporary: bool = False) -> list[tuple[str, os.DirEntry[str]]]:
    """Sorted (name, entry), directories with a slash; temporary files only where asked for."""
    found = []
    try:
        _sync(directory)
        with os.scandir(directory) as scan:
            for entry in scan:
                if entry.name.startswith(PREFIX):
                    if not _swept(entry) and temporary:
                        found.append((entry.name, entry))
                elif entry.is_dir(follow_symlinks=False):
                    found.append((entry.name + "/", entry))
                else:
                    found.append((entry.name, entry))
    except (FileNotFoundError, NotADirectoryError):
        return []  # pruned meanwhile
    return sorted(found, key=lambda pair: pair[0])


def _swept(entry: os.DirEntry[str]) -> bool:
    parsed = parse_name(entry.name)
    if parsed is None or not parsed.owner_is_gone():
        return False
    try:
        os.unlink(entry.path)
    except FileNotFoundError:
        pass
    return True


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
