"""The whole broker under faults, seed by seed; more of them by `python -m tests.simulation`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from .simulation import DEEDS, KINDS, run_seed
from .strike import Outcome

SEEDS = range(24)
CHUNKS = 8
_ran: dict[int, Outcome] = {}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _run(seed: int) -> Outcome:
    if seed not in _ran:
        _ran[seed] = run_seed(seed)
    return _ran[seed]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_acknowledged_is_lost_doubled_reordered_or_changed(chunk: int) -> None:
    for seed in SEEDS[chunk::CHUNKS]:
        outcome = _run(seed)
        assert outcome.counts, outcome


@pytest.mark.parametrize("seed", [1, 5])
def test_one_seed_run_twice_gives_one_trace(seed: int) -> None:
    first, second = _run(seed), run_seed(seed)
    assert (first.trace, first.counted) == (second.trace, second.counted)


def test_every_kind_of_fault_and_of_deed_occurs_within_a_few_seeds() -> None:
    missing = [*KINDS, *DEEDS]
    for seed in SEEDS:
        outcome = _run(seed)
        missing = [one for one in missing if not outcome.fired[one] + outcome.counted[one]]
        if not missing:
            return
    raise AssertionError(f"never happened: {missing}")
