"""Retry, hedge, priority, limit, meter and prefix: each changes one thing."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import (
    NotFound,
    PreconditionFailed,
    StoreUnavailable,
    Throttled,
    UnsuitableStore,
)
from objectstore.layers import LayerConfig, LayeredStore
from objectstore.probe import check_conditional_create, measure_latency
from objectstore.ranges import cut_ranges, merge_ranges
from objectstore.store import Chunks
from objectstore.wrappers.fault import FaultKind, FaultRule, FaultStore
from objectstore.wrappers.hedge import HedgeConfig, HedgeStore
from objectstore.wrappers.limit import LimitStore, RateLimit
from objectstore.wrappers.meter import MeterStore, RequestMeter
from objectstore.wrappers.passing import PassingStore
from objectstore.wrappers.prefix import PrefixStore
from objectstore.wrappers.priority import Priority, PriorityStore, Slots
from objectstore.wrappers.retry import RetryConfig, RetryStore

QUICK = RetryConfig(base_s=0.0001, cap_s=0.001)


def faulty(*rules: FaultRule) -> tuple[MemoryStore, FaultStore]:
    inner = MemoryStore(lambda: 0)
    return inner, FaultStore(inner, random.Random(1), rules)


def test_reads_listings_and_deletes_are_repeated() -> None:
    inner, faults = faulty(
        *(
            FaultRule(FaultKind.ERROR_BEFORE, (operation,), times=2)
            for operation in ("get", "get_ranges", "list", "delete", "list_uploads", "date_ms")
        )
    )
    store = RetryStore(faults, random.Random(0), QUICK)

    async def check() -> None:
        await inner.create("k", [b"abc"])
        assert await store.get("k") == b"abc"
        assert await store.get_range("k", 1, 9) == b"bc"
        assert [info.key async for info in store.list("")] == ["k"]
        assert await store.list_uploads("") == []
        assert await store.date_ms() == 0
        await store.delete(["k"])
        with pytest.raises(NotFound):
            await store.get("k")

    asyncio.run(check())
    assert store.repeats == 12


def test_a_create_is_never_repeated() -> None:
    _, faults = faulty(FaultRule(FaultKind.ERROR_BEFORE, ("create",), times=1))
    store = RetryStore(faults, random.Random(0), QUICK)
    with pytest.raises(StoreUnavailable):
        asyncio.run(store.create("k", [b""]))
    assert store.repeats == 0


def test_a_listing_goes_on_behind_its_last_row() -> None:
    inner, faults = faulty(FaultRule(FaultKind.ERROR_BEFORE, ("list",), skip=1, times=2))
    store = RetryStore(faults, random.Random(0), QUICK)

    async def check() -> None:
        keys = [f"k{n:04}" for n in range(2500)]
        for key in keys:
            await inner.create(key, [b""])
        assert [info.key async for info in store.list("k")] == keys

    asyncio.run(check())
    assert faults.fired[FaultKind.ERROR_BEFORE] == 2


def test_when_everything_fails_the_budget_stops_the_repeats() -> None:
    _, faults = faulty(FaultRule(FaultKind.THROTTLE))
    store = RetryStore(faults, random.Random(0), RetryConfig(base_s=0.0001, budget=3))

    async def check() -> None:
        for _ in range(10):
            with pytest.raises(Throttled, match="slow down"):
                await store.get("k")

    asyncio.run(check())
    assert (store.repeats, faults.fired[FaultKind.THROTTLE]) == (3, 13)


def test_a_slow_get_is_asked_twice_and_the_first_answer_counts() -> None:
    inner, faults = faulty()
    store = HedgeStore(faults, HedgeConfig(needed=4, least_s=0.001))

    async def check() -> None:
        await inner.create("k", [b"abc"])
        for _ in range(4):
            await store.get("k")
        faults.arm(FaultRule(FaultKind.HANG, ("get",), times=1, timeout_s=3600))
        assert await store.get("k") == b"abc"
        assert asyncio.all_tasks() == {asyncio.current_task()}
        # Both slow: both are ended with their caller.
        faults.arm(FaultRule(FaultKind.HANG, ("get",), timeout_s=3600))
        task = asyncio.create_task(store.get("k"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(check())
    assert (store.hedged, store.won) == (2, 1)


def test_a_missing_object_is_not_asked_for_twice() -> None:
    inner, faults = faulty()
    store = HedgeStore(faults, HedgeConfig(needed=1))

    async def check() -> None:
        await inner.create("k", [b"x"])
        await store.get("k")
        with pytest.raises(NotFound):
            await store.get("absent")

    asyncio.run(check())
    assert store.hedged == 0


def test_the_log_goes_before_uploads_and_those_before_compaction() -> None:
    class Gate(PassingStore):
        def __init__(self) -> None:
            super().__init__(MemoryStore(lambda: 0))
            self.open = asyncio.Event()
            self.order: list[str] = []

        async def create(self, key: str, chunks: Chunks) -> None:
            self.order.append(key)
            await self.open.wait()

    async def check() -> None:
        gate = Gate()
        slots = Slots(4)
        store = PriorityStore(gate, slots)

        def start(priority: Priority, name: str) -> asyncio.Task[None]:
            return asyncio.create_task(store.at(priority).create(name, [b""]))

        tasks = [start(Priority.COMPACTION, f"c{n}") for n in range(3)]
        tasks += [start(Priority.UPLOAD, f"u{n}") for n in range(4)]
        tasks += [start(Priority.READ, f"r{n}") for n in range(4)]
        await asyncio.sleep(0)
        # One compaction at most, uploads leave two slots free, reads one.
        assert gate.order == ["c0", "u0", "r0"]
        tasks += [start(Priority.WAL, f"w{n}") for n in range(2)]
        await asyncio.sleep(0)
        assert gate.order == ["c0", "u0", "r0", "w0"]
        tasks[4].cancel()  # u1, waiting
        gate.open.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.order[4] == "w1"
        assert gate.order[5:8] == ["r1", "r2", "r3"]
        assert sorted(gate.order[8:]) == ["c1", "c2", "u2", "u3"]
        assert (slots.held, slots.waiting) == (0, 0)

    asyncio.run(check())


def test_a_slot_granted_to_a_cancelled_request_is_passed_on() -> None:
    async def check() -> None:
        slots = Slots(4)
        release = asyncio.Event()

        async def hold() -> None:
            async with slots.slot(Priority.WAL):
                await release.wait()

        holders = [asyncio.create_task(hold()) for _ in range(6)]
        await asyncio.sleep(0)
        assert (slots.held, slots.waiting) == (4, 2)
        holders[0].cancel()
        await asyncio.sleep(0)  # holders[4] is granted the slot in this step ...
        holders[4].cancel()  # ... and cancelled before it runs
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (slots.held, slots.waiting) == (4, 0)
        release.set()
        await asyncio.gather(*holders, return_exceptions=True)
        assert slots.held == 0

    asyncio.run(check())


def test_a_cancelled_request_that_was_passed_over_is_cancelled_and_no_more() -> None:
    async def check() -> None:
        slots = Slots(4)
        release = asyncio.Event()

        async def hold() -> None:
            async with slots.slot(Priority.WAL):
                await release.wait()

        holders = [asyncio.create_task(hold()) for _ in range(6)]
        await asyncio.sleep(0)
        holders[0].cancel()  # gives its slot back in the next step, before ...
        holders[4].cancel()  # ... this one, which is the first in the queue, is told
        found = await asyncio.gather(holders[0], holders[4], return_exceptions=True)
        assert [type(one) for one in found] == [asyncio.CancelledError] * 2
        assert (slots.held, slots.waiting) == (4, 0)
        release.set()
        await asyncio.gather(*holders, return_exceptions=True)
        assert (slots.held, slots.waiting) == (0, 0)

    asyncio.run(check())


def test_requests_wait_for_their_turn_in_order() -> None:
    slept: list[float] = []

    async def check(monkeypatch: pytest.MonkeyPatch) -> None:
        now_s = asyncio.get_running_loop().time()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)

        async def sleep(delay_s: float) -> None:
            slept.append(round(delay_s, 3))

        monkeypatch.setattr("objectstore.wrappers.limit.asyncio.sleep", sleep)
        store = LimitStore(MemoryStore(lambda: 0), RateLimit(10, burst=2))
        for n in range(5):
            await store.create(f"k{n}", [b""])

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(check(monkeypatch))
    assert slept == [0.1, 0.2, 0.3]


def test_the_meter_counts_requests_bytes_errors_and_dollars() -> None:
    async def check() -> None:
        meter = RequestMeter()
        store = MeterStore(MemoryStore(lambda: 0), meter)
        await store.create("k", [b"x" * 10, b"y" * 5])
        with pytest.raises(PreconditionFailed):
            await store.create("k", [b""])
        await store.get("k")
        await store.get_ranges("k", [(0, 5), (6, 9), (10 << 20, 11 << 20)])
        with pytest.raises(NotFound):
            await store.get("absent")
        upload = await store.start_upload("u")
        await upload.part([b"z" * 7])
        await upload.complete()
        assert [info.key async for info in store.list("")] == ["k", "u"]
        await store.delete(["k", "u"])
        snapshot = meter.snapshot()
        counts = {name: c.requests for name, c in snapshot.operations.items() if c.requests}
        assert counts == {
            "create": 2,
            "get": 4,
            "start_upload": 1,
            "part": 1,
            "complete": 1,
            "list": 1,
            "delete": 1,
        }
        assert snapshot.requests == 11
        assert snapshot.operations["create"].bytes_sent == 15
        assert snapshot.operations["create"].errors == {"PreconditionFailed": 1}
        assert snapshot.operations["get"].bytes_received == 15 + 8
        assert snapshot.dollars == pytest.approx(6 * 0.005 / 1000 + 4 * 0.0004 / 1000)
        await store.create("later", [b""])
        assert snapshot.operations["create"].requests == 2, "a snapshot does not change"

    asyncio.run(check())


def test_a_prefix_hides_what_is_beside_it() -> None:
    async def check() -> None:
        inner = MemoryStore(lambda: 0)
        store = PrefixStore(inner, "a/b/")
        await inner.create("a/bc", [b"beside"])
        await store.create("k/1", [b"x"])
        await store.create("k/2", [b"y"])
        assert await inner.get("a/b/k/1") == b"x"
        assert [info.key async for info in store.list("", "k/1")] == ["k/2"]
        upload = await store.start_upload("u")
        (found,) = await store.list_uploads("")
        assert found.key == "u"
        await store.abort_upload(found)
        assert await inner.list_uploads("") == []
        await upload.abort()
        await store.delete(["k/1", "k/2"])
        assert [info.key async for info in inner.list("")] == ["a/bc"]

    asyncio.run(check())


def test_ranges_are_merged_over_small_gaps_and_cut_again() -> None:
    data = bytes(range(256))
    rng = random.Random(5)
    for _ in range(300):
        ranges = [
            (start, start + rng.randrange(0, 60))
            for start in (rng.randrange(300) for _ in range(rng.randrange(6)))
        ]
        merged = merge_ranges(ranges, gap_bytes=rng.randrange(20))
        pieces = [data[start:end] for start, end in merged]
        assert cut_ranges(ranges, merged, pieces) == [data[s:e] for s, e in ranges]
        assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))


def test_the_probe_passes_a_good_store_and_cleans_up() -> None:
    async def check() -> None:
        store = MemoryStore(lambda: 0)
        await check_conditional_create(store, random.Random(1))
        put, get = await measure_latency(store, random.Random(1), rounds=3)
        assert (put.samples, get.samples) == (3, 3)
        assert [info async for info in store.list("")] == []

    asyncio.run(check())


@pytest.mark.parametrize("pretends", [False, True])
def test_a_store_that_overwrites_is_refused(pretends: bool) -> None:
    class Overwriting(PassingStore):
        """Ignores the condition; or heeds it for the first 64 requests only."""

        creates = 0

        async def create(self, key: str, chunks: Chunks) -> None:
            self.creates += 1
            if not pretends or self.creates > 64:
                await self.inner.delete([key])
            await self.inner.create(key, chunks)

    async def check() -> None:
        store = Overwriting(MemoryStore(lambda: 0))
        with pytest.raises(UnsuitableStore, match="If-None-Match"):
            await check_conditional_create(store, random.Random(1))
        assert await _keys(store) == []

    asyncio.run(check())


def test_lost_replies_do_not_make_the_probe_refuse_a_good_store() -> None:
    _, faults = faulty(FaultRule(FaultKind.ERROR_AFTER, ("create",), times=3))
    asyncio.run(check_conditional_create(faults, random.Random(1)))
    _, dead = faulty(FaultRule(FaultKind.ERROR_BEFORE, ("create",)))
    with pytest.raises((StoreUnavailable, NotFound)):
        asyncio.run(check_conditional_create(dead, random.Random(1)))


async def _keys(store: PassingStore) -> list[str]:
    rows: AsyncIterator[object] = store.list("")
    return [str(row) async for row in rows]


def test_all_classes_of_a_layered_store_share_driver_and_meter() -> None:
    async def check() -> None:
        _, faults = faulty(FaultRule(FaultKind.THROTTLE, ("get",), times=2))
        config = LayerConfig(retry=QUICK, hedge=HedgeConfig(), requests_per_s=10_000)
        store = LayeredStore(faults, random.Random(0), config)
        await store.at(Priority.WAL).create("k", [b"x"])
        assert await store.get("k") == b"x"
        assert await store.at(Priority.COMPACTION).get("k") == b"x"
        count = store.meter.snapshot().operations["get"]
        assert (count.requests, count.errors) == (4, {"Throttled": 2}), "every attempt is counted"
        await store.close()

    asyncio.run(check())
