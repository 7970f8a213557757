"""Turns: few in a round, address by address, nobody starved."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.turns import Turns
from tests.simulation.loop import SimulatedLoop


class Asker:
    """Asks `count` times in a row over one connection; `served` is shared and tells whose turn."""

    def __init__(self, turns: Turns, owner: str, count: int, served: list[str]) -> None:
        self.task = asyncio.get_running_loop().create_task(self._ask(turns, owner, count, served))

    async def _ask(self, turns: Turns, owner: str, count: int, served: list[str]) -> None:
        for _ in range(count):
            if not turns.try_take():
                await turns.wait(owner)
            served.append(owner)


def test_whoever_asks_alone_never_waits() -> None:
    async def body() -> None:
        turns = Turns(per_round=4)
        for _ in range(10):
            assert all(turns.try_take() for _ in range(4))
            await asyncio.sleep(0)

    SimulatedLoop(1).run(body())


def test_no_round_begins_more_than_its_number() -> None:
    async def body() -> None:
        turns = Turns(per_round=3)
        served: list[str] = []
        askers = [Asker(turns, f"h{n}", 5, served) for n in range(10)]
        before = 0
        while len(served) < 50:
            await asyncio.sleep(0)
            # A turn is used in the round after the one that gives it.
            assert len(served) - before <= 6
            before = len(served)
        for asker in askers:
            await asker.task

    SimulatedLoop(1).run(body())


def test_a_client_that_asks_now_and_then_goes_before_a_crowd() -> None:
    async def body() -> None:
        turns = Turns(per_round=4)
        served: list[str] = []
        crowd = [Asker(turns, f"h{n % 50}", 1000, served) for n in range(500)]
        for _ in range(100):
            await asyncio.sleep(0)
        for _ in range(5):
            before = len(served)
            good = Asker(turns, "good", 1, served)
            await good.task
            assert len(served) - before <= 20
            for _ in range(10):
                await asyncio.sleep(0)
        for asker in crowd:
            asker.task.cancel()
        await asyncio.wait([asker.task for asker in crowd])

    SimulatedLoop(1).run(body())


def test_those_who_came_first_are_served_though_new_ones_keep_coming() -> None:
    async def body() -> None:
        turns = Turns(per_round=2)
        served: list[str] = []
        old = [Asker(turns, "old", 3, served) for _ in range(3)]
        new: list[Asker] = []
        number = 0
        while not all(asker.task.done() for asker in old):
            number += 1
            assert number < 200, "starved"
            new += [Asker(turns, f"n{number}-{k}", 1, served) for k in range(4)]
            await asyncio.sleep(0)
        for asker in new:
            await asker.task

    SimulatedLoop(1).run(body())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=30)
)
def test_everybody_is_served_whoever_leaves(seed: int, asks: list[tuple[int, int]]) -> None:
    async def body() -> None:
        turns = Turns(per_round=2)
        served: list[str] = []
        askers = [Asker(turns, f"h{owner}", count, served) for owner, count in asks]
        await asyncio.sleep(0)
        for asker in askers[::3]:
            asker.task.cancel()
        for index, asker in enumerate(askers):
            if index % 3:
                await asyncio.wait_for(asker.task, 60)
        if askers[::3]:
            await asyncio.wait([asker.task for asker in askers[::3]])
        for _ in range(3):
            await asyncio.sleep(0)
        assert turns.try_take()

    SimulatedLoop(seed).run(body())
