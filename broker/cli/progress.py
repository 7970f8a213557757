"""How far a command is, on a terminal."""

from __future__ import annotations

import sys
import time


class Bar:
    """Progress on a terminal's standard error, redrawn at most ten times a second."""

    def __init__(self, *, quiet: bool) -> None:
        self._on = not quiet and sys.stderr.isatty()
        self._drawn_at = 0.0

    def show(self, done: int, whole: int) -> None:
        now = time.monotonic()
        if not self._on or (now - self._drawn_at < 0.1 and done < whole):
            return
        self._drawn_at = now
        filled = 40 * done // max(1, whole)
        print(
            f"\r[{'#' * filled}{'.' * (40 - filled)}] {done >> 20} of {whole >> 20} MiB",
            end="",
            file=sys.stderr,
            flush=True,
        )

    def end(self) -> None:
        if self._on and self._drawn_at:
            print(file=sys.stderr)
