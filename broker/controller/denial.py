"""A start that may not write stops and says so; one refusal alone is no proof of that.

MinIO answers 403 to a PUT whose folder was just emptied by somebody else, and new credentials take
a moment to be known everywhere. So a refusal counts when it lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from objectstore.create import OnTrouble
from objectstore.errors import AccessDenied, BucketMissing, StoreError

log = logging.getLogger(__name__)

# Attempts at one request, and how long those in the background are watched, in seconds.
ATTEMPTS = 3
GRACE_S = 1.0
# Attempts at one key that fail before the log tells of it: after some two seconds.
TELL_AFTER = 8

T = TypeVar("T")


def is_definite(error: AccessDenied, attempts: int) -> bool:
    """attempts: so many, this one included, were refused."""
    return attempts >= ATTEMPTS or isinstance(error, BucketMissing)


def stop_when_denied() -> OnTrouble:
    """For one call that waits trouble out: raises AccessDenied where a key is refused for good,
    and tells, once, of what else lasts (a disk may be full while reading goes well).
    """
    failed: dict[str, int] = {}
    refused: dict[str, int] = {}
    told: list[str] = []

    def on_trouble(key: str, error: StoreError) -> None:
        failed[key] = failed.get(key, 0) + 1
        if isinstance(error, AccessDenied):
            refused[key] = refused.get(key, 0) + 1
            if is_definite(error, refused[key]):
                raise error
        else:
            refused.pop(key, None)
        if failed[key] == TELL_AFTER and not told:
            told.append(key)
            log.warning("the start waits for the store: %s; trying again until it answers", error)

    return on_trouble


class Denial:
    """Watches what writes in the background while something waits for it."""

    def __init__(self) -> None:
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._denied: asyncio.Future[None] | None = None

    def note(self, part: str, error: StoreError | None) -> None:
        """What `part` met last; None: it is well again. Ignored while nothing is guarded."""
        if self._denied is None or self._denied.done():
            return
        if not isinstance(error, AccessDenied):
            timer = self._timers.pop(part, None)
            if timer is not None:
                timer.cancel()
        elif isinstance(error, BucketMissing):
            self._denied.set_exception(error)
        elif part not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[part] = loop.call_later(GRACE_S, self._lasts, error)

    def _lasts(self, error: AccessDenied) -> None:
        if self._denied is not None and not self._denied.done():
            self._denied.set_exception(error)

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`, cancelled when a refusal lasts: raises AccessDenied then. Once at a time."""
        assert self._denied is None, "one guard at a time"
        self._denied = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._denied), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._denied.result()
            return await task
        finally:
            denied, self._denied = self._denied, None
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            if denied.done():
                denied.exception()
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
                if not task.cancelled():
                    task.exception()
