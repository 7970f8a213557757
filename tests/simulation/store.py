"""A bucket under the simulated loop, with everything that a store may do to a client.

The fault model. A request has two legs and, between them, one instant at which it happens; that
instant belongs to the store, so neither a crash nor a cancellation of the client undoes it.

    before      an error, and nothing happened                 (StoreUnavailable)
    throttled   the same, politely                             (Throttled)
    lost_reply  it happened, and the client gets an error      (StoreUnavailable)
    conflict    a create is refused though nothing is there (409)  (PreconditionFailed)
    late        the client gets an error; it happens later, at any time up to `late_max_s`; told
                apart in `fired` where that was after its key was deleted (late_after_trim)
    hang        no answer for `hang_s`, then an error; it happened or not, or will happen late
    slow        a leg takes up to `slow_s`
    outage      every request fails, from `outage` until it is over
    missing     the same, and the store says that there is no bucket   (BucketMissing)
    cut off     the same for one node; or only the answers are lost on their way to it

The bytes of a late or slow request are those at the time of sending. Reads know only before,
throttled, hang and slow. LIST goes in pages, and the world moves between two of them.
"""

from __future__ import annotations

import asyncio
import builtins
import contextvars
import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random
from typing import Any, TypeVar

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import (
    BucketMissing,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
    Throttled,
)
from objectstore.store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo

from .loop import NODE, SimulatedLoop

T = TypeVar("T")

WRITE_FAULTS = ("before", "throttled", "lost_reply", "late", "hang", "conflict")
LATE_SOON_S = 0.15


@dataclass(frozen=True)
class Weather:
    """Chances per request (0 to 1), and times in seconds."""

    before: float = 0.0
    throttled: float = 0.0
    lost_reply: float = 0.0
    late: float = 0.0
    hang: float = 0.0
    slow: float = 0.0
    conflict: float = 0.0
    leg_s: tuple[float, float] = (0.0005, 0.010)
    slow_s: float = 2.0
    hang_s: float = 5.0
    late_max_s: float = 600.0
    page_rows: int = 7
    late_soon: float = 0.0
    """Chance that a late write lands within `LATE_SOON_S`, about when the client tries again."""


FAIR = Weather()
ROUGH = Weather(
    before=0.03,
    throttled=0.02,
    lost_reply=0.04,
    late=0.03,
    hang=0.01,
    slow=0.05,
    conflict=0.01,
    leg_s=(0.0, 0.05),
)


@dataclass
class Rule:
    """The next `times` requests of `op` whose key matches meet `fault`; `node` "*" is anybody."""

    fault: str
    op: str
    key: str
    times: int = 1
    node: str = "*"
    after_s: float | None = None
    """late: when it lands; None: when `land_late` is called."""


class SimulatedStore(ObjectStore):
    """One bucket. `inner` is its truth, for checkers. fired: faults that happened, by kind."""

    def __init__(self, loop: SimulatedLoop, rng: Random, weather: Weather = FAIR) -> None:
        self.loop = loop
        self.weather = weather
        self.inner = MemoryStore(loop.now_ms)
        self.fired: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.on_landed: Callable[[str, str, str], None] | None = None
        """Called with op, key and the node that sent it at the instant a write happens."""
        self._rng = rng
        self._rules: builtins.list[Rule] = []
        self.missing_at = -math.inf
        """Loop time at which the bucket was last said to be missing."""
        self.about_to_send: Callable[[str, str], bool] | None = None
        """Called with op and key before a write is sent; True: it has paused the node."""
        self._deleted: set[str] = set()
        self._down = ""
        self._cut_off: dict[str, str] = {}
        self._slowed: dict[str, float] = {}
        self._waiting_late: builtins.list[tuple[str, Callable[[], None]]] = []

    # Steering.

    def rule(self, fault: str, op: str, key: str, **how: object) -> Rule:
        made = Rule(fault, op, key, **how)  # type: ignore[arg-type]
        self._rules.append(made)
        return made

    def lose_reply(self, key: str, times: int = 1) -> None:
        self.rule("lost_reply", "create", key, times=times)

    def outage(self, for_s: float | None = None, kind: str = "before") -> None:
        """Until `recover`, or for a time. kind: "missing" for a bucket that is not there."""
        self._down = kind
        self.loop.record(f"store outage {kind}")
        if for_s is not None:
            self.loop.call_later(for_s, self.recover, context=contextvars.Context())

    def cut_off(self, node: str, for_s: float, *, answers_only: bool = False) -> None:
        """One node does not reach the store, or does not hear from it."""
        self._cut_off[node] = "lost_reply" if answers_only else "before"
        self.loop.record(f"store cut off from {node}")
        self.loop.call_later(for_s, self._cut_off.pop, node, None, context=contextvars.Context())

    def slow_down(self, node: str, slow_s: float, for_s: float) -> None:
        """Each request of one node takes up to `slow_s` longer."""
        self._slowed[node] = slow_s
        self.loop.record(f"store slow for {node}")
        self.loop.call_later(for_s, self._slowed.pop, node, None, context=contextvars.Context())

    def recover(self) -> None:
        self._down = ""
        self._cut_off.clear()
        self._slowed.clear()
        self.loop.record("store recovers")

    def land_late(self, pattern: str = "*") -> int:
        """Writes that were given up, and wait for this, happen now; how many."""
        due = [item for item in self._waiting_late if fnmatchcase(item[0], pattern)]
        self._waiting_late = [item for item in self._waiting_late if item not in due]
        for _, land in due:
            land()
        return len(due)

    # The interface.

    async def create(self, key: str, chunks: Chunks) -> None:
        data = b"".join(chunks)
        await self._write("create", key, lambda: self.inner.put_now(key, (data,)))

    async def delete(self, keys: Sequence[str]) -> None:
        def act() -> None:
            _now(self.inner.delete(list(keys)))
            self._deleted.update(keys)

        await self._write("delete", ",".join(keys), act)

    async def get(self, key: str) -> bytes:
        return await self._read("get", key, lambda: _now(self.inner.get(key)))

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        return await self._read("get", key, lambda: _now(self.inner.get_ranges(key, ranges)))

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        after = start_after
        while True:
            page = await self._read("list", prefix, lambda: self._page(prefix, after))  # noqa: B023
            for row in page:
                yield row
            if len(page) < self.weather.page_rows:
                return
            after = page[-1].key

    async def start_upload(self, key: str) -> Upload:
        upload = await self._read("start", key, lambda: _now(self.inner.start_upload(key)))
        return _SimulatedUpload(self, key, upload)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        return await self._read("list", prefix, lambda: _now(self.inner.list_uploads(prefix)))

    async def abort_upload(self, upload: UploadInfo) -> None:
        await self._write("abort", upload.key, lambda: _now(self.inner.abort_upload(upload)))

    async def date_ms(self) -> int:
        return await self._read("date", "", self.loop.now_ms)

    async def close(self) -> None:
        await asyncio.sleep(0)

    # How a request goes.

    def _page(self, prefix: str, after: str) -> builtins.list[ObjectInfo]:
        return _now(_take(self.inner.list(prefix, after), self.weather.page_rows))

    async def _read(self, op: str, key: str, act: Callable[[], T]) -> T:
        fault = self._draw(op, key, ("before", "throttled", "hang"))
        await asyncio.sleep(self._leg_s())
        if fault is not None:
            self._fire(fault.fault, op, key)
            if fault.fault == "hang":
                await asyncio.sleep(self.weather.hang_s)
            raise _error_of(fault.fault, op, key)
        result = act()
        await asyncio.sleep(self._leg_s())
        return result

    async def _write(self, op: str, key: str, act: Callable[[], None]) -> None:
        if self.about_to_send is not None and self.about_to_send(op, key):
            # Composed, not sent: nobody but the sleeper knows of it.
            self._fire("pause_before_sending", op, key)
            await asyncio.sleep(0)
        kinds = WRITE_FAULTS if op == "create" else WRITE_FAULTS[:-1]
        fault = self._draw(op, key, kinds)
        kind = "" if fault is None else fault.fault
        reply: asyncio.Future[StoreError | None] = self.loop.create_future()
        node = NODE.get()

        def land() -> None:
            error: StoreError | None = None
            try:
                act()
            except StoreError as met:
                error = met
            if error is None and kind in ("late", "hang") and key in self._deleted:
                self._fire("late_after_trim", op, key)
            outcome = "412" if isinstance(error, PreconditionFailed) else "done"
            self.loop.record(f"store {op} {key} by {node}: {outcome} {kind}")
            if error is None and self.on_landed is not None:
                self.on_landed(op, key, node)
            if kind not in ("late", "hang", "lost_reply"):
                self._later(self._leg_s(), lambda: _answer(reply, error))

        if kind in ("", "lost_reply"):
            self._later(self._leg_s(), land)
        if fault is not None:
            self._fire(kind, op, key)
            wait_s = self._leg_s() + (self.weather.hang_s if kind == "hang" else 0.0)
            if kind == "late" and fault.after_s is None:
                self._waiting_late.append((key, land))
            elif kind == "late" and fault.after_s is not None:
                self._later(fault.after_s, land)
            elif kind == "hang" and self._rng.random() < 0.6:
                self._later(self._rng.uniform(0, 2 * self.weather.hang_s), land)
            elif kind == "lost_reply":
                wait_s += 2 * self.weather.leg_s[1]
            self._later(wait_s, lambda: _answer(reply, _error_of(kind, op, key)))
        error = await reply
        if error is not None:
            raise error

    def _draw(self, op: str, key: str, kinds: tuple[str, ...]) -> Rule | None:
        self.requests[op] += 1
        if self._down:
            if self._down == "missing":
                self.missing_at = self.loop.time()
            return Rule(self._down, op, key)
        if self._cut_off and (fault := self._cut_off.get(NODE.get())) is not None:
            return Rule(fault if fault in kinds else "before", op, key)
        for rule in self._rules:
            mine = rule.op == op and fnmatchcase(key, rule.key) and rule.times > 0
            if mine and fnmatchcase(NODE.get(), rule.node) and rule.fault in kinds:
                rule.times -= 1
                return rule
        dice = self._rng.random()
        for kind in kinds:
            chance: float = getattr(self.weather, kind)
            if dice < chance:
                # Most land soon; some when nobody remembers them.
                after_s = self.weather.late_max_s * self._rng.random() ** 4
                if self.weather.late_soon and self._rng.random() < self.weather.late_soon:
                    after_s = self._rng.uniform(0.0, LATE_SOON_S)
                return Rule(kind, op, key, after_s=after_s)
            dice -= chance
        return None

    def _fire(self, kind: str, op: str, key: str) -> None:
        self.fired[kind] += 1
        self.loop.record(f"fault {kind} {op} {key}")

    def _leg_s(self) -> float:
        if self._slowed and (slow_s := self._slowed.get(NODE.get())) is not None:
            return self._rng.uniform(0, slow_s)
        if self.weather.slow and self._rng.random() < self.weather.slow:
            self.fired["slow"] += 1
            return self._rng.uniform(0, self.weather.slow_s)
        return self._rng.uniform(*self.weather.leg_s)

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        # In a context of its own: what is under way outlives its node.
        self.loop.call_later(delay_s, act, context=contextvars.Context())


class _SimulatedUpload(Upload):
    def __init__(self, store: SimulatedStore, key: str, inner: Upload) -> None:
        self._store = store
        self._key = key
        self._inner = inner

    async def part(self, chunks: Chunks) -> None:
        data = b"".join(chunks)
        await self._store._read("part", self._key, lambda: _now(self._inner.part((data,))))

    async def complete(self) -> None:
        await self._store._write("complete", self._key, lambda: _now(self._inner.complete()))

    async def abort(self) -> None:
        await self._store._write("abort", self._key, lambda: _now(self._inner.abort()))


def _error_of(fault: str, op: str, key: str) -> StoreError:
    if fault == "missing":
        return BucketMissing(f"{op} {key}: simulated 404 NoSuchBucket")
    if fault == "conflict":
        return PreconditionFailed(f"{op} {key}: simulated 409 ConditionalRequestConflict")
    if fault == "throttled":
        return Throttled(f"{op} {key}: simulated 503 SlowDown")
    return StoreUnavailable(f"{op} {key}: simulated {fault}")


def _answer(reply: asyncio.Future[StoreError | None], error: StoreError | None) -> None:
    if not reply.done():
        reply.set_result(error)


def _now(coro: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the memory store, which never suspends."""
    try:
        coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the memory store suspended")


async def _take(rows: AsyncIterator[ObjectInfo], count: int) -> list[ObjectInfo]:
    taken: list[ObjectInfo] = []
    async for row in rows:
        taken.append(row)
        if len(taken) == count:
            break
    if isinstance(rows, AsyncGenerator):
        await rows.aclose()
    return taken
