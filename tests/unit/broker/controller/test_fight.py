"""Processes that want the same store at the same time, under every order the loop can draw."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from broker.controller import Controller, Identity, NewTopic, StartRefused, TopicDefaults
from objectstore.errors import StoreError
from s3stream.metadata.image import BrokerRegistration, TopicImage
from s3stream.metadata.tail import load
from tests.simulation.loop import SimulatedLoop, start_on
from tests.simulation.store import ROUGH, SimulatedStore

from .cluster import Rules, identity, nothing_recovered

SEEDS = range(40)


class Town:
    """Several starting processes; one answers once it decided something, until it was fenced."""

    def __init__(self, seed: int) -> None:
        self.loop = SimulatedLoop(seed)
        self.rng = Random(seed)
        self.store = SimulatedStore(self.loop, Random(seed + 1), ROUGH)
        self.serving: dict[int, Controller] = {}
        self.made: list[tuple[str, TopicImage]] = []

    def controller(self, number: int, who: Identity) -> Controller:
        async def answers(broker: BrokerRegistration, cluster_id: str) -> bool:
            await asyncio.sleep(self.rng.random() / 100)
            return broker.incarnation in self.serving

        async def check_store() -> None:
            await asyncio.sleep(0)

        return Controller(
            self.store,
            who,
            rules=Rules(),
            defaults=TopicDefaults,
            answers=answers,
            check_store=check_store,
            now_ms=self.loop.now_ms,
            rng=Random(number),
        )

    async def process(self, number: int, who: Identity) -> str:
        controller = self.controller(number, who)
        try:
            await controller.start()
        except StartRefused:
            return "refused"
        try:
            await controller.finish_failovers(nothing_recovered)
            for n in range(5):
                (topic,) = await controller.create_topics([NewTopic(f"t-{number}-{n}")])
                assert isinstance(topic, TopicImage), topic
                self.made.append((topic.name, topic))
            self.serving[controller.incarnation] = controller
            await self.keep_house(controller)
        except Exception as error:
            assert "NOT_CONTROLLER" in str(error) or "fenced" in str(error), error
            self.serving.pop(controller.incarnation, None)
            return "fenced"
        finally:
            await controller.abort()

    async def keep_house(self, controller: Controller) -> None:
        """An idle controller finds out that it was replaced when it looks, not before."""
        while True:
            await asyncio.sleep(60)
            try:
                await controller.confirm()
            except StoreError:
                continue


@pytest.mark.parametrize("seed", SEEDS)
def test_of_three_starting_processes_exactly_one_decides_in_the_end(seed: int) -> None:
    town = Town(seed)

    async def main() -> None:
        processes = [
            start_on(f"p{number}", town.process(number, identity(1, port=9000 + number)))
            for number in range(3)
        ]
        await asyncio.sleep(3600)
        ends = [task.result() for task in processes if task.done()]
        assert len(ends) == 2, "one serves, the others were refused or fenced"
        assert set(ends) <= {"refused", "fenced"}
        loaded = await load(town.store.inner)
        assert loaded is not None
        (winner,) = town.serving.values()
        assert [b.incarnation for b in loaded.image.live_brokers()] == [winner.incarnation]
        for name, topic in town.made:
            assert loaded.image.topics[name].topic_id == topic.topic_id, "told, and lost"
        for task in processes:
            task.cancel()
        await asyncio.gather(*processes, return_exceptions=True)

    town.loop.run(main())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_paused_controller_wakes_up_fenced_and_decides_nothing(seed: int) -> None:
    town = Town(seed)

    async def main() -> None:
        old = town.controller(1, identity(1))
        started = start_on("old", old.start())
        await started
        deciding = start_on("old", old.create_topics([NewTopic("orders", 3)]))
        await asyncio.sleep(town.rng.random() / 20)
        town.loop.pause("old")
        new = town.controller(2, identity(1, port=9093))
        await new.start()
        await new.finish_failovers(nothing_recovered)
        told_by_new = "orders" in new.image.topics
        town.loop.resume("old")
        (answer,) = await asyncio.gather(deciding, return_exceptions=True)
        if isinstance(answer, list):
            assert told_by_new, "the old one told of a topic that the new one does not have"
        late = await asyncio.gather(old.allocate_producer_ids(), return_exceptions=True)
        assert "NOT_CONTROLLER" in str(late[0])
        loaded = await load(town.store.inner)
        assert loaded is not None
        assert ("orders" in loaded.image.topics) == told_by_new
        await old.abort()
        await new.abort()

    town.loop.run(main())
