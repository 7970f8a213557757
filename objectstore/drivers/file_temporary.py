"""Names of temporary files: whose they are, so that those of dead processes can be swept.

    .hw-<pid>-<start>-<n>.tmp            a create under way
    .hw-<pid>-<start>-<n>-<last>.upload  a multipart upload; <last> is the key's last segment

pid and start (clock ticks from boot, 0 where the system does not tell) name one process; n counts
its files.
Source: proc(5), /proc/pid/stat, field 22.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from dataclasses import dataclass

PREFIX = ".hw-"
_NAME = re.compile(r"\.hw-(\d+)-(\d+)-(\d+)(?:-(.+)\.upload|\.tmp)")
# One count for the whole process: two drivers on one directory must not meet.
_count = itertools.count()


@dataclass(frozen=True, slots=True)
class TemporaryName:
    """A parsed name. upload_of: the key's last segment, None for a plain create."""

    pid: int
    start: int
    upload_of: str | None

    def owner_is_gone(self) -> bool:
        """True when no process has this pid and start time.

        A process of another pid namespace looks gone too. That costs it a repeated attempt and
        nothing else: linking a swept file fails, and the create is sent again.
        """
        if self.pid == os.getpid():
            return self.start != _start_of(self.pid)
        found = _start_of(self.pid)
        return found is None or found != self.start


def new_name(upload_of: str | None = None) -> str:
    base = f"{PREFIX}{_this_process(os.getpid())}-{next(_count)}"
    return f"{base}.tmp" if upload_of is None else f"{base}-{upload_of}.upload"


@functools.lru_cache(maxsize=1)
def _this_process(pid: int) -> str:
    """Asked for with each file; a fork's child has another pid."""
    return f"{pid}-{_start_of(pid) or 0}"


def parse_name(name: str) -> TemporaryName | None:
    """None where `name` is not of this kind."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return TemporaryName(int(match[1]), int(match[2]), match[4])


def _start_of(pid: int) -> int | None:
    """Start time of a running process, 0 where only its being there is known, None if gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command, in parentheses, may hold blanks and parentheses itself.
            fields = file.read().rpartition(b")")[2].split()
        return int(fields[19])
    except (OSError, IndexError, ValueError):
        if os.path.exists("/proc/self/stat"):
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0
