"""Consumers read in their racks while leaders move and die, and objects are merged and deleted."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from .racks import run_rack_seed


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", [2, 4])
def test_readers_in_other_racks_read_everything_once_and_in_order(seed: int) -> None:
    counted = run_rack_seed(seed).history.counted
    assert counted["read in rack"] > 0
    assert counted["sent to a rack"] > 0
