"""Many seeds of one log under a writer, two sealers and a collector, in rough weather."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest

from .log_world import World, numbers_of
from .loop import SimulatedLoop, start_on
from .store import FAIR, ROUGH

SEEDS = 300
CHUNKS = 6


def run_seed(
    seed: int, on_step: Callable[[SimulatedLoop, str, tuple[str, ...]], None] | None = None
) -> tuple[World, str]:
    """on_step: see `SimulatedLoop`; it decides then about crashes and pauses."""
    loop = SimulatedLoop(
        seed,
        on_step=(lambda node, places: on_step(loop, node, places)) if on_step else None,
    )
    rng = Random(seed)
    world = World(loop, rng, rng.choice((FAIR, ROUGH, ROUGH)))

    async def main() -> None:
        running = start_on("writer", world.run_writer())
        produced = start_on(
            "writer", world.produce(Random(rng.random()), rng.randrange(20, 80), 0.03)
        )
        confirming = start_on("writer", world.confirm_now_and_then(Random(rng.random())))
        collecting = start_on("collector", world.collect(Random(rng.random()), 0.5))
        await asyncio.sleep(rng.uniform(0.01, 3))
        fate = rng.choice(("go on", "pause", "pause", "crash")) if on_step is None else "go on"
        if fate == "pause":
            loop.pause("writer", rng.choice((0.5, 5, 700)))
        elif fate == "crash":
            loop.crash("writer")
        if rng.random() < 0.2:
            world.store.outage(rng.uniform(0.5, 4))
        sealers = []
        for name in ("one", "two"):
            if rng.random() < 0.5:
                await asyncio.sleep(rng.uniform(0, 0.5))
            sealers.append(start_on(name, world.seal(Random(rng.random()), name.encode())))
        if on_step is None and rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, 0.1))
            loop.pause("one", rng.choice((0.3, 30)))
        await asyncio.sleep(800)  # late writes land, who was paused wakes up
        ends = [sealer.result() for sealer in sealers if sealer.done()]
        crashed = sum(loop.is_crashed(name) for name in ("one", "two"))
        assert len(ends) == 2 - crashed, "a sealer hangs"
        last = await world.seal(Random(1), b"three")
        owners = sum(end.ours for end in (*ends, last))
        assert owners == 1 or (owners == 0 and crashed), ends
        if not loop.is_crashed("writer"):
            async with asyncio.timeout(60):
                await produced
            if not running.done():
                # It had nothing to write: the next attempt, or question, tells it.
                await asyncio.wait([confirming], timeout=60)
            if confirming.done():
                confirming.result()
            async with asyncio.timeout(60):
                assert await running == "fenced"
        world.check_confirmation()
        collecting.cancel()
        await asyncio.wait([collecting])
        if world.taken_over is None:  # the owner crashed before it read the log: others can
            world.check_contents(numbers_of(await world.patiently_read(last.end)))
        else:
            world.check_contents(world.taken_over)

    loop.run(main())
    world.counted.update({f"fault {kind}": n for kind, n in world.store.fired.items()})
    return world, loop.trace


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_acknowledged_batch_is_lost_and_one_owner_follows(chunk: int) -> None:
    for seed in range(chunk, SEEDS, CHUNKS):
        try:
            run_seed(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


def test_the_seeds_went_through_what_they_are_for() -> None:
    counted: Counter[str] = Counter()
    for seed in range(60):
        counted.update(run_seed(seed)[0].counted)
    for what in (
        "trims",
        "deleted",
        "seals",
        "fenced",
        "confirmed",
        "confirm met the end",
        "data landed again at a trimmed key",
        "fault lost_reply",
        "fault late",
        "fault hang",
        "fault before",
        "fault throttled",
        "fault slow",
    ):
        assert counted[what] > 0, f"no run met: {what} ({dict(counted)})"


@pytest.mark.parametrize("seed", [3, 17, 42])
def test_one_seed_run_twice_gives_one_trace(seed: int) -> None:
    assert run_seed(seed)[1] == run_seed(seed)[1]


def test_crash_or_pause_at_every_place_where_writer_or_sealer_waits() -> None:
    """Each await of the log's code and of `create_once`, as found by runs that count them: a node
    is crashed there, paused briefly, and paused until its late writes have landed."""
    visits: dict[tuple[str, str], Counter[int]] = {}
    for seed in range(12):

        def count(_: SimulatedLoop, at: str, seen: tuple[str, ...], *, run: int = seed) -> None:
            if at in ("writer", "one"):
                for place in seen:
                    visits.setdefault((at, place), Counter())[run] += 1

        run_seed(seed, count)
    assert len(visits) > 20, visits

    rng = Random(1)
    for (node, place), by_seed in sorted(visits.items()):
        for what in ("crash", "pause", "long pause"):
            seed = rng.choice(sorted(by_seed))
            # Up to the strike a run is the same as the one that was counted.
            strike = _Strike(node, place, what, rng.randrange(by_seed[seed]))
            try:
                run_seed(seed, strike)
            except BaseException as error:
                error.add_note(f"seed {seed}, {strike}")
                raise
            assert strike.visits_before < 0, f"never happened: seed {seed}, {strike}"


@dataclass
class _Strike:
    """Crash or pause `node` when it is about to go on from `place`, after some visits there."""

    node: str
    place: str
    what: str
    visits_before: int

    def __call__(self, loop: SimulatedLoop, at: str, seen: tuple[str, ...]) -> None:
        if at != self.node or self.visits_before < 0:
            return
        self.visits_before -= seen.count(self.place)
        if self.visits_before >= 0:
            return
        if self.what == "crash":
            loop.crash(at)
        else:
            loop.pause(at, 2 if self.what == "pause" else 650)
