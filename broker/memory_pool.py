"""Admission of request frames: memory is reserved by the announced length before a byte is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class MemoryPool:
    """A bound on the bytes of frames that are being received or answered.

    - No address holds more than an eighth of the bound; one frame larger than that may be held in
      the whole broker at a time.
    - Frames of at most `small_bytes` may also use a reserve that larger ones never take, so that
      heartbeats and metadata go on while producers wait.

    Nothing here awaits: who cannot be admitted leaves a callback, called first come, first served.
    """

    def __init__(self, limit_bytes: int, small_bytes: int = 16 * 1024) -> None:
        assert limit_bytes > 0, limit_bytes
        self.limit_bytes = limit_bytes
        self.small_bytes = small_bytes
        self.reserve_bytes = max(limit_bytes // 16, 64 * small_bytes)
        self.share_bytes = max(limit_bytes // 8, small_bytes)
        self.used_bytes = 0
        self._held: dict[str, int] = {}
        self._large_owner: str | None = None
        self._waiting: deque[tuple[str, int, Callable[[], None]]] = deque()

    def try_reserve(self, owner: str, size_bytes: int) -> bool:
        """Take `size_bytes` for `owner` (a client's address); False when it does not fit now."""
        if size_bytes > self.share_bytes:
            if self._large_owner is not None:
                return False
            if self.used_bytes and self.used_bytes + size_bytes > self.limit_bytes:
                return False
            self._large_owner = owner
        else:
            limit = self.limit_bytes
            if size_bytes <= self.small_bytes:
                limit += self.reserve_bytes
            held = self._held.get(owner, 0)
            if self.used_bytes + size_bytes > limit or held + size_bytes > self.share_bytes:
                return False
            self._held[owner] = held + size_bytes
        self.used_bytes += size_bytes
        return True

    def wait(self, owner: str, size_bytes: int, retry: Callable[[], None]) -> None:
        """Call `retry` once when something was released that may let `size_bytes` in."""
        self._waiting.append((owner, size_bytes, retry))

    def forget(self, retry: Callable[[], None]) -> None:
        """Drop a waiter whose connection is gone."""
        self._waiting = deque(w for w in self._waiting if w[2] != retry)

    def release(self, owner: str, size_bytes: int) -> None:
        """Give back what `try_reserve` took."""
        self.used_bytes -= size_bytes
        assert self.used_bytes >= 0, self.used_bytes
        if size_bytes > self.share_bytes:
            self._large_owner = None
        else:
            left = self._held[owner] - size_bytes
            assert left >= 0, (owner, left)
            if left:
                self._held[owner] = left
            else:
                del self._held[owner]
        # Everybody looks again, in order of arrival: one that still does not fit waits anew, and
        # does not keep a smaller one, or one of another address, behind it.
        waiting, self._waiting = self._waiting, deque()
        for _, _, retry in waiting:
            retry()
