"""What is wrong with the store at the moment: told once when it lasts, once when it ends.

A request that fails now and then is the store's everyday life, and repeated without a word. What
lasts for `GRACE_S` is trouble: `/readyz` says it of each part that cannot write, and the log says
it once, not once for each part; again only where something else must be done about it.
"""

from __future__ import annotations

import asyncio
import logging

from objectstore.errors import (
    AccessDenied,
    BucketMissing,
    Corrupt,
    StoreError,
    Throttled,
    UnsuitableStore,
)

log = logging.getLogger(__name__)

GRACE_S = 2.0


def advice(error: StoreError) -> str:
    """What an operator can do about it."""
    if isinstance(error, BucketMissing):
        return "create the bucket again, or point --store at the one that holds the cluster"
    if isinstance(error, AccessDenied):
        return "check the credentials and the bucket's policy; `headwater doctor` tells more"
    if isinstance(error, Throttled):
        return "the store asks for fewer requests; producers wait meanwhile"
    if isinstance(error, Corrupt):
        return "run `headwater verify` to see what is damaged"
    if isinstance(error, UnsuitableStore):
        return "use a store that honours conditional creates"
    return "check that the store is up and reachable, and has room; it is tried again"


class Trouble:
    """Reasons by the part that has them. Only on a running loop."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        """Why a write cannot be acknowledged now, by part."""
        self._met: dict[str, tuple[StoreError, bool]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._lasting: dict[str, None] = {}
        self._advised: dict[str, None] = {}

    def tell(self, part: str, error: StoreError | None, *, blocks: bool = True) -> None:
        """error: what `part` met last; None: it is well again.

        blocks: no write can be acknowledged while it lasts.
        """
        if error is None:
            self._healed(part)
            return
        self._met[part] = (error, blocks)
        if part in self._lasting:
            self._lasts(part)
        elif part not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[part] = loop.call_later(GRACE_S, self._lasts, part)

    def close(self) -> None:
        """Tell nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _lasts(self, part: str) -> None:
        self._timers.pop(part, None)
        self._lasting[part] = None
        error, blocks = self._met[part]
        what = advice(error)
        text = f"{part} cannot be written: {error}; {what}"
        if blocks:
            self.reasons[part] = text
        if what not in self._advised:
            self._advised[what] = None
            log.warning("%s", text)

    def _healed(self, part: str) -> None:
        self._met.pop(part, None)
        timer = self._timers.pop(part, None)
        if timer is not None:
            timer.cancel()
        self.reasons.pop(part, None)
        if part in self._lasting:
            del self._lasting[part]
            if not self._lasting:
                self._advised.clear()
                log.warning("the store can be written again")
