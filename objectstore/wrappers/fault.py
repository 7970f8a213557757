"""Faults on purpose: what a store, a network and a crash can do to one request, as plain data.

The fault model, for every request that a rule matches:

    ERROR_BEFORE   the store did nothing, the caller gets an error
    THROTTLE       the same, as Throttled
    ERROR_AFTER    it was done, the reply is lost
    LATENCY        it takes longer; the deed happens at a random moment of the delay
    HANG           nothing is done and nothing answers until the driver's time-out
    LATE_LANDING   the caller gets a time-out, the deed is done later: seconds or hours
    CANCELLED      the caller went away in mid-request; the deed may be done later all the same

Time is the running loop's and randomness the generator's, so under a simulated loop a seed repeats.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from random import Random
from typing import Any, TypeVar

from ..errors import StoreError, StoreUnavailable, Throttled
from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from .passing import PassingStore

T = TypeVar("T")
WRITES = frozenset({"create", "complete", "delete"})
PAGE_ROWS = 1000


class FaultKind(StrEnum):
    ERROR_BEFORE = "error-before"
    ERROR_AFTER = "error-after"
    THROTTLE = "throttle"
    LATENCY = "latency"
    HANG = "hang"
    LATE_LANDING = "late-landing"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class FaultRule:
    """What happens, where, and how often.

    operations: `ObjectStore` methods, and those of `Upload`: part, complete, abort; empty: all.
    key: a glob; `*` passes over `/` too. A delete and a listing match by any key, by the prefix.
    probability: per matching request. skip: matching requests let through first. times: how often
    it fires at most; None: without end.
    delay_s: LATENCY: how long, drawn from this range; LATE_LANDING: how long after the time-out.
    timeout_s: HANG and LATE_LANDING: when the caller gets its error.
    error: class of the error told by ERROR_BEFORE and ERROR_AFTER.
    """

    kind: FaultKind
    operations: tuple[str, ...] = ()
    key: str = "*"
    probability: float = 1.0
    skip: int = 0
    times: int | None = None
    delay_s: tuple[float, float] = (0.0, 0.0)
    timeout_s: float = 10.0
    error: type[StoreError] = StoreUnavailable


@dataclass(eq=False)
class ArmedRule:
    """A rule in force: how many requests it matched, and how often it fired."""

    rule: FaultRule
    matched: int = 0
    fired: int = 0


@dataclass(frozen=True)
class _Plan:
    before_s: float = 0.0
    after_s: float = 0.0
    stop: FaultRule | None = None


@dataclass
class FaultCounts:
    """Faults that happened, by kind."""

    by_kind: dict[FaultKind, int] = field(default_factory=lambda: dict.fromkeys(FaultKind, 0))

    def __getitem__(self, kind: FaultKind) -> int:
        return self.by_kind[kind]


class FaultStore(PassingStore):
    """A store with faults. Requests that land late are tasks of this object: see `close`.

    cancelled_lands: probability that a write whose caller was cancelled is done all the same,
    after a delay drawn from cancelled_delay_s.
    """

    def __init__(
        self,
        inner: ObjectStore,
        rng: Random,
        rules: Sequence[FaultRule] = (),
        *,
        cancelled_lands: float = 0.5,
        cancelled_delay_s: tuple[float, float] = (0.0, 30.0),
    ) -> None:
        super().__init__(inner)
        self._rng = rng
        self._rules: list[ArmedRule] = []
        self._cancelled_lands = cancelled_lands
        self._cancelled_delay_s = cancelled_delay_s
        self._late: dict[asyncio.Task[None], None] = {}  # ordered, unlike a set
        self.fired = FaultCounts()
        for rule in rules:
            self.arm(rule)

    def arm(self, rule: FaultRule) -> ArmedRule:
        """Put a rule in force, after those that are."""
        armed = ArmedRule(rule)
        self._rules.append(armed)
        return armed

    def disarm(self, armed: ArmedRule) -> None:
        self._rules = [other for other in self._rules if other is not armed]

    def lose_reply(self, key: str = "*", times: int | None = 1) -> ArmedRule:
        """The next creates of `key` happen, and their callers hear of trouble."""
        return self.arm(FaultRule(FaultKind.ERROR_AFTER, ("create",), key, times=times))

    @property
    def landing(self) -> int:
        """How many writes are still to land."""
        return len(self._late)

    async def settle(self) -> None:
        """Wait until every late write has landed."""
        while self._late:
            await asyncio.gather(*self._late)

    async def close(self) -> None:
        """Late writes that have not landed never will; the store below is closed too."""
        late = [*self._late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        await super().close()

    # --- requests ---

    async def create(self, key: str, chunks: Chunks) -> None:
        # As sent: a late landing must not see what the caller does with its buffers later.
        body = b"".join(chunks)
        await self.request("create", (key,), lambda: self.inner.create(key, [body]))

    async def get(self, key: str) -> bytes:
        return await self.request("get", (key,), lambda: self.inner.get(key))

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        wanted = tuple(ranges)
        return await self.request("get_ranges", (key,), lambda: self.inner.get_ranges(key, wanted))

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        count = 0
        rows = self.inner.list(prefix, start_after)
        await self.request("list", (prefix,), _nothing)
        async for info in rows:
            count += 1
            if count % PAGE_ROWS == 0:
                await self.request("list", (prefix,), _nothing)
            yield info

    async def delete(self, keys: Sequence[str]) -> None:
        wanted = tuple(keys)
        await self.request("delete", wanted, lambda: self.inner.delete(wanted))

    async def start_upload(self, key: str) -> Upload:
        upload = await self.request("start_upload", (key,), lambda: self.inner.start_upload(key))
        return _FaultUpload(self, key, upload)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        return await self.request(
            "list_uploads", (prefix,), lambda: self.inner.list_uploads(prefix)
        )

    async def abort_upload(self, upload: UploadInfo) -> None:
        await self.request("abort_upload", (upload.key,), lambda: self.inner.abort_upload(upload))

    async def date_ms(self) -> int:
        return await self.request("date_ms", ("",), self.inner.date_ms)

    async def request(
        self, operation: str, keys: tuple[str, ...], run: Callable[[], Awaitable[T]]
    ) -> T:
        """`run` the request as the rules in force will have it."""
        plan = self._plan(operation, keys)
        what = f"{operation} {keys[0] if keys else ''}"
        try:
            return await self._carry_out(plan, what, run)
        except asyncio.CancelledError:
            # A late landing has its task already; anything else of a write is still under way.
            stop = plan.stop.kind if plan.stop else None
            on_its_way = stop in (None, FaultKind.LATENCY, FaultKind.ERROR_AFTER)
            if operation in WRITES and on_its_way:
                self.fired.by_kind[FaultKind.CANCELLED] += 1
                if self._rng.random() < self._cancelled_lands:
                    self._land_later(run, self._rng.uniform(*self._cancelled_delay_s))
            raise

    async def _carry_out(self, plan: _Plan, what: str, run: Callable[[], Awaitable[T]]) -> T:
        stop = plan.stop
        if plan.before_s:
            await asyncio.sleep(plan.before_s)
        if stop is not None:
            if stop.kind is FaultKind.THROTTLE:
                raise Throttled(f"{what}: slow down (injected)")
            if stop.kind is FaultKind.ERROR_BEFORE:
                raise stop.error(f"{what}: refused (injected)")
            if stop.kind is FaultKind.LATE_LANDING:
                after_s = stop.timeout_s + self._rng.uniform(*stop.delay_s)
                self._land_later(run, after_s)
            if stop.kind in (FaultKind.HANG, FaultKind.LATE_LANDING):
                await asyncio.sleep(stop.timeout_s)
                raise StoreUnavailable(f"{what}: no answer in time (injected)")
        result = await run()
        if plan.after_s:
            await asyncio.sleep(plan.after_s)
        if stop is not None:
            raise stop.error(f"{what}: the reply is lost (injected)")
        return result

    def _plan(self, operation: str, keys: tuple[str, ...]) -> _Plan:
        before_s = after_s = 0.0
        for armed in self._rules:
            rule = armed.rule
            if not _matches(rule, operation, keys):
                continue
            armed.matched += 1
            if armed.matched <= rule.skip or (rule.times is not None and armed.fired >= rule.times):
                continue
            if rule.probability < 1 and self._rng.random() >= rule.probability:
                continue
            armed.fired += 1
            self.fired.by_kind[rule.kind] += 1
            if rule.kind is not FaultKind.LATENCY:
                return _Plan(before_s, after_s, rule)
            delay_s = self._rng.uniform(*rule.delay_s)
            # Others can see the object before its writer hears of it.
            share = self._rng.random()
            before_s += delay_s * share
            after_s += delay_s * (1 - share)
        return _Plan(before_s, after_s)

    def _land_later(self, run: Callable[[], Awaitable[Any]], after_s: float) -> None:
        async def land() -> None:
            await asyncio.sleep(after_s)
            try:
                await run()
            except StoreError:
                pass  # nobody listens any more: another object may hold the key by now

        task = asyncio.get_running_loop().create_task(land(), name="late-landing")
        self._late[task] = None
        task.add_done_callback(lambda done: self._late.pop(done, None))


class _FaultUpload(Upload):
    def __init__(self, store: FaultStore, key: str, inner: Upload) -> None:
        self._store = store
        self._key = key
        self._inner = inner

    async def part(self, chunks: Chunks) -> None:
        await self._store.request("part", (self._key,), lambda: self._inner.part(chunks))

    async def complete(self) -> None:
        await self._store.request("complete", (self._key,), self._inner.complete)

    async def abort(self) -> None:
        await self._store.request("abort", (self._key,), self._inner.abort)


async def _nothing() -> None:
    """The deed of a request whose rows are read by the caller."""


def _matches(rule: FaultRule, operation: str, keys: tuple[str, ...]) -> bool:
    if rule.operations and operation not in rule.operations:
        return False
    if rule.kind is FaultKind.LATE_LANDING and operation not in WRITES:
        return False
    return rule.key == "*" or any(fnmatchcase(key, rule.key) for key in keys)
