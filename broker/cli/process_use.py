"""What this process takes of its machine, as the system tells it."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

from broker.cluster.load import ProcessUse

_STATM = Path("/proc/self/statm")


def process_use() -> ProcessUse:
    """Cheap: asked every few seconds."""
    try:
        # Source: proc(5): pages, the second figure is what is resident.
        resident = int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        # No such file: the most that there ever was.
        unit = 1 if sys.platform == "darwin" else 1024
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return ProcessUse(time.process_time(), resident)
