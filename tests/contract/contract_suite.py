"""What every store must do, written once. Each driver's test class inherits `StoreContract`."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import pytest

from objectstore.create import create_by_upload, create_once
from objectstore.errors import NotFound, PreconditionFailed
from objectstore.header import encode_prefix
from objectstore.store import ObjectStore, Upload

PART = 5 << 20
T = TypeVar("T")


async def keys_of(store: ObjectStore, prefix: str, start_after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, start_after)]


class StoreContract(ABC):
    """`opened` gives an empty store; it is entered inside the running loop."""

    MANY_KEYS = 1100
    """More than a page of any listing."""

    LISTS_UPLOADS_BY_PREFIX = True
    """False where uploads are found by their whole key only."""

    @abstractmethod
    def opened(self) -> AbstractAsyncContextManager[ObjectStore]: ...

    def run(self, check: Callable[[ObjectStore], Awaitable[T]]) -> T:
        async def main() -> T:
            async with self.opened() as store:
                return await check(store)

        return asyncio.run(main())

    def test_what_was_created_is_read_back_whole(self) -> None:
        async def check(store: ObjectStore) -> None:
            await store.create("a/b/c", [b"one", memoryview(b"two"), bytearray(b"three")])
            assert await store.get("a/b/c") == b"onetwothree"

        self.run(check)

    def test_an_empty_object_is_an_object(self) -> None:
        async def check(store: ObjectStore) -> None:
            await store.create("empty", [])
            await store.create("empty-too", [b"", b""])
            assert await store.get("empty") == b""
            assert await store.get_ranges("empty", [(0, 24), (5, 9)]) == [b"", b""]
            assert [(i.key, i.size_bytes) async for i in store.list("empty")] == [
                ("empty", 0),
                ("empty-too", 0),
            ]
            with pytest.raises(PreconditionFailed):
                await store.create("empty", [b"x"])

        self.run(check)

    def test_one_of_64_concurrent_creates_wins_and_its_bytes_are_there(self) -> None:
        async def check(store: ObjectStore) -> None:
            bodies = [bytes([n]) * 1000 for n in range(64)]
            results = await asyncio.gather(
                *(store.create("race/key", [body]) for body in bodies), return_exceptions=True
            )
            winners = [body for body, r in zip(bodies, results, strict=True) if r is None]
            losers = [r for r in results if r is not None]
            assert all(isinstance(r, PreconditionFailed) for r in losers), losers
            assert len(winners) == 1
            assert await store.get("race/key") == winners[0]

        self.run(check)

    def test_a_second_create_changes_nothing(self) -> None:
        async def check(store: ObjectStore) -> None:
            await store.create("k", [b"first"])
            with pytest.raises(PreconditionFailed):
                await store.create("k", [b"second"])
            assert await store.get("k") == b"first"

        self.run(check)

    def test_an_absent_object_is_not_found(self) -> None:
        async def check(store: ObjectStore) -> None:
            await store.create("there/x", [b"x"])
            for key in ("absent", "there", "there/y", "there/z/y"):
                with pytest.raises(NotFound, match=key):
                    await store.get(key)
                with pytest.raises(NotFound, match=key):
                    await store.get_range(key, 0, 10)

        self.run(check)

    def test_ranges_come_in_the_order_asked_and_short_at_the_end(self) -> None:
        async def check(store: ObjectStore) -> None:
            data = bytes(range(200))
            await store.create("k", [data])
            ranges = [(190, 210), (0, 3), (50, 60), (52, 55), (200, 210), (300, 310), (199, 200)]
            got = await store.get_ranges("k", ranges)
            assert got == [data[start:end] for start, end in ranges]
            assert await store.get_range("k", 0, 1000) == data
            assert await store.get_ranges("k", [(7, 7)]) == [b""]
            assert await store.get_ranges("k", []) == []

        self.run(check)

    def test_a_listing_is_in_byte_order_after_a_key(self) -> None:
        async def check(store: ObjectStore) -> None:
            keys = ["l/a", "l/a-", "l/a.b", "l/a0", "l/aa/x", "l/a_/y", "l/b/1", "l/b/10", "l/b/2"]
            keys += ["l/Z", "l/~", "l/b-/1", "l/b0", "m/1"]
            for key in keys[::-1]:
                await store.create(key, [b"."])
            inside = sorted((k for k in keys if k.startswith("l/")), key=str.encode)
            assert await keys_of(store, "l/") == inside
            assert await keys_of(store, "") == [*inside, "m/1"]
            for n, key in enumerate(inside):
                assert await keys_of(store, "l/", start_after=key) == inside[n + 1 :], key
            assert await keys_of(store, "l/b") == [k for k in inside if k.startswith("l/b")]
            assert await keys_of(store, "l/", start_after="l/b/") == inside[inside.index("l/b/1") :]
            assert await keys_of(store, "l/", start_after="zzz") == []
            assert await keys_of(store, "l/b/", start_after="l/a") == ["l/b/1", "l/b/10", "l/b/2"]
            assert await keys_of(store, "nothing/here/") == []

        self.run(check)

    def test_a_listing_longer_than_a_page_is_complete(self) -> None:
        async def check(store: ObjectStore) -> None:
            keys = [f"wal/7/{n:020d}" for n in range(self.MANY_KEYS)]
            slots = asyncio.Semaphore(16)

            async def make(key: str) -> None:
                async with slots:
                    await store.create(key, [b"x" * 10])

            await asyncio.gather(*(make(key) for key in keys))
            assert await keys_of(store, "wal/7/") == keys
            assert await keys_of(store, "wal/7/", start_after=keys[49]) == keys[50:]
            await store.delete(keys)
            assert await keys_of(store, "wal/") == []

        self.run(check)

    def test_a_listing_that_is_left_early_does_no_harm(self) -> None:
        async def check(store: ObjectStore) -> None:
            for n in range(3):
                await store.create(f"k{n}", [b""])
            async for info in store.list("k"):
                assert info.key == "k0"
                break
            assert await keys_of(store, "k") == ["k0", "k1", "k2"]

        self.run(check)

    def test_listed_times_are_those_of_the_store(self) -> None:
        async def check(store: ObjectStore) -> None:
            before_ms = await store.date_ms()
            await store.create("k", [b""])
            after_ms = await store.date_ms()
            (info,) = [i async for i in store.list("k")]
            # Some stores count whole seconds, in one of the two places.
            assert before_ms - 1001 <= info.modified_ms <= after_ms + 1001

        self.run(check)

    def test_deleting_what_is_absent_is_no_error(self) -> None:
        async def check(store: ObjectStore) -> None:
            await store.create("d/1", [b"1"])
            await store.create("d/e/2", [b"2"])
            await store.delete(["d/1", "d/absent", "never/was/there"])
            await store.delete(["d/1"])
            await store.delete([])
            assert await keys_of(store, "") == ["d/e/2"]
            with pytest.raises(NotFound):
                await store.get("d/1")

        self.run(check)

    def test_a_deleted_key_can_be_created_again(self) -> None:
        async def check(store: ObjectStore) -> None:
            for n in range(3):
                await store.create("d/e/f", [b"%d" % n])
                assert await store.get("d/e/f") == b"%d" % n
                await store.delete(["d/e/f"])

        self.run(check)

    def test_creates_survive_deletes_that_empty_their_directory(self) -> None:
        async def check(store: ObjectStore) -> None:
            # By create_once: MinIO answers 403 where a directory of its own goes at that moment.
            async def churn(n: int) -> None:
                rng = random.Random(n)
                for _ in range(20):
                    ours = rng.randbytes(16)
                    body = [encode_prefix(1, ours)]
                    assert await create_once(store, f"x/y/{n}", body, ours, rng=rng)
                    await store.delete([f"x/y/{n}"])

            await asyncio.gather(*(churn(n) for n in range(4)))
            assert await keys_of(store, "") == []

        self.run(check)

    def test_an_upload_appears_whole_and_only_when_complete(self) -> None:
        async def check(store: ObjectStore) -> None:
            first, second = random.Random(1).randbytes(PART), b"the end"
            upload = await store.start_upload("data/up")
            await upload.part([first[:1000], memoryview(first)[1000:]])
            await upload.part([second])
            assert await keys_of(store, "") == []
            await upload.complete()
            assert await store.get("data/up") == first + second
            assert await store.get_range("data/up", PART - 2, PART + 3) == first[-2:] + b"the"
            assert await store.list_uploads("") == []

        self.run(check)

    def test_an_aborted_upload_leaves_nothing(self) -> None:
        async def check(store: ObjectStore) -> None:
            upload = await store.start_upload("data/up")
            await upload.part([b"x" * PART])
            await upload.abort()
            await upload.abort()
            assert await keys_of(store, "") == []
            assert await store.list_uploads("") == []

        self.run(check)

    def test_an_unfinished_upload_of_another_is_found_and_aborted(self) -> None:
        async def check(store: ObjectStore) -> None:
            mine = await store.start_upload("data/5-1")
            await mine.part([b"x" * PART])
            other = await store.start_upload("data/6-1")
            await other.part([b"y" * PART])
            by_prefix = self.LISTS_UPLOADS_BY_PREFIX
            found = await store.list_uploads("data/5-" if by_prefix else "data/5-1")
            assert [u.key for u in found] == ["data/5-1"]
            if by_prefix:
                assert {u.key for u in await store.list_uploads("")} == {"data/5-1", "data/6-1"}
            await store.abort_upload(found[0])
            await store.abort_upload(found[0])
            rest = await store.list_uploads("data/" if by_prefix else "data/6-1")
            assert [u.key for u in rest] == ["data/6-1"]
            assert await store.list_uploads("data/5-1") == []
            with pytest.raises(Exception, match="data/5-1"):
                await mine.complete()
            assert await keys_of(store, "") == []
            await other.abort()

        self.run(check)

    def test_an_upload_to_a_taken_key_fails_and_changes_nothing(self) -> None:
        async def check(store: ObjectStore) -> None:
            upload: Upload = await store.start_upload("data/up")
            await upload.part([b"x" * PART])
            await store.create("data/up", [b"faster"])
            with pytest.raises(PreconditionFailed):
                await upload.complete()
            await upload.abort()
            assert await store.get("data/up") == b"faster"
            assert await store.list_uploads("") == []

        self.run(check)

    def test_create_once_tells_ours_from_anothers(self) -> None:
        async def check(store: ObjectStore) -> None:
            rng = random.Random(2)
            ours, theirs = rng.randbytes(16), rng.randbytes(16)
            body = [encode_prefix(1, ours), b"body"]
            assert await create_once(store, "c/1", body, ours, rng=rng)
            assert await create_once(store, "c/1", body, ours, rng=rng)
            assert not await create_once(store, "c/1", [encode_prefix(1, theirs)], theirs, rng=rng)
            assert await store.get("c/1") == b"".join(body)

        self.run(check)

    def test_create_by_upload_tells_ours_from_anothers(self) -> None:
        async def check(store: ObjectStore) -> None:
            rng = random.Random(3)
            ours, theirs = rng.randbytes(16), rng.randbytes(16)

            async def parts(write_id: bytes) -> AsyncIterator[list[bytes]]:
                yield [encode_prefix(1, write_id), bytes(PART - 24)]
                yield [b"tail"]

            for write_id, expected in ((ours, True), (ours, True), (theirs, False)):

                def body(write_id: bytes = write_id) -> AsyncIterator[list[bytes]]:
                    return parts(write_id)

                assert await create_by_upload(store, "c/2", body, write_id, rng=rng) is expected
            assert (await store.get("c/2")) == encode_prefix(1, ours) + bytes(PART - 24) + b"tail"
            assert await store.list_uploads("") == []

        self.run(check)


def holding(store: ObjectStore) -> AbstractAsyncContextManager[ObjectStore]:
    """Closes the store at the end."""

    @asynccontextmanager
    async def context() -> AsyncIterator[ObjectStore]:
        try:
            yield store
        finally:
            await store.close()

    return context()
