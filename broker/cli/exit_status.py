"""What the exit status of `headwater` tells; operators' scripts depend on it."""

from __future__ import annotations

OK = 0
FAILED = 1  # the message says why; also: `verify` and `doctor` found a fault
USAGE = 2  # an unknown flag, key or impossible value; a busy port
REPLACED = 75  # another process took this broker's place: do not start it again by itself
ENDED_AT_ONCE = 130  # by a second signal
