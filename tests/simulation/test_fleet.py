"""Several brokers under faults, seed by seed; more by `python -m tests.simulation --brokers`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from .worlds import run_fleet_seed

SEEDS = range(3)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_acknowledged_is_lost_while_brokers_come_go_and_move_partitions(seed: int) -> None:
    outcome = run_fleet_seed(seed)
    assert outcome.counts, outcome


def test_one_seed_of_several_brokers_run_twice_gives_one_trace() -> None:
    first, second = run_fleet_seed(1), run_fleet_seed(1)
    assert (first.trace, first.counted) == (second.trace, second.counted)
