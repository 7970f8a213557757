"""What a broker keeps in memory, over all of its processes, watched while something goes on."""

from __future__ import annotations

import threading
from pathlib import Path

MIB = 1 << 20


def resident_bytes(pid: int) -> int:
    """Of a process and all that it started; 0 for those that have ended."""
    return sum(_own_bytes(each) for each in _with_children(pid))


def _with_children(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _with_children(int(child)))]


def _own_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


class MemoryWatch:
    """The most that was resident between `with` and its end, looked at twenty times a second."""

    def __init__(self, pid: int) -> None:
        self.before_bytes = resident_bytes(pid)
        self.most_bytes = self.before_bytes
        self._pid = pid
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def grown_bytes(self) -> int:
        return self.most_bytes - self.before_bytes

    def _look(self) -> None:
        while not self._stopping.wait(0.05):
            self.most_bytes = max(self.most_bytes, resident_bytes(self._pid))

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def __str__(self) -> str:
        return f"{self.before_bytes / MIB:.0f} MiB before, at most {self.most_bytes / MIB:.0f} MiB"
