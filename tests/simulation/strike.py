"""Hitting processes where they wait, and what a run went through.

Strike    the place that this run is made for: its process is hit at the first chance
wanted    places drawn by the seed out of all that there are, each hit once, when they come
armed     a fault is due at whatever place comes, the rarer the likelier
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import NamedTuple

from .places import all_places

FAULTS_AT_PLACES = ("crash", "pause", "replace")
# Now and then a process is told to stop there, which cancels what waits. It counts as no hit.
STOPS = 0.1
# Of which a run comes by half, and rests in between.
WANTED = 20
REST_S = 3.0


class Least(NamedTuple):
    """What a run must go through to count: simulated seconds, acknowledged batches, faults."""

    seconds: float
    acknowledged: int
    faults: int


ONE_BROKER = Least(30.0, 300, 3)
SEVERAL_BROKERS = Least(60.0, 500, 5)
# So long a run is as rough as it was drawn; what has done too little by then goes on in calm.
ROUGH_FOR_S = 300.0


@dataclass(frozen=True)
class Strike:
    """At the `visit`-th time that a process waits at `place`: crash, or pause and take over."""

    place: str
    fault: str
    visit: int = 1


@dataclass
class Outcome:
    """What a run went through. places: where processes waited; struck: where one was hit."""

    seed: int
    trace: str
    seconds: float
    counted: Counter[str]
    fired: Counter[str]
    places: Counter[str]
    struck: Counter[str]
    least: Least = ONE_BROKER

    @property
    def counts(self) -> bool:
        """Whether it went through as much as a run must."""
        return (
            self.seconds >= self.least.seconds
            and self.counted["acknowledged"] >= self.least.acknowledged
            and sum(self.fired.values()) >= self.least.faults
        )


class Striker:
    """Decides at each step whether its process is hit there."""

    def __init__(
        self, seed: int, rng: Random, strike: Strike | None, now: Callable[[], float]
    ) -> None:
        self.places: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self.armed = False
        self.strike = strike
        self.strike_done = False
        self._visits = 0
        self._rng = rng
        self._now = now
        self._rests_until = 0.0
        self._begun = now()
        self.calm = False
        """Nobody is hit any more."""
        self._wanted = set(Random(f"wanted {seed}").sample(_every_place(), WANTED))

    def passes(self, places: tuple[str, ...], *, may_be_hit: bool) -> str | None:
        """A process goes on from there; the fault that it is to meet instead.

        may_be_hit: by the run's own faults, too.
        """
        self.places.update(places)
        fault = self._asked_for(places)
        if fault is None and may_be_hit and not self.calm and self._is_due(places):
            fault = self._rng.choice(FAULTS_AT_PLACES)
            if self._rng.random() < STOPS:
                return "stop"
        if fault is not None:
            self.struck.update(places)
            self._wanted.difference_update(places)
        return fault

    def choose(self, durations_s: Sequence[float]) -> float:
        return self._rng.choice(durations_s)

    def _is_due(self, places: tuple[str, ...]) -> bool:
        if not self._wanted.isdisjoint(places) and self._now() >= self._rests_until:
            # Not always the first time.
            if self._rng.random() < 0.5:
                # The longer it lasts the rarer, so that something gets done.
                self._rests_until = self._now() + REST_S + (self._now() - self._begun) / 20
                return True
        elif self.armed:
            # Rare places are the interesting ones.
            rarest = min(self.places[place] for place in places)
            if self._rng.random() < 3.0 / (rarest + 2):
                self.armed = False
                return True
        return False

    def _asked_for(self, places: tuple[str, ...]) -> str | None:
        """The fault of `strike`. Up to it the run is what it is without."""
        if self.strike is None or self.strike_done or self.strike.place not in places:
            return None
        self._visits += 1
        if self._visits < self.strike.visit:
            return None
        self.strike_done = True
        return self.strike.fault


@cache
def _every_place() -> list[str]:
    return sorted(all_places())
