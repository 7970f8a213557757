"""The seeds of one log again, with a writer that sends slow objects a second time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from objectstore.wrappers.hedge_create import HedgeCreateConfig, HedgeCreateStore
from wal import LogWriter

from . import test_log
from .log_world import WINDOW, World

SEEDS = 60
CHUNKS = 3
# Early and often, so that both attempts land about as often as one of them does.
EAGER = HedgeCreateConfig(needed=2, factor=1.2, least_s=0.01, budget=1000.0, refill=1.0)


@dataclass
class HedgedWorld(World):
    hedging: list[HedgeCreateStore] = field(default_factory=list)

    def new_writer(self) -> LogWriter:
        store = HedgeCreateStore(self.store, EAGER)
        self.hedging.append(store)
        return LogWriter(
            store,
            self.log,
            WINDOW,
            self.config,
            rng=Random(self.rng.random()),
            on_durable=self._durable,
        )


def run_seed(seed: int, monkeypatch: pytest.MonkeyPatch) -> HedgedWorld:
    monkeypatch.setattr(test_log, "World", HedgedWorld)
    world, _ = test_log.run_seed(seed)
    assert isinstance(world, HedgedWorld)
    return world


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_writer_that_sends_twice_loses_nothing_and_takes_nothing_of_its_own_for_anothers(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: Counter[str] = Counter()
    for seed in range(chunk, SEEDS, CHUNKS):
        try:
            world = run_seed(seed, monkeypatch)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        counted["hedged"] += sum(one.hedged for one in world.hedging)
        counted["won"] += sum(one.won for one in world.hedging)
        counted.update(world.counted)
    for what in ("hedged", "won", "fenced", "trims", "deleted"):
        assert counted[what] > 0, (what, counted)
