"""A slow conditional create is sent a second time, and whoever sent it finds its own write id."""

from __future__ import annotations

import asyncio
import random

import pytest

from objectstore.create import create_once
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import PreconditionFailed, StoreUnavailable
from objectstore.header import PREFIX_SIZE, encode_prefix
from objectstore.store import Chunks
from objectstore.wrappers.hedge_create import HedgeCreateConfig, HedgeCreateStore
from objectstore.wrappers.passing import PassingStore
from tests.simulation.loop import SimulatedLoop

CONFIG = HedgeCreateConfig(needed=4, least_s=0.2, budget=2.0, refill=0.0)
ID = b"i" * 16


class Scripted(PassingStore):
    """Each attempt: seconds before it lands, and after that until it is answered; or an error."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__(MemoryStore(loop.now_ms))
        self.script: list[tuple[float, float] | Exception] = []
        self.sent = 0
        self.under_way = 0

    async def create(self, key: str, chunks: Chunks) -> None:
        self.sent += 1
        step = self.script.pop(0) if self.script else (0.01, 0.0)
        self.under_way += 1
        try:
            if isinstance(step, Exception):
                await asyncio.sleep(0.3)
                raise step
            await asyncio.sleep(step[0])
            await self.inner.create(key, chunks)
            await asyncio.sleep(step[1])
        finally:
            self.under_way -= 1


def body_of(write_id: bytes) -> list[bytes]:
    return [encode_prefix(1, write_id) + bytes(8)]


class Scene:
    def __init__(self, loop: SimulatedLoop) -> None:
        self.inner = Scripted(loop)
        self.store = HedgeCreateStore(self.inner, CONFIG)

    async def warm(self) -> None:
        for n in range(4):
            await self.store.create(f"warm-{n}", [b"x"])
        self.inner.sent = 0

    async def once(self, write_id: bytes = ID) -> bool:
        return await create_once(self.store, "k", body_of(write_id), write_id, rng=random.Random(1))


def play(body: object) -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        scene = Scene(loop)
        await scene.warm()
        await body(scene)  # type: ignore[operator]
        assert scene.inner.under_way == 0, "no attempt outlives its caller"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    loop.run(main())


def test_one_in_time_is_sent_once() -> None:
    async def body(scene: Scene) -> None:
        assert await scene.once()
        assert (scene.inner.sent, scene.store.hedged) == (1, 0)

    play(body)


def test_the_second_wins_over_one_that_hangs() -> None:
    async def body(scene: Scene) -> None:
        scene.inner.script = [(60.0, 0.0), (0.01, 0.0)]
        began = asyncio.get_running_loop().time()
        assert await scene.once()
        assert asyncio.get_running_loop().time() - began < 0.3
        assert (scene.inner.sent, scene.store.won) == (2, 1)

    play(body)


def test_the_first_landed_and_its_answer_is_slow_so_the_second_meets_our_own_object() -> None:
    async def body(scene: Scene) -> None:
        scene.inner.script = [(0.01, 60.0), (0.01, 0.0)]
        assert await scene.once(), "412 of the second: the header shows our write id"

    play(body)


def test_the_second_lands_and_the_first_meets_it() -> None:
    async def body(scene: Scene) -> None:
        scene.inner.script = [(0.25, 0.0), (0.02, 60.0)]
        assert await scene.once()

    play(body)


@pytest.mark.parametrize("script", [[(60.0, 0.0), (0.01, 0.0)], [(0.4, 0.0), (60.0, 0.0)]])
def test_another_ones_object_is_not_ours_whichever_attempt_meets_it(
    script: list[tuple[float, float] | Exception],
) -> None:
    async def body(scene: Scene) -> None:
        await scene.inner.inner.create("k", body_of(b"other" + bytes(11)))
        scene.inner.script = script
        assert not await scene.once()

    play(body)


def test_trouble_of_one_waits_for_the_other_and_of_both_is_told() -> None:
    async def body(scene: Scene) -> None:
        scene.inner.script = [StoreUnavailable("first"), (0.5, 0.0)]
        await scene.store.create("a", [b"x"])
        scene.inner.script = [(0.5, 0.0), StoreUnavailable("second")]
        await scene.store.create("b", [b"x"])
        assert scene.store.hedged == 2
        scene.inner.script = [StoreUnavailable("alone")]
        with pytest.raises(StoreUnavailable, match="alone"):
            await scene.store.create("c", [b"x"])  # and the budget is spent

    play(body)


def test_the_budget_bounds_second_requests() -> None:
    async def body(scene: Scene) -> None:
        for n in range(5):
            scene.inner.script = [(1.0, 0.0), (1.0, 0.0)]
            await _either(scene.store, f"b-{n}")
            scene.inner.script = []
        assert scene.store.hedged == 2

    play(body)


async def _either(store: HedgeCreateStore, key: str) -> None:
    try:
        await store.create(key, [b"x"])
    except PreconditionFailed:
        pass


def test_a_caller_that_is_cancelled_ends_both() -> None:
    async def body(scene: Scene) -> None:
        scene.inner.script = [(60.0, 0.0), (60.0, 0.0)]
        task = asyncio.create_task(scene.store.create("k", [b"x"]))
        await asyncio.sleep(1)
        assert scene.inner.under_way == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    play(body)


def test_a_caller_cancelled_as_the_second_wins_is_cancelled() -> None:
    async def body(scene: Scene) -> None:
        scene.inner.script = [(60.0, 0.0), (0.5, 0.0)]
        task = asyncio.create_task(scene.store.create("k", [b"x"]))
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(0.6, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    play(body)


def test_the_prefix_is_what_is_looked_at() -> None:
    assert len(encode_prefix(1, ID)) == PREFIX_SIZE
