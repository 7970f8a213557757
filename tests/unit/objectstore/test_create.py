"""create_once settles every ambiguous answer by the header found at the key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from objectstore.create import create_by_upload, create_once
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import (
    AccessDenied,
    Corrupt,
    NotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
    Throttled,
)
from objectstore.header import encode_prefix
from objectstore.store import Chunks
from objectstore.wrappers.fault import FaultKind, FaultRule, FaultStore
from objectstore.wrappers.passing import PassingStore

OURS, THEIRS = b"o" * 16, b"t" * 16
BODY = [encode_prefix(1, OURS), b"ours"]


def memory() -> MemoryStore:
    return MemoryStore(lambda: 0)


def faulty(*rules: FaultRule, seed: int = 1) -> tuple[MemoryStore, FaultStore]:
    inner = memory()
    return inner, FaultStore(inner, random.Random(seed), rules)


class Counting(PassingStore):
    """Counts creates and keeps what each one sent."""

    def __init__(self, inner: MemoryStore | FaultStore) -> None:
        super().__init__(inner)
        self.sent: list[bytes] = []
        self.looks = 0

    async def create(self, key: str, chunks: Chunks) -> None:
        self.sent.append(b"".join(chunks))
        await super().create(key, chunks)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.looks += 1
        return await super().get_ranges(key, ranges)


def once(store: PassingStore, *, give_up_after_s: float | None = None) -> bool:
    return asyncio.run(
        create_once(store, "k", BODY, OURS, rng=random.Random(0), give_up_after_s=give_up_after_s)
    )


def test_a_lost_reply_is_settled_without_sending_again() -> None:
    inner, faults = faulty(FaultRule(FaultKind.ERROR_AFTER, ("create",), times=1))
    store = Counting(faults)
    assert once(store) is True
    assert len(store.sent) == 1
    assert faults.fired[FaultKind.ERROR_AFTER] == 1
    assert asyncio.run(inner.get("k")) == b"".join(BODY)


def test_a_412_from_our_own_earlier_attempt_is_ours() -> None:
    inner, faults = faulty()
    store = Counting(faults)

    async def check() -> bool:
        await inner.create("k", BODY)
        return await create_once(store, "k", BODY, OURS, rng=random.Random(0))

    assert asyncio.run(check()) is True


def test_an_object_of_another_is_not_ours() -> None:
    for foreign in ([encode_prefix(1, THEIRS)], [b"no header at all, but long enough"], [b""]):
        inner, faults = faulty()

        async def check(
            inner: MemoryStore = inner, faults: FaultStore = faults, body: Chunks = foreign
        ) -> None:
            await inner.create("k", body)
            assert await create_once(faults, "k", BODY, OURS, rng=random.Random(0)) is False
            assert await inner.get("k") == b"".join(body)

        asyncio.run(check())


def test_another_that_came_between_two_attempts_wins() -> None:
    inner, faults = faulty(FaultRule(FaultKind.ERROR_BEFORE, ("create",), times=1))

    async def check() -> bool:
        ours = asyncio.create_task(create_once(faults, "k", BODY, OURS, rng=random.Random(0)))
        await asyncio.sleep(0)
        await inner.create("k", [encode_prefix(1, THEIRS)])
        return await ours

    assert asyncio.run(check()) is False


@pytest.mark.parametrize(
    "kind", [FaultKind.ERROR_BEFORE, FaultKind.THROTTLE, FaultKind.ERROR_AFTER]
)
def test_trouble_with_every_other_request_is_waited_out(kind: FaultKind) -> None:
    inner, faults = faulty(FaultRule(kind, probability=0.5, times=20))
    store = Counting(faults)
    assert once(store) is True
    assert len(set(store.sent)) == 1, "every attempt sends the same bytes"
    assert asyncio.run(inner.get("k")) == b"".join(BODY)


def test_a_look_that_fails_is_repeated_before_anything_is_sent_again() -> None:
    _, faults = faulty(
        FaultRule(FaultKind.ERROR_AFTER, ("create",), times=1),
        FaultRule(FaultKind.ERROR_BEFORE, ("get_ranges",), times=3),
    )
    store = Counting(faults)
    assert once(store) is True
    assert (len(store.sent), store.looks) == (1, 4)


def test_denied_access_is_waited_out_and_told_at_each_attempt() -> None:
    _, faults = faulty(FaultRule(FaultKind.ERROR_BEFORE, ("create",), times=2, error=AccessDenied))
    told: list[tuple[str, StoreError]] = []

    async def check() -> bool:
        return await create_once(
            faults,
            "k",
            BODY,
            OURS,
            rng=random.Random(0),
            on_trouble=lambda key, error: told.append((key, error)),
        )

    assert asyncio.run(check()) is True
    assert [(key, type(error)) for key, error in told] == [("k", AccessDenied)] * 2


def test_a_lost_race_is_no_trouble() -> None:
    inner = memory()

    async def check() -> None:
        await inner.create("k", [encode_prefix(1, THEIRS)])

        def on_trouble(key: str, error: StoreError) -> None:
            raise AssertionError(error)

        assert not await create_once(
            inner, "k", BODY, OURS, rng=random.Random(0), on_trouble=on_trouble
        )

    asyncio.run(check())


def test_giving_up_raises_and_names_the_last_error() -> None:
    _, faults = faulty(FaultRule(FaultKind.ERROR_BEFORE, ("create",)))
    with pytest.raises(StoreUnavailable, match=r"k: unsettled after 0\.05 s: create k: refused"):
        once(faults, give_up_after_s=0.05)


def test_giving_up_ends_a_request_that_hangs() -> None:
    _, faults = faulty(FaultRule(FaultKind.HANG, ("create",), timeout_s=3600))
    with pytest.raises(StoreUnavailable, match="unsettled"):
        once(faults, give_up_after_s=0.01)


def test_a_time_out_of_the_caller_is_not_taken_for_ours() -> None:
    _, faults = faulty(FaultRule(FaultKind.HANG, ("create",), timeout_s=3600))

    async def check() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await create_once(
                    faults, "k", BODY, OURS, rng=random.Random(0), give_up_after_s=3600
                )
        await faults.close()

    asyncio.run(check())


def test_a_race_that_all_lost_is_run_again() -> None:
    class Conflict(PassingStore):
        """409 for both of two writers, once."""

        conflicts = 1

        async def create(self, key: str, chunks: Chunks) -> None:
            if self.conflicts:
                self.conflicts -= 1
                raise PreconditionFailed(f"{key}: 409")
            await super().create(key, chunks)

    assert once(Conflict(memory())) is True


def test_what_may_be_a_repeat_is_looked_for_before_it_is_sent() -> None:
    inner = memory()
    store = Counting(inner)

    async def check() -> None:
        rng = random.Random(0)
        assert await create_once(store, "k", BODY, OURS, rng=rng, may_be_repeat=True)
        assert (len(store.sent), store.looks) == (1, 1)
        assert await create_once(store, "k", BODY, OURS, rng=rng, may_be_repeat=True)
        assert (len(store.sent), store.looks) == (1, 2)

    asyncio.run(check())


@pytest.mark.parametrize("suspended_at", range(6))
def test_a_cancelled_create_ends_at_once_and_leaves_no_task(suspended_at: int) -> None:
    _, faults = faulty(
        FaultRule(FaultKind.ERROR_AFTER, ("create",)),
        FaultRule(FaultKind.THROTTLE, ("get_ranges",)),
    )

    async def check() -> None:
        task = asyncio.create_task(create_once(faults, "k", BODY, OURS, rng=random.Random(0)))
        for _ in range(suspended_at + 1):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(check())


def test_an_upload_whose_completion_answer_is_lost_is_ours() -> None:
    inner, faults = faulty(FaultRule(FaultKind.ERROR_AFTER, ("complete",), times=1))
    attempts = 0

    async def parts() -> AsyncIterator[Chunks]:
        nonlocal attempts
        attempts += 1
        yield BODY
        yield [b"more"]

    async def check() -> None:
        assert await create_by_upload(faults, "k", parts, OURS, rng=random.Random(0))
        assert await inner.get("k") == b"".join(BODY) + b"more"
        assert await inner.list_uploads("") == []

    asyncio.run(check())
    assert attempts == 1


@pytest.mark.parametrize("gone", [NotFound, Corrupt])
def test_an_upload_of_what_is_gone_ends_and_is_not_made_again_for_ever(
    gone: type[StoreError],
) -> None:
    inner = memory()
    attempts = 0

    async def parts() -> AsyncIterator[Chunks]:
        nonlocal attempts
        attempts += 1
        yield BODY
        # Trouble passes, and the attempt is made anew; a source that is gone stays so.
        raise StoreUnavailable("source") if attempts == 1 else gone("source: no such object")

    async def check() -> None:
        with pytest.raises(gone, match="no such object"):
            await create_by_upload(inner, "k", parts, OURS, rng=random.Random(0))
        assert await inner.list_uploads("") == []

    asyncio.run(check())
    assert attempts == 2


@pytest.mark.parametrize("operation", ["start_upload", "part", "complete"])
def test_a_failed_upload_is_aborted_and_made_again(operation: str) -> None:
    inner, faults = faulty(FaultRule(FaultKind.THROTTLE, (operation,), skip=0, times=2))
    troubles: list[type[StoreError]] = []

    async def parts() -> AsyncIterator[Chunks]:
        yield BODY
        yield [b"more"]

    async def check() -> None:
        assert await create_by_upload(
            faults,
            "k",
            parts,
            OURS,
            rng=random.Random(0),
            on_trouble=lambda key, error: troubles.append(type(error)),
        )
        assert await inner.get("k") == b"".join(BODY) + b"more"
        assert await inner.list_uploads("") == []

    asyncio.run(check())
    assert troubles == [Throttled, Throttled]


def test_a_cancelled_upload_is_aborted() -> None:
    inner, faults = faulty(FaultRule(FaultKind.HANG, ("part",), skip=1, timeout_s=3600))

    async def parts() -> AsyncIterator[Chunks]:
        yield BODY
        yield [b"more"]

    async def check() -> None:
        task = asyncio.create_task(create_by_upload(faults, "k", parts, OURS, rng=random.Random(0)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert faults.fired[FaultKind.HANG] == 1
        assert len(await inner.list_uploads("")) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await inner.list_uploads("") == []

    asyncio.run(check())
