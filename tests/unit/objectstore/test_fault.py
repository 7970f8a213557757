"""Injected faults do what their model says, and repeat from a seed."""

from __future__ import annotations

import asyncio
import random

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import NotFound, StoreUnavailable, Throttled
from objectstore.wrappers.fault import FaultKind, FaultRule, FaultStore


def build(*rules: FaultRule, seed: int = 1, **more: float) -> tuple[MemoryStore, FaultStore]:
    inner = MemoryStore(lambda: 0)
    return inner, FaultStore(inner, random.Random(seed), rules, **more)  # type: ignore[arg-type]


def test_an_error_before_the_write_leaves_nothing_and_one_after_leaves_the_object() -> None:
    inner, store = build(
        FaultRule(FaultKind.ERROR_BEFORE, ("create",), "a/*"),
        FaultRule(FaultKind.ERROR_AFTER, ("create",), "b/*"),
        FaultRule(FaultKind.THROTTLE, ("create",), "c/*"),
    )

    async def check() -> None:
        for key, error in (
            ("a/1", StoreUnavailable),
            ("b/1", StoreUnavailable),
            ("c/1", Throttled),
        ):
            with pytest.raises(error):
                await store.create(key, [b"x"])
        await store.create("d/1", [b"x"])
        assert [info.key async for info in inner.list("")] == ["b/1", "d/1"]

    asyncio.run(check())
    assert {k: n for k, n in store.fired.by_kind.items() if n} == {
        FaultKind.ERROR_BEFORE: 1,
        FaultKind.ERROR_AFTER: 1,
        FaultKind.THROTTLE: 1,
    }


def test_a_late_write_lands_after_its_caller_was_told_of_a_time_out() -> None:
    inner, store = build(
        FaultRule(FaultKind.LATE_LANDING, ("create",), delay_s=(0.01, 0.01), timeout_s=0.001)
    )
    body = bytearray(b"as sent")

    async def check() -> None:
        with pytest.raises(StoreUnavailable):
            await store.create("k", [body])
        body[:] = b"changed"
        assert store.landing == 1
        with pytest.raises(NotFound):
            await inner.get("k")
        await store.settle()
        assert await inner.get("k") == b"as sent"

    asyncio.run(check())


def test_a_late_write_to_a_key_taken_meanwhile_changes_nothing() -> None:
    inner, store = build(
        FaultRule(FaultKind.LATE_LANDING, ("create",), delay_s=(0.01, 0.01), timeout_s=0.001)
    )

    async def check() -> None:
        with pytest.raises(StoreUnavailable):
            await store.create("k", [b"late"])
        await inner.create("k", [b"in time"])
        await store.settle()
        assert await inner.get("k") == b"in time"

    asyncio.run(check())


def test_a_late_write_outlives_its_cancelled_caller_but_not_the_store() -> None:
    for ends, there in ((FaultStore.settle, True), (FaultStore.close, False)):
        inner, store = build(
            FaultRule(FaultKind.LATE_LANDING, ("create",), delay_s=(0.01, 0.01), timeout_s=0.01)
        )

        async def check(store: FaultStore = store) -> None:
            task = asyncio.create_task(store.create("k", [b"x"]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        async def both(store: FaultStore = store, ends=ends) -> None:  # type: ignore[no-untyped-def]
            await check(store)
            await ends(store)

        asyncio.run(both())
        assert (inner._objects.get("k") is not None) is there


def test_a_write_whose_caller_was_cancelled_may_land_or_not() -> None:
    for lands in (0.0, 1.0):
        inner, store = build(
            FaultRule(FaultKind.LATENCY, ("create",), delay_s=(3600, 3600)),
            cancelled_lands=lands,
            cancelled_delay_s=(0.0, 0.001),  # type: ignore[arg-type]
        )

        async def check(store: FaultStore = store) -> None:
            task = asyncio.create_task(store.create("k", [b"x"]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await store.settle()

        asyncio.run(check())
        assert store.fired[FaultKind.CANCELLED] == 1
        assert ("k" in inner._objects) is bool(lands)


def test_rules_skip_count_and_can_be_disarmed() -> None:
    _, store = build()
    armed = store.arm(FaultRule(FaultKind.ERROR_BEFORE, ("get",), skip=1, times=2))

    async def check() -> None:
        outcomes = []
        for _ in range(5):
            try:
                await store.get("absent")
            except (NotFound, StoreUnavailable) as error:
                outcomes.append(type(error))
        assert outcomes == [NotFound, StoreUnavailable, StoreUnavailable, NotFound, NotFound]
        assert (armed.matched, armed.fired) == (5, 2)
        other = store.arm(FaultRule(FaultKind.THROTTLE))
        store.disarm(other)
        with pytest.raises(NotFound):
            await store.get("absent")

    asyncio.run(check())


def test_a_listing_can_fail_in_its_middle() -> None:
    inner, store = build(FaultRule(FaultKind.ERROR_BEFORE, ("list",), skip=1, times=1))

    async def check() -> None:
        for n in range(1500):
            await inner.create(f"k{n:04}", [b""])
        seen = []
        with pytest.raises(StoreUnavailable):
            async for info in store.list("k"):
                seen.append(info.key)
        assert 0 < len(seen) < 1500

    asyncio.run(check())


def test_one_seed_fires_the_same_faults_twice() -> None:
    async def outcomes(seed: int) -> list[str]:
        _, store = build(
            FaultRule(FaultKind.ERROR_BEFORE, ("create",), probability=0.3),
            FaultRule(FaultKind.ERROR_AFTER, ("create",), probability=0.3),
            seed=seed,
        )
        seen = []
        for n in range(50):
            try:
                await store.create(f"k{n}", [b""])
                seen.append("ok")
            except StoreUnavailable as error:
                seen.append(str(error))
        return seen

    assert asyncio.run(outcomes(7)) == asyncio.run(outcomes(7))
    assert asyncio.run(outcomes(7)) != asyncio.run(outcomes(8))
