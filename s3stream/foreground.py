"""How busy clients keep a broker: what can wait, waits for a calm moment.

A leaky bucket over the bytes that clients cause: it runs out at the rate up to which they leave
the machine and the store enough for other work. Above it they are alone, but not for ever: what
waits grows as long as they go on.
"""

from __future__ import annotations

# What is held in the bucket when others begin to wait, and at most; in seconds of its rate.
_BUSY_FROM_S = 1.0
_FULL_S = 2.0


class Foreground:
    """busy_bytes_per_s: more is busy. patience_s: after as long without a calm moment others go
    all the same, within budgets of their own. Times: loop seconds.
    """

    def __init__(self, busy_bytes_per_s: float, patience_s: float) -> None:
        self._rate = busy_bytes_per_s
        self._patience_s = patience_s
        self._level_s = 0.0
        self._at = 0.0
        self._busy_since: float | None = None

    def note(self, now: float, size_bytes: int) -> None:
        """Clients wrote or read so much."""
        self._drain(now)
        self._level_s = min(_FULL_S, self._level_s + size_bytes / self._rate)
        if self._level_s > _BUSY_FROM_S and self._busy_since is None:
            self._busy_since = now

    def put_off_s(self, now: float) -> float:
        """Seconds after which to ask again; 0: go."""
        self._drain(now)
        if self._busy_since is None or now - self._busy_since >= self._patience_s:
            return 0.0
        # Not less than a moment: rounding must not make the asker turn on the spot.
        return max(0.01, self._level_s - _BUSY_FROM_S)

    def _drain(self, now: float) -> None:
        self._level_s = max(0.0, self._level_s - (now - self._at))
        self._at = now
        if self._level_s <= _BUSY_FROM_S:
            self._busy_since = None
