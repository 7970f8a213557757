from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broker.controller import NewTopic, StartRefused
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import (
    AccessDenied,
    BucketMissing,
    Corrupt,
    StoreUnavailable,
    UnsuitableStore,
)
from objectstore.store import Chunks
from protocol.errors import KafkaError
from s3stream.metadata.tail import load
from tests.simulation.loop import SimulatedLoop
from wal.errors import Fenced
from wal.keys import meta_log

from .cluster import (
    Neighbours,
    StoreCheck,
    identity,
    new_controller,
    new_store,
    nothing_recovered,
    started,
)


def test_the_first_start_tests_the_store_and_makes_the_cluster() -> None:
    async def main() -> None:
        store, check = new_store(), StoreCheck()
        async with started(new_controller(store, check_store=check)) as controller:
            image = controller.image
            assert check.runs == 1
            assert len(image.cluster_id) == 22
            assert (controller.node_id, controller.incarnation, image.term) == (1, 0, 0)
            assert image.brokers[1].listeners[0].port == 9092

    asyncio.run(main())


def test_a_later_start_keeps_the_cluster_and_tests_only_another_door_to_the_store() -> None:
    async def main() -> None:
        store = new_store()
        async with started(new_controller(store)) as controller:
            cluster_id = controller.image.cluster_id
        for name, runs in (("memory", 0), ("s3 http://elsewhere", 1)):
            check = StoreCheck()
            who = identity(store=name)
            async with started(new_controller(store, who, seed=2, check_store=check)) as again:
                assert again.image.cluster_id == cluster_id
                assert check.runs == runs

    asyncio.run(main())


def test_an_unsuitable_store_is_refused_before_anything_is_written() -> None:
    class Unsuitable(StoreCheck):
        async def __call__(self) -> None:
            raise UnsuitableStore("two creates of one key succeeded")

    async def main() -> None:
        store = new_store()
        with pytest.raises(UnsuitableStore):
            await new_controller(store, check_store=Unsuitable()).start()
        assert [info async for info in store.list("")] == []

    asyncio.run(main())


def test_each_start_gets_a_new_incarnation_and_fences_the_older_one_of_its_node() -> None:
    async def main() -> None:
        store = new_store()
        for number in range(4):
            async with started(new_controller(store, seed=number)) as controller:
                assert (controller.node_id, controller.incarnation) == (1, number)
                await controller.finish_failovers(nothing_recovered)
                states = controller.image.incarnations
                assert [s.fenced for _, s in sorted(states.items())] == [True] * number + [False]
                assert controller.image.unended() == []

    asyncio.run(main())


def test_an_answering_broker_of_the_same_node_id_refuses_the_start_by_name() -> None:
    async def main() -> None:
        store = new_store()
        async with started(new_controller(store)) as old:
            other = new_controller(store, identity(1), seed=2, neighbours=Neighbours(1))
            with pytest.raises(StartRefused, match=r"node 1 .* 127\.0\.0\.1:9092.*--take-over"):
                await other.start()
            await old.create_topics([NewTopic("orders")])
            assert "orders" in old.image.topics, "the refused start must not touch the other"

    asyncio.run(main())


def test_take_over_replaces_an_answering_broker_which_learns_who_did_it() -> None:
    async def main() -> None:
        store = new_store()
        old = new_controller(store)
        await old.start()
        who = identity(1, port=9999, take_over=True)
        async with started(new_controller(store, who, seed=2, neighbours=Neighbours(1))):
            with pytest.raises(Exception, match="NOT_CONTROLLER"):
                await old.allocate_producer_ids()
            with pytest.raises(Fenced, match=r"node 1 at 127\.0\.0\.1:9999"):
                await old.run()
            successor = await old.successor()
            assert successor is not None and successor.listeners[0].port == 9999
        await old.abort()

    asyncio.run(main())


def test_a_broker_of_another_node_id_that_answers_stays_in_the_cluster() -> None:
    async def main() -> None:
        for who in (identity(None), identity(2), identity(2, take_over=True)):
            store = new_store()
            async with started(new_controller(store)):
                pass
            new = new_controller(store, who, seed=2, neighbours=Neighbours(1))
            async with started(new):
                assert new.node_id == 2
                assert [b.node_id for b in new.image.live_brokers()] == [1, 2]
                assert new.image.unended() == []

    asyncio.run(main())


def test_a_broker_that_does_not_answer_is_taken_over_at_once_under_any_node_id() -> None:
    async def main() -> None:
        store = new_store()
        async with started(new_controller(store, identity(5))):
            pass
        neighbours = Neighbours()
        async with started(new_controller(store, seed=2, neighbours=neighbours)) as controller:
            assert neighbours.asked == [5]
            assert controller.node_id == 1
            assert [s.node_id for s in controller.image.unended()] == [5]
            await controller.finish_failovers(nothing_recovered)
            assert controller.image.unended() == []

    asyncio.run(main())


def test_an_unreadable_store_is_never_made_anew() -> None:
    async def main() -> None:
        store = new_store()
        async with started(new_controller(store)):
            pass
        key = meta_log(0).key(0)
        data = bytearray(await store.get(key))
        data[100] ^= 1
        await store.delete([key])
        await store.create(key, [data])
        before = [info.key async for info in store.list("")]
        with pytest.raises(Corrupt, match=key):
            await new_controller(store, seed=2).start()
        assert [info.key async for info in store.list("")] == before

    asyncio.run(main())


class ReadOnly(MemoryStore):
    """Whose credentials may read, and write no more."""

    denied = False

    async def create(self, key: str, chunks: Chunks) -> None:
        if self.denied:
            raise AccessDenied(f"{key}: 403 Forbidden")
        await super().create(key, chunks)


@pytest.mark.parametrize("starts_before", [0, 1])
def test_a_store_that_may_not_be_written_stops_the_start(starts_before: int) -> None:
    async def main() -> None:
        store = ReadOnly(lambda: 0)
        for seed in range(starts_before):
            async with started(new_controller(store, seed=seed)):
                pass
        store.denied = True
        with pytest.raises(AccessDenied, match="403"):
            await asyncio.wait_for(new_controller(store, seed=9).start(), 30)

    asyncio.run(main())


class Away(MemoryStore):
    """Away for the first requests."""

    failures = 5

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self._fail()
        return await super().get_ranges(key, ranges)

    async def get(self, key: str) -> bytes:
        self._fail()
        return await super().get(key)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("connection refused")


def test_a_store_that_is_away_is_waited_for_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        store = Away(lambda: 0)
        store.failures = 0
        async with started(new_controller(store)):
            pass
        store.failures = 5
        async with started(new_controller(store, seed=2)) as controller:
            assert controller.incarnation == 1
        assert store.failures == 0

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "the store does not answer: connection refused; trying again until it does"
    ]


def test_many_restarts_are_shortened_by_snapshots() -> None:
    async def main() -> None:
        store = new_store()
        for number in range(25):
            one = new_controller(store, seed=number, snapshot_records=12)
            async with started(one) as controller:
                await controller.finish_failovers(nothing_recovered)
                await controller.allocate_producer_ids()
                for _ in range(50):
                    await asyncio.sleep(0)
        loaded = await load(store)
        assert loaded is not None and loaded.snapshot is not None
        assert loaded.records < 24 and loaded.terms < 6
        assert loaded.image.next_producer_id == 25_000

    asyncio.run(main())


def test_a_start_reads_a_few_terms_however_many_starts_there_were() -> None:
    async def main() -> None:
        store = new_store()
        for number in range(60):
            async with started(new_controller(store, seed=number)) as controller:
                await controller.finish_failovers(nothing_recovered)
                for _ in range(200):
                    await asyncio.sleep(0)
            loaded = await load(store)
            assert loaded is not None and loaded.terms <= 16, (number, loaded.terms)

    asyncio.run(main())


def test_subscribers_see_every_image_in_order_and_before_the_answer() -> None:
    async def main() -> None:
        seen: list[Sequence[object]] = []
        controller = new_controller(new_store())
        controller.subscribe(lambda old, new: seen.append((old.position, new.position)))
        async with started(controller):
            await controller.create_topics([NewTopic("orders")])
            assert seen[-1][1] == controller.image.position
            assert [b for _, b in seen[:-1]] == [a for a, _ in seen[1:]]

    asyncio.run(main())


def test_a_subscriber_that_fails_ends_the_run_loudly_and_harms_no_decision(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        told: list[object] = []
        controller = new_controller(new_store())

        def broken(old: object, new: object) -> None:
            raise RuntimeError("a bug of the test")

        async with started(controller):
            running = asyncio.create_task(controller.run())
            controller.subscribe(broken)
            controller.subscribe(lambda old, new: told.append(new))
            made = await controller.create_topics([NewTopic("orders")])
            assert not isinstance(made[0], KafkaError)
            assert told == [controller.image]
            assert "orders" in controller.image.topics
            with pytest.raises(RuntimeError, match="a bug of the test"):
                await asyncio.wait_for(running, 5)

    asyncio.run(main())
    assert "could not follow the metadata log" in caplog.text


class Moody(ReadOnly):
    """Refuses the first so many requests of a kind, as MinIO does beside an emptied folder."""

    def __init__(self, kind: str, refusals: int) -> None:
        super().__init__(lambda: 0)
        self.kind, self.refusals = kind, refusals

    def _refuse(self, kind: str, key: str) -> None:
        if self.kind == kind and self.refusals:
            self.refusals -= 1
            raise AccessDenied(f"{key}: 403 Forbidden")

    async def create(self, key: str, chunks: Chunks) -> None:
        self._refuse("create", key)
        await super().create(key, chunks)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self._refuse("get", key)
        return await super().get_ranges(key, ranges)


@pytest.mark.parametrize("kind", ["create", "get"])
@pytest.mark.parametrize("starts_before", [0, 2])
def test_a_single_refusal_stops_no_start(kind: str, starts_before: int) -> None:
    async def main() -> None:
        store = Moody(kind, 0)
        for seed in range(starts_before):
            async with started(new_controller(store, seed=seed)):
                pass
        store.refusals = 2
        async with started(new_controller(store, seed=9)) as controller:
            await controller.finish_failovers(nothing_recovered)
            assert controller.image.unended() == []
        assert store.refusals == 0 or (kind == "get" and not starts_before)

    asyncio.run(main())


def test_a_bucket_that_is_missing_stops_the_start_at_the_first_answer() -> None:
    class Missing(MemoryStore):
        creates = 0

        async def create(self, key: str, chunks: Chunks) -> None:
            self.creates += 1
            raise BucketMissing("there is no bucket 'b': create it")

    async def main() -> None:
        store = Missing(lambda: 0)
        with pytest.raises(BucketMissing):
            await asyncio.wait_for(new_controller(store).start(), 5)
        assert store.creates == 1

    asyncio.run(main())


def test_logs_that_may_not_be_ended_stop_the_start() -> None:
    class NoLogs(ReadOnly):
        async def create(self, key: str, chunks: Chunks) -> None:
            if key.startswith("wal/"):
                raise AccessDenied(f"{key}: 403 Forbidden")
            await super().create(key, chunks)

    async def main() -> None:
        store = NoLogs(lambda: 0)
        async with started(new_controller(store)):
            pass
        async with started(new_controller(store, seed=2)) as controller:
            with pytest.raises(AccessDenied, match="wal/"):
                await asyncio.wait_for(controller.finish_failovers(nothing_recovered), 10)

    asyncio.run(main())


def test_a_store_that_takes_no_writes_is_waited_for_and_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full(MemoryStore):
        failures = 0

        async def create(self, key: str, chunks: Chunks) -> None:
            if self.failures:
                self.failures -= 1
                raise StoreUnavailable(f"{key}: the disk is full")
            await super().create(key, chunks)

    async def main() -> None:
        store = Full(lambda: 0)
        async with started(new_controller(store)):
            pass
        store.failures = 60  # five seals at once, each more often than a warning takes
        async with started(new_controller(store, seed=2)):
            assert store.failures == 0

    loop = SimulatedLoop(1)
    loop.run(main())
    (told,) = [record.getMessage() for record in caplog.records]
    assert "the disk is full" in told
