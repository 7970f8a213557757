"""Streams without a broker under faults, and the places that runs come by."""

from __future__ import annotations

import pytest

from .lives import run_lives
from .places import ROOT, all_places
from .strike import Strike


@pytest.mark.parametrize("seed", range(4))
def test_every_life_of_a_node_finds_what_was_acknowledged(seed: int) -> None:
    assert run_lives(seed).counts


def test_a_strike_hits_its_place_and_a_run_repeats_exactly() -> None:
    plain = run_lives(5)
    assert plain.trace == run_lives(5).trace
    rarest = min(
        (place for place in plain.places if not plain.struck[place]),
        key=lambda place: (plain.places[place], place),
    )
    for fault in ("crash", "pause"):
        struck = run_lives(5, Strike(rarest, fault))
        assert struck.struck[rarest] and struck.counts


def test_places_of_runs_are_those_of_the_code_or_beginnings_of_coroutines() -> None:
    for place in run_lives(6).places.keys() - all_places():
        path, _, rest = place.partition(":")
        line, _, name = rest.partition(" ")
        source = (ROOT / path).read_text().splitlines()[int(line) - 1]
        assert f"async def {name}(" in source, place
