"""How well a broker is, by figures of its own; told in each heartbeat.

Alive and answering is not well: a broker whose way to the store is slow, whose memory is full or
whose disk hangs serves its clients badly, and others could do it better. Each figure is an age,
of the oldest thing that has not come to its end, so that a thing that hangs shows while it does.
The loop's lag is told by the heartbeats themselves.

Nothing is measured between heartbeats. Who is called sick, and has perhaps nothing more to do by
which that could change, asks the store a little each second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

import msgspec

from objectstore.errors import StoreError
from wal.errors import LogError

# Bad from here on, in seconds. An object of 8 MiB, or a wide pipe of them, takes less by far.
STORE_S = 1.5
LAG_S = 1.0
MEMORY_S = 5.0
DISK_S = 2.0
# And this is no moment's trouble any more.
GRAVE_S = 4.0
# Writes that are slow one after the other are not slow at each heartbeat: the worst of so long.
RECENT_S = 3.0
ASK_EACH_S = 1.0


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of one broker. serving: its start is finished. Ages in milliseconds; 0: nothing is under way.

    store_ms: of the oldest write of the log that the store has not answered, now or a moment ago.
    memory_ms: since when
    requests have waited for memory, and none was let in. disk_ms: of a call to the cache's disk.
    """

    serving: bool = True
    store_ms: int = 0
    memory_ms: int = 0
    disk_ms: int = 0

    def complaint(self, lag_s: float = 0.0) -> str:
        """What is bad; "": nothing."""
        if self.store_ms >= STORE_S * 1000:
            return f"the store has not answered it for {self.store_ms / 1000:.1f} s"
        if lag_s >= LAG_S:
            return f"its loop is {lag_s:.1f} s late"
        if self.memory_ms >= MEMORY_S * 1000:
            return f"its memory for requests has been full for {self.memory_ms / 1000:.1f} s"
        if self.disk_ms >= DISK_S * 1000:
            return f"the disk of its cache has not answered for {self.disk_ms / 1000:.1f} s"
        return ""

    def is_grave(self, lag_s: float = 0.0) -> bool:
        return max(self.store_ms / 1000, lag_s) >= GRAVE_S


class Symptoms(Protocol):
    """What is looked at, in a node that may have only begun to start."""

    @property
    def is_serving(self) -> bool: ...

    @property
    def oldest_put_s(self) -> float: ...

    @property
    def waits_for_memory(self) -> object | None:
        """Who is next to be given memory, and is not; None: nobody waits."""

    @property
    def disk_call(self) -> object | None:
        """The oldest call to the cache's disk that is not done; None: none is."""

    def ask_store(self) -> Awaitable[None]:
        """One small request. Raises StoreError, LogError."""


class _Same:
    """For how long the same thing has been seen."""

    def __init__(self) -> None:
        self._seen: object | None = None
        self._since = 0.0

    def for_s(self, seen: object | None, now: float) -> float:
        if seen is not self._seen:
            self._seen, self._since = seen, now
        return 0.0 if seen is None else now - self._since


class Wellness:
    """Of one process."""

    def __init__(self, symptoms: Symptoms) -> None:
        self._symptoms = symptoms
        self._memory = _Same()
        self._disk = _Same()
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = float("-inf")
        self._failed_since: float | None = None
        self._slow_until = float("-inf")

    def __call__(self) -> Health:
        """As of now."""
        now = asyncio.get_running_loop().time()
        symptoms = self._symptoms
        store_s = symptoms.oldest_put_s
        if self._asking is not None and not self._asking.done():
            store_s = max(store_s, now - self._asked_at)
        if self._failed_since is not None:
            store_s = max(store_s, now - self._failed_since)
        if store_s < STORE_S and now < self._slow_until:
            store_s = STORE_S
        elif store_s >= STORE_S:
            self._slow_until = now + RECENT_S
        return Health(
            symptoms.is_serving,
            round(store_s * 1000),
            round(self._memory.for_s(symptoms.waits_for_memory, now) * 1000),
            round(self._disk.for_s(symptoms.disk_call, now) * 1000),
        )

    def called_sick(self) -> None:
        """By the one who decides: find out whether the store answers by now."""
        now = asyncio.get_running_loop().time()
        if self._asking is not None and not self._asking.done():
            return
        if now - self._asked_at >= ASK_EACH_S:
            self._asked_at = now
            self._asking = asyncio.create_task(self._ask(now), name="ask-store")

    def called_fit(self) -> None:
        self._failed_since = None

    async def _ask(self, now: float) -> None:
        try:
            await self._symptoms.ask_store()
        except (StoreError, LogError, TimeoutError):
            self._failed_since = now if self._failed_since is None else self._failed_since
        else:
            self._failed_since = None

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
