"""Many seeds in several processes, and what they covered together."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from .fleet_chaos import FLEET_DEEDS, FLEET_KINDS
from .places import all_places
from .simulation import DEEDS, KINDS
from .strike import FAULTS_AT_PLACES, Outcome, Strike
from .worlds import WORLDS

# Where a place was not reached: so many more seeds of each world, before the next look.
MORE_SEEDS = {"broker": 40, "lives": 40, "fleet": 8}
# A place seen in many seeds is struck in one of these; the run up to it is the same each time.
SEEDS_PER_PLACE = 3


class Job(NamedTuple):
    """One run. world: a key of WORLDS."""

    world: str
    seed: int
    strike: Strike | None = None

    def __str__(self) -> str:
        """The command line that repeats it."""
        told = f"python -m tests.simulation --seed {self.seed}"
        if self.world != "broker":
            told += f" --world {self.world}"
        if self.strike is not None:
            told += f" --strike '{self.strike.place}' --fault {self.strike.fault}"
        return told


@dataclass
class Batch:
    """failures: job and traceback of each. reached: runs that came by a place. too_short: runs that
    went through less than each must.

    brokers: several at a time only.
    """

    brokers: bool = False
    runs: int = 0
    seconds: float = 0.0
    acknowledged: int = 0
    fired: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    reached: dict[str, list[Job]] = field(default_factory=dict)
    struck: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Job, str]] = field(default_factory=list)
    too_short: list[Job] = field(default_factory=list)

    def add(self, job: Job, outcome: Outcome) -> None:
        self.runs += 1
        self.seconds += outcome.seconds
        self.acknowledged += outcome.counted["acknowledged"]
        self.fired.update(outcome.fired)
        self.counted.update(outcome.counted)
        self.struck.update(outcome.struck)
        if not outcome.counts:
            self.too_short.append(job)
        if job.strike is not None:
            return  # what a run comes by after its strike is no place to repeat
        for place in outcome.places:
            jobs = self.reached.setdefault(place, [])
            if len(jobs) < SEEDS_PER_PLACE:
                jobs.append(job)

    @property
    def never_fired(self) -> list[str]:
        kinds, deeds = (FLEET_KINDS, FLEET_DEEDS) if self.brokers else (KINDS, DEEDS)
        missing = [kind for kind in kinds if not self.fired[kind]]
        return missing + [deed for deed in deeds if not self.counted[deed]]

    @property
    def never_reached(self) -> list[str]:
        return sorted(all_places() - self.reached.keys())

    @property
    def never_struck(self) -> list[str]:
        """Of those that were reached."""
        return sorted(place for place in self.reached if not self.struck[place])

    def jobs_for_more(self, attempt: int) -> list[Job]:
        """Further seeds, for places that no run has come by; others at each attempt."""
        if not self.never_reached:
            return []
        return [
            Job(world, (1 + attempt) * 1_000_000 + number)
            for world, count in MORE_SEEDS.items()
            for number in range(count)
        ]

    def jobs_for_places(self, attempt: int) -> list[Job]:
        """A run for each place at which none was hit yet; another one at each attempt."""
        jobs = []
        for number, place in enumerate(self.never_struck):
            known = self.reached[place]
            job = known[attempt % len(known)]
            fault = FAULTS_AT_PLACES[(number + attempt) % len(FAULTS_AT_PLACES)]
            jobs.append(job._replace(strike=Strike(place, fault)))
        return jobs


def seeds_of(count: int, commit: str) -> tuple[list[int], list[int]]:
    """Half fixed, half drawn from the commit's id."""
    fixed = list(range(count - count // 2))
    drawn = [
        int.from_bytes(blake2b(f"{commit} {i}".encode(), digest_size=5).digest(), "big")
        for i in range(count // 2)
    ]
    return fixed, drawn


def commit_id() -> str:
    """Of the checked-out tree; "none" where there is no repository."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return done.stdout.strip()


def run_all(
    jobs: Sequence[Job], batch: Batch, processes: int, *, stop_at_failures: int = 5
) -> None:
    """Adds what the runs did to `batch`, in their order; prints a line now and then."""
    begun = said = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _quiet) as pool:
        for number, (job, result) in enumerate(pool.imap(_run, jobs, chunksize=2), 1):
            if isinstance(result, Outcome):
                batch.add(job, result)
            else:
                batch.failures.append((job, result))
                print(f"FAILED {job}\n{result}", flush=True)
                if len(batch.failures) >= stop_at_failures:
                    pool.terminate()
                    return
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"  {number} of {len(jobs)} runs in {said - begun:.0f} s", flush=True)


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def _run(job: Job) -> tuple[Job, Outcome | str]:
    try:
        return job, WORLDS[job.world](job.seed, job.strike)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return job, traceback.format_exc()
    finally:
        gc.collect()  # what the run left; in it the loop decides when
