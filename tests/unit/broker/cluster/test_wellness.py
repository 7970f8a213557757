"""Brokers that are alive and sick: noticed, relieved of what they lead, taken back when well."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broker.cluster.wellness import Health, Wellness
from broker.controller import NewTopic
from broker.controller.fitness import STARTING, WELL_AFTER_S, Fitness
from objectstore.errors import StoreUnavailable
from objectstore.store import Chunks, ObjectStore
from objectstore.wrappers.passing import PassingStore
from protocol.errors import KafkaError
from s3stream.metadata.image import MetadataImage
from tests.simulation.loop import SimulatedLoop, start_on

from .fleet import Fleet, run
from .test_parts import image_of

BAD = Health(store_ms=2000)
WELL = Health()


def each_half_second(
    image: MetadataImage, told: Sequence[dict[int, Health]]
) -> tuple[list[frozenset[int]], Fitness]:
    """Who is unfit after each of these; node n is incarnation n."""
    loop = SimulatedLoop(1)
    fitness = Fitness(lambda: image)
    found: list[frozenset[int]] = []

    async def main() -> None:
        for one in told:
            for node_id, health in one.items():
                fitness.told(node_id, node_id, health)
            found.append(frozenset(fitness.unfit))
            await asyncio.sleep(0.5)

    loop.run(main())
    return found, fitness


def test_who_is_bad_for_a_while_is_unfit_and_only_after_a_long_while_fit_again() -> None:
    bad, well = {1: WELL, 2: BAD, 3: WELL}, {1: WELL, 2: WELL, 3: WELL}
    half_seconds = int(WELL_AFTER_S * 2)
    found, _ = each_half_second(
        image_of(1, 2, 3), [bad] * 11 + [well] * (half_seconds + 1) + [bad] * 11 + [well] * 70
    )
    assert found[:11] == [frozenset()] * 10 + [frozenset({2})], "five seconds of it"
    assert found[11 : 11 + half_seconds] == [frozenset({2})] * half_seconds
    assert found[11 + half_seconds] == frozenset()
    assert found[-1] == frozenset({2}), "who falls sick again waits longer"


@pytest.mark.parametrize("sick", [(1, 2, 3), (2, 3)])
def test_where_most_are_bad_the_store_is_and_nobody_is_unfit(sick: tuple[int, ...]) -> None:
    told = {one: BAD if one in sick else WELL for one in (1, 2, 3)}
    found, _ = each_half_second(image_of(1, 2, 3), [told] * 40)
    assert set(found) == {frozenset()}


def test_a_moment_is_no_sickness() -> None:
    told = [{1: WELL, 2: BAD if n % 10 < 9 else WELL} for n in range(80)]
    found, _ = each_half_second(image_of(1, 2), told)
    assert set(found) == {frozenset()}


def test_what_hangs_for_long_is_sick_at_once() -> None:
    found, _ = each_half_second(image_of(1, 2), [{1: WELL, 2: Health(store_ms=4000)}])
    assert found == [frozenset({2})]


def test_who_is_unfit_is_passed_by_like_one_that_leaves_and_the_image_is_as_it_was() -> None:
    image = image_of(1, 2)
    found, fitness = each_half_second(image, [{1: WELL, 2: BAD}] * 11)
    assert found[-1] == {2}
    assert [b.incarnation for b in fitness.placing(image).staying_brokers()] == [1]
    assert not image.draining


def test_who_has_registered_is_given_nothing_before_it_serves() -> None:
    image = image_of(1, 2)
    fitness = Fitness(lambda: image)

    async def main() -> None:
        fitness.registered(2)
        fitness.told(2, 2, Health(serving=False))
        assert fitness.unfit == {2: STARTING}
        fitness.told(2, 2, WELL)
        assert fitness.unfit == {}

    SimulatedLoop(1).run(main())


class Shown:
    """Implements `wellness.Symptoms`."""

    def __init__(self) -> None:
        self.is_serving = True
        self.oldest_put_s = 0.0
        self.waits_for_memory: object | None = None
        self.disk_call: object | None = None
        self.answers = True
        self.asked = 0

    async def ask_store(self) -> None:
        self.asked += 1
        if not self.answers:
            await asyncio.sleep(3600)


def test_a_figure_is_the_age_of_what_has_not_ended() -> None:
    async def main() -> None:
        shown = Shown()
        wellness = Wellness(shown)
        assert wellness() == WELL
        shown.waits_for_memory = shown.disk_call = first = object()
        assert wellness() == WELL
        await asyncio.sleep(6)
        assert (wellness().memory_ms, wellness().disk_ms) == (6000, 6000)
        assert "memory" in wellness().complaint()
        shown.waits_for_memory = object()
        assert wellness().memory_ms == 0, "another one waits: somebody was let in"
        assert "disk" in wellness().complaint()
        assert first is shown.disk_call
        shown.oldest_put_s = 1.6
        assert "store" in wellness().complaint()
        shown.oldest_put_s = 0.0
        await asyncio.sleep(2.9)
        assert "store" in wellness().complaint(), "the next one may be as slow"
        await asyncio.sleep(0.2)
        assert "store" not in wellness().complaint()
        assert "loop" in Health().complaint(lag_s=1.0)

    SimulatedLoop(1).run(main())


def test_who_is_called_sick_finds_out_whether_the_store_answers_by_now() -> None:
    async def main() -> None:
        shown = Shown()
        wellness = Wellness(shown)
        shown.answers = False
        wellness.called_sick()
        await asyncio.sleep(2)
        wellness.called_sick()
        assert (shown.asked, wellness().store_ms) == (1, 2000), "one question at a time"
        await wellness.close()
        shown.answers = True
        wellness.called_sick()
        await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        assert (shown.asked, wellness().store_ms) == (2, 0)
        await wellness.close()

    SimulatedLoop(1).run(main())


class Slow(PassingStore):
    """Writes of one process to its log take so long."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.takes_s = 0.0
        self.fails = False

    async def create(self, key: str, chunks: Chunks) -> None:
        if self.fails:
            await asyncio.sleep(1.0)
            raise StoreUnavailable("the way to the store is bad")
        await asyncio.sleep(self.takes_s)
        await self.inner.create(key, chunks)


async def keep_writing(fleet: Fleet, number: int) -> None:
    """A client of that broker."""
    while True:
        for partition in fleet.node(number).partitions.all():
            try:
                await partition.append_internal([(b"k", b"v")])[1]
            except Exception:
                break  # it was moved, or fenced
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("sick", [2, 3])
@pytest.mark.parametrize("fails", [False, True], ids=["slow", "failing"])
def test_a_broker_with_a_bad_way_to_the_store_loses_what_it_leads_within_seconds_and_gets_it_back(
    sick: int, fails: bool
) -> None:
    async def body(fleet: Fleet) -> None:
        seen = {number: Slow(fleet.store) for number in (1, 2, 3)}
        fleet.seen_by = lambda number: seen[number]
        for number in (1, 2, 3):
            await fleet.start(number)
        await fleet.topic(through=1)
        await asyncio.sleep(2)
        writing = start_on(fleet.names[sick], keep_writing(fleet, sick))
        seen[sick].takes_s, seen[sick].fails = 2.5, fails
        took = await fleet.until(lambda: sick not in fleet.leaders(1), 20)
        assert took < 12
        await fleet.until(lambda: -1 not in fleet.leaders(1), 5)
        made = fleet.node(1).controller.create_topics([NewTopic("while-sick", 4)])
        (topic,) = await start_on(fleet.names[1], made)
        assert not isinstance(topic, KafkaError)
        assert sick not in fleet.leaders(1, "while-sick"), "nothing new is placed there"
        writing.cancel()
        seen[sick].takes_s, seen[sick].fails = 0.0, False
        await fleet.until(lambda: fleet.leaders(1).count(sick) >= 1, WELL_AFTER_S + 30)
        assert not fleet.ended

    run(body)


def test_a_store_that_is_slow_for_all_moves_nothing() -> None:
    async def body(fleet: Fleet) -> None:
        seen = {number: Slow(fleet.store) for number in (1, 2, 3)}
        fleet.seen_by = lambda number: seen[number]
        for number in (1, 2, 3):
            await fleet.start(number)
        await fleet.topic(through=1)
        await asyncio.sleep(2)
        before = fleet.leaders(1)
        writing = [start_on(fleet.names[one], keep_writing(fleet, one)) for one in (1, 2, 3)]
        for one in seen.values():
            one.takes_s = 2.5
        await asyncio.sleep(30)
        assert fleet.leaders(1) == before
        for task in writing:
            task.cancel()

    run(body)


@pytest.mark.parametrize("seed", range(3))
def test_a_broker_is_given_nothing_while_its_start_is_not_finished(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.start(1)
        await fleet.topic(through=1, partitions=2)
        seen = Slow(fleet.store)
        fleet.seen_by = lambda number: seen
        # It registers, which others write down, and then does not get on: its own log is slow.
        seen.takes_s = 5.0
        starting = asyncio.create_task(fleet.start(2))
        controller = fleet.node(1).controller
        await fleet.until(lambda: len(controller.image.live_brokers()) == 2, 5)
        incarnation = controller.image.brokers[2].incarnation
        while not starting.done():
            made = controller.create_topics([NewTopic(f"t{fleet.loop.time():.3f}", 2)])
            (topic,) = await start_on(fleet.names[1], made)
            assert not isinstance(topic, KafkaError)
            if not starting.done():
                assert not controller.image.led_by(incarnation)
            await asyncio.sleep(0.01)
        await fleet.until(lambda: bool(controller.image.led_by(incarnation)), 15)

    run(body, seed)
