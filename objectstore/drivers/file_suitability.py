"""Is this directory fit to be a store? Local, with an atomic link and an fsync that works."""

from __future__ import annotations

import os
import re

from ..errors import UnsuitableStore
from .file_temporary import new_name

# Types whose other clients or servers may forget, reorder or cache what link and fsync promise.
_NETWORK = """
9p afs beegfs ceph cifs coda davfs gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs smb3
smbfs
"""
NETWORK_TYPES = frozenset(_NETWORK.split())
LOCAL_FUSE_TYPES = frozenset({"fuse.fuse-overlayfs", "fuse.ext2", "fuse.ntfs-3g", "fuse.lxcfs"})
_MOUNT_INFO = "/proc/self/mountinfo"


def refuse_unsuitable(directory: str) -> None:
    """Try link and fsync in `directory` (it must exist), and look what it is mounted from.

    Raises UnsuitableStore with the reason and the remedy; OSError where it cannot be written.
    """
    kind = file_system_type(directory)
    if kind is not None and is_network_type(kind):
        raise UnsuitableStore(
            f"{directory} is on a network file system ({kind}), which does not promise that a "
            "file once written stays written: use a local disk, or an object store (s3://...)"
        )
    first, second = (os.path.join(directory, new_name()) for _ in range(2))
    try:
        fd = os.open(first, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            _fsync(fd, directory)
        finally:
            os.close(fd)
        _require_atomic_link(first, second, directory)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _fsync(fd, directory)
        finally:
            os.close(fd)
    finally:
        for path in (first, second):
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass


def is_network_type(kind: str) -> bool:
    return kind in NETWORK_TYPES or (kind.startswith("fuse.") and kind not in LOCAL_FUSE_TYPES)


def file_system_type(directory: str) -> str | None:
    """Type of the mount that holds `directory`, None where the system does not tell.

    Source: proc(5), /proc/pid/mountinfo.
    """
    try:
        with open(_MOUNT_INFO, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return None
    return type_in_mounts(os.path.realpath(directory), lines)


def type_in_mounts(path: str, mountinfo: list[str]) -> str | None:
    """The type of the deepest mount point above `path`; of two on one point the later covers."""
    best, found = -1, None
    for line in mountinfo:
        left, separator, right = line.partition(" - ")
        if not separator:
            continue
        point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), left.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), right.split()[0]
    return found


def _fsync(fd: int, directory: str) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise UnsuitableStore(
            f"{directory}: fsync does not work there ({error.strerror}): use another disk"
        ) from error


def _require_atomic_link(first: str, second: str, directory: str) -> None:
    try:
        os.link(first, second)
    except OSError as error:
        raise UnsuitableStore(
            f"{directory}: this file system has no hard links ({error.strerror}), by which objects "
            "are created atomically: use ext4, xfs, btrfs, zfs or apfs"
        ) from error
    try:
        os.link(first, second)
    except FileExistsError:
        return
    raise UnsuitableStore(f"{directory}: link() replaces an existing file: use another file system")
