"""Who is cut off, the controller or those who do not hear it (PROTOCOL 8.5): scenarios of the model
`docs/model/silence.py`, played by whole brokers.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from broker.controller import NewTopic
from objectstore.errors import StoreUnavailable
from objectstore.store import Chunks, ObjectInfo, ObjectStore
from objectstore.wrappers.passing import PassingStore
from protocol.errors import KafkaError
from s3stream.metadata.image import MetadataImage
from tests.simulation.loop import start_on

from .fleet import SESSION_TIMEOUT_S, Fleet, run

LONG_S = 1000.0


class CutOff(PassingStore):
    """The way to the store of one process: it may be cut."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.is_cut = False

    def _pass(self) -> None:
        if self.is_cut:
            raise StoreUnavailable("the way to the store is cut")

    async def create(self, key: str, chunks: Chunks) -> None:
        self._pass()
        await self.inner.create(key, chunks)

    async def get(self, key: str) -> bytes:
        self._pass()
        return await self.inner.get(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        self._pass()
        return await self.inner.get_ranges(key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self._pass()
        async for info in self.inner.list(prefix, start_after):
            yield info


async def three(fleet: Fleet, **settings: str) -> None:
    for number in (1, 2, 3):
        await fleet.start(number, **settings)


def led(image: MetadataImage) -> list[tuple[int, int, int]]:
    return [(p.stream_id, p.leader, p.leader_epoch) for _, p in image.partitions()]


def who_decides(fleet: Fleet) -> list[int]:
    return [number for number, life in fleet.lives.items() if life.node.controller.owns_term]


def cut(fleet: Fleet, one: int, other: int) -> None:
    fleet.network.block(f"h{one}", f"h{other}", LONG_S)
    fleet.network.block(f"h{other}", f"h{one}", LONG_S)


async def keep_deciding(fleet: Fleet, through: int) -> None:
    """Until cancelled: a client makes topics through that broker."""
    number = 0
    while True:
        number += 1
        try:
            await fleet.node(through).controller.create_topics([NewTopic(f"of-{number}", 1)])
        except KafkaError:
            pass
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("seed", range(5))
def test_a_dead_process_is_succeeded_before_it_would_be_missed(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        fleet.crash(1)
        took = await fleet.until(lambda: bool(who_decides(fleet)), 10)
        assert took < SESSION_TIMEOUT_S / 2, "its address refuses, so nobody waits to miss it"

    run(body, seed)


def test_a_dead_broker_is_fenced_before_it_would_be_missed() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        fleet.crash(3)
        controller = fleet.node(1).controller
        took = await fleet.until(lambda: len(controller.image.live_brokers()) == 2, 10)
        assert took < SESSION_TIMEOUT_S * 2 / 3

    run(body)


@pytest.mark.parametrize("seed", range(5))
def test_who_alone_does_not_hear_the_controller_does_not_end_its_term(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        term = fleet.node(1).controller.image.term
        cut(fleet, 1, 3)
        await fleet.until(lambda: fleet.node(1).controller.image.brokers[3].fenced, 10)
        await asyncio.sleep(20)
        assert who_decides(fleet) == [1]
        assert fleet.node(1).controller.image.term == term

    run(body, seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_broker_that_gets_no_answers_is_missed_though_it_is_heard(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        term = fleet.node(1).controller.image.term
        incarnation = fleet.node(3).controller.incarnation
        # What it sends arrives, what it is answered does not.
        fleet.network.block("h1", "h3", LONG_S)
        controller = fleet.node(1).controller
        await fleet.until(lambda: controller.image.incarnations[incarnation].fenced, 10)
        assert who_decides(fleet) == [1]
        assert fleet.node(1).controller.image.term == term

    run(body, seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_controller_that_hears_nobody_is_succeeded_however_much_it_writes(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        writing = start_on(fleet.names[1], keep_deciding(fleet, 1))
        await asyncio.sleep(1)
        cut(fleet, 1, 2)
        cut(fleet, 1, 3)
        await fleet.until(lambda: bool({2, 3} & set(who_decides(fleet))), SESSION_TIMEOUT_S * 2.5)
        image = next(n.controller.image for n in fleet.nodes()[1:] if n.controller.owns_term)
        assert not image.brokers[2].fenced and not image.brokers[3].fenced
        writing.cancel()

    run(body, seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_controller_that_cannot_write_is_succeeded_however_well_it_answers(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        seen = {number: CutOff(fleet.store) for number in (1, 2, 3)}
        fleet.seen_by = lambda number: seen[number]
        await three(fleet)
        await asyncio.sleep(SESSION_TIMEOUT_S * 3)
        assert who_decides(fleet) == [1], "one that has nothing to write is not suspected"
        seen[1].is_cut = True
        made = start_on(
            fleet.names[2], fleet.node(2).controller.create_topics([NewTopic("first", 1)])
        )
        await fleet.until(lambda: bool({2, 3} & set(who_decides(fleet))), SESSION_TIMEOUT_S * 2)
        await asyncio.wait([made])
        assert isinstance(made.exception() or made.result(), KafkaError | list)
        term = max(node.controller.image.term for node in fleet.nodes())
        await fleet.until(lambda: fleet.node(3).controller.image.term == term, 5)
        asked = fleet.node(3).controller.create_topics([NewTopic("second", 1)])
        (second,) = await start_on(fleet.names[3], asked)
        assert not isinstance(second, KafkaError), second
        seen[1].is_cut = False
        await fleet.until(lambda: fleet.lives[1].rejoined == 1 and fleet.is_open("second"), 10)

    run(body, seed)


def test_a_store_that_is_away_for_all_costs_nobody_the_term() -> None:
    async def body(fleet: Fleet) -> None:
        seen = {number: CutOff(fleet.store) for number in (1, 2, 3)}
        fleet.seen_by = lambda number: seen[number]
        await three(fleet)
        writing = start_on(fleet.names[1], keep_deciding(fleet, 1))
        await asyncio.sleep(1)
        for one in seen.values():
            one.is_cut = True
        await asyncio.sleep(SESSION_TIMEOUT_S * 4)
        for one in seen.values():
            one.is_cut = False
        await asyncio.sleep(SESSION_TIMEOUT_S * 2)
        assert who_decides(fleet) == [1]
        assert fleet.node(1).controller.image.term == 0
        writing.cancel()

    run(body)


@pytest.mark.parametrize("sleeper", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_stall_of_two_seconds_costs_no_leadership(sleeper: int, seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=1)
        before = fleet.node(1).controller.image
        fleet.loop.pause(fleet.names[sleeper], 2.0)
        await asyncio.sleep(SESSION_TIMEOUT_S * 3)
        after = fleet.node(1).controller.image
        assert after.term == before.term
        assert [b.incarnation for b in after.live_brokers()] == [
            b.incarnation for b in before.live_brokers()
        ]
        assert led(after) == led(before), "the same leaders, at the same epochs"

    run(body, seed)


def asked_while_it_slept(
    ask: Callable[[Fleet], asyncio.Task[object]],
) -> Callable[[int], None]:
    def play(seed: int) -> None:
        async def body(fleet: Fleet) -> None:
            await three(fleet)
            await fleet.topic(through=1)
            began = fleet.loop.time()
            fleet.loop.pause(fleet.names[1])
            await asyncio.wait([ask(fleet)])
            assert fleet.loop.time() - began < SESSION_TIMEOUT_S + 2, "it waited for the sleeper"
            fleet.loop.resume(fleet.names[1])

        run(body, seed)

    return play


@pytest.mark.parametrize("seed", range(5))
def test_who_waits_for_a_controller_is_answered_by_its_successor(seed: int) -> None:
    def ask(fleet: Fleet) -> asyncio.Task[object]:
        # Both: one of them succeeds, and has to answer itself; the other finds a new address.
        async def both() -> None:
            asked = (
                start_on(fleet.names[one], fleet.node(one).controller.allocate_producer_ids())
                for one in (2, 3)
            )
            (first, second) = await asyncio.gather(*asked)
            assert first != second

        return start_on(fleet.names[2], both())

    asked_while_it_slept(ask)(seed)
