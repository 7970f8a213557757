from __future__ import annotations

import asyncio
from random import Random

import pytest

from broker.controller import Controller, NewTopic, Recovered
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import Corrupt
from objectstore.store import Chunks
from s3stream.metadata.image import IncarnationState, PartitionImage, TopicImage
from s3stream.metadata.records import BlobRef, Position
from wal.format import Kind, compose_blob
from wal.keys import data_key, wal_log
from wal.seal import LogEnd, read_end

from .cluster import new_controller, started

OPENED, NEVER_OPENED = 0, 1


class HangingStore(MemoryStore):
    """Hangs for ever in create number `hang_at` (counted from 0), before or after it happened."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.creates = 0
        self.hang_at = -1
        self.hang_after = False
        self.hung = asyncio.Event()

    async def create(self, key: str, chunks: Chunks) -> None:
        number = self.creates
        self.creates += 1
        if number == self.hang_at and not self.hang_after:
            await self._hang()
        await super().create(key, chunks)
        if number == self.hang_at:
            await self._hang()

    async def _hang(self) -> None:
        self.hung.set()
        await asyncio.get_running_loop().create_future()

    def hang(self, number: int, *, after: bool) -> None:
        self.creates, self.hang_at, self.hang_after = 0, number, after
        self.hung.clear()

    def heal(self) -> None:
        self.hang_at = -1


class Logs:
    """What the write-ahead logs would hold: the openings of each incarnation."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.openings: dict[int, dict[int, Position]] = {}
        self.recoveries: list[BlobRef] = []

    def open(self, controller: Controller, partition: PartitionImage) -> None:
        mine = self.openings.setdefault(controller.incarnation, {})
        mine[partition.stream_id] = partition.appointment

    def recover(self, controller: Controller):  # type: ignore[no-untyped-def]
        rng = Random(controller.incarnation)

        async def recover(state: IncarnationState, ended: LogEnd) -> Recovered:
            assert await read_end(self.store, wal_log(state.incarnation)) is not None
            write_id = rng.randbytes(16)
            key = data_key(controller.incarnation, len(self.recoveries))
            chunks, size = compose_blob(Kind.RECOVERY, controller.incarnation, 0, write_id, b"x")
            await self.store.create(key, chunks)
            ref = BlobRef(key, write_id, size)
            self.recoveries.append(ref)
            return Recovered(self.openings.get(state.incarnation, {}), ref)

        return recover


async def born(store: MemoryStore, logs: Logs) -> TopicImage:
    """A broker that led two partitions, opened one of them for good, and was killed."""
    controller = new_controller(store)
    await controller.start()
    (topic,) = await controller.create_topics([NewTopic("orders", 2)])
    assert isinstance(topic, TopicImage)
    logs.open(controller, topic.partitions[OPENED])
    await controller.opened([(topic.partitions[OPENED].stream_id, 0)])
    await controller.abort()
    return topic


def orders(controller: Controller) -> tuple[PartitionImage, ...]:
    return controller.image.topics["orders"].partitions


def test_new_leaders_get_a_higher_epoch_and_a_source_that_holds_the_contents() -> None:
    async def main() -> None:
        store = HangingStore()
        logs = Logs(store)
        await born(store, logs)
        async with started(new_controller(store, seed=2)) as controller:
            await controller.finish_failovers(logs.recover(controller))
            opened, never = orders(controller)
            at = controller.image.position
            assert opened == PartitionImage(0, 0, 1, 1, at, 0, False)
            assert never == PartitionImage(1, 1, 1, 1, at, None, True)
            state = controller.image.incarnations[0]
            assert state.ended is not None and state.recovery == logs.recoveries[-1]

    asyncio.run(main())


def test_the_source_stays_where_the_dead_leader_never_opened() -> None:
    async def main() -> None:
        store = HangingStore()
        logs = Logs(store)
        await born(store, logs)
        second = new_controller(store, seed=2)
        await second.start()
        await second.finish_failovers(logs.recover(second))
        await second.abort()  # before it opened anything
        async with started(new_controller(store, seed=3)) as third:
            await third.finish_failovers(logs.recover(third))
            opened, never = orders(third)
            assert (opened.leader, opened.leader_epoch, opened.source) == (2, 2, 0)
            assert (never.source, never.is_new) == (None, True)

    asyncio.run(main())


def test_an_opening_that_was_not_recorded_yet_is_found_in_the_dead_log() -> None:
    async def main() -> None:
        store = HangingStore()
        logs = Logs(store)
        await born(store, logs)
        second = new_controller(store, seed=2)
        await second.start()
        await second.finish_failovers(logs.recover(second))
        for partition in orders(second):
            logs.open(second, partition)
        await second.abort()  # killed before "opened" was recorded
        async with started(new_controller(store, seed=3)) as third:
            await third.finish_failovers(logs.recover(third))
            assert [(p.source, p.is_new) for p in orders(third)] == [(1, False), (1, False)]
            await third.opened([(p.stream_id, p.leader_epoch) for p in orders(third)])
            assert [(p.source, p.is_new) for p in orders(third)] == [(None, False), (None, False)]

    asyncio.run(main())


def test_an_opening_that_answers_an_older_appointment_does_not_count() -> None:
    async def main() -> None:
        store = HangingStore()
        logs = Logs(store)
        await born(store, logs)
        second = new_controller(store, seed=2)
        await second.start()
        await second.finish_failovers(logs.recover(second))
        logs.openings[1] = {OPENED: Position(0, 1, 0)}
        await second.abort()
        async with started(new_controller(store, seed=3)) as third:
            await third.finish_failovers(logs.recover(third))
            assert orders(third)[OPENED].source == 0

    asyncio.run(main())


def test_a_log_without_the_opening_that_was_recorded_stops_the_failover() -> None:
    async def main() -> None:
        store = HangingStore()
        logs = Logs(store)
        await born(store, logs)
        logs.openings.clear()
        async with started(new_controller(store, seed=2)) as controller:
            with pytest.raises(Corrupt, match="orders-0"):
                await controller.finish_failovers(logs.recover(controller))

    asyncio.run(main())


async def creates_of_a_failover() -> int:
    store = HangingStore()
    logs = Logs(store)
    await born(store, logs)
    store.creates = 0
    async with started(new_controller(store, seed=2)) as controller:
        await controller.finish_failovers(logs.recover(controller))
        await controller.opened([(p.stream_id, p.leader_epoch) for p in orders(controller)])
    return store.creates


CREATES = asyncio.run(creates_of_a_failover())


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(CREATES))
def test_a_crash_at_any_write_is_mended_by_the_next_start(number: int, after: bool) -> None:
    """Writes: seals and end of the term, first record, seals and end of the log, recovery object,
    the end's record, the opening's record."""

    async def main() -> None:
        store = HangingStore()
        logs = Logs(store)
        await born(store, logs)
        store.hang(number, after=after)
        second = new_controller(store, seed=2)

        async def takes_over() -> None:
            await second.start()
            await second.finish_failovers(logs.recover(second))
            for partition in orders(second):
                logs.open(second, partition)
            await second.opened([(p.stream_id, p.leader_epoch) for p in orders(second)])

        taking_over = asyncio.create_task(takes_over())
        await asyncio.wait_for(store.hung.wait(), 10)
        taking_over.cancel()
        await asyncio.wait([taking_over])
        await second.abort()
        store.heal()

        async with started(new_controller(store, seed=3)) as third:
            await third.finish_failovers(logs.recover(third))
            image = third.image
            assert image.unended() == []
            assert len(image.live_brokers()) == 1
            opened, never = orders(third)
            assert opened.leader == never.leader == third.incarnation
            assert opened.leader_epoch in (1, 2)
            # The newest log that holds the contents: the second's, where it got to open them.
            reached = bool(logs.openings.get(1))
            assert opened.source == (1 if reached else 0)
            assert (never.source, never.is_new) == ((1, False) if reached else (None, True))
            for state in image.incarnations.values():
                assert state.recovery is None or state.recovery in logs.recoveries

    asyncio.run(main())
