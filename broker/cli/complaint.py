"""A command's one line to stderr."""

from __future__ import annotations

import sys


def complain(command: str, message: str, status: int) -> int:
    """The status, for a return."""
    print(f"headwater {command}: {message}", file=sys.stderr, flush=True)
    return status
