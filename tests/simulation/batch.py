"""Many seeds in several processes, and what they covered together."""

from __future__ import annotations

import logging
import multiprocessing
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from .fleet_simulation import FLEET_DEEDS, FLEET_KINDS, run_fleet_seed
from .simulation import DEEDS, KINDS, STRIKES, Outcome, Strike, run_seed

Job = tuple[int, Strike | None]

# A place seen in many seeds is struck in one of these; the run up to it is the same each time.
SEEDS_PER_PLACE = 3


@dataclass
class Batch:
    """failures: seed, strike and traceback of each. reached: seeds that came by a place.

    brokers: several at a time, see `fleet_simulation`; else one, see `simulation`.
    """

    brokers: bool = False
    runs: int = 0
    seconds: float = 0.0
    acknowledged: int = 0
    least_acknowledged: int = 1 << 30
    fired: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    reached: dict[str, list[int]] = field(default_factory=dict)
    struck: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Job, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.seconds += outcome.seconds
        acknowledged = outcome.counted["acknowledged"]
        self.acknowledged += acknowledged
        self.least_acknowledged = min(self.least_acknowledged, acknowledged)
        self.fired.update(outcome.fired)
        self.counted.update(outcome.counted)
        self.struck.update(outcome.struck)
        for place in outcome.places:
            seeds = self.reached.setdefault(place, [])
            if len(seeds) < SEEDS_PER_PLACE:
                seeds.append(outcome.seed)

    @property
    def never_fired(self) -> list[str]:
        kinds, deeds = (FLEET_KINDS, FLEET_DEEDS) if self.brokers else (KINDS, DEEDS)
        missing = [kind for kind in kinds if not self.fired[kind]]
        return missing + [deed for deed in deeds if not self.counted[deed]]

    @property
    def never_struck(self) -> list[str]:
        return sorted(place for place in self.reached if not self.struck[place])

    def jobs_for_places(self) -> Iterator[Job]:
        """Runs that strike where none has yet."""
        for number, place in enumerate(self.never_struck):
            seeds = self.reached[place]
            for seed in seeds:
                yield seed, Strike(place, STRIKES[(number + seed) % len(STRIKES)])


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
    """Adds what the runs did to `batch`; prints a line now and then."""
    begun = said = time.monotonic()
    context = multiprocessing.get_context("spawn")
    run = _run_fleet if batch.brokers else _run
    with context.Pool(processes, _quiet) as pool:
        for number, (job, result) in enumerate(pool.imap_unordered(run, jobs, chunksize=2), 1):
            if isinstance(result, Outcome):
                batch.add(result)
            else:
                batch.failures.append((job, result))
                print(f"FAILED {describe(job, batch.brokers)}\n{result}", flush=True)
                if len(batch.failures) >= stop_at_failures:
                    pool.terminate()
                    return
            if time.monotonic() - said > 10:
                said = time.monotonic()
                print(f"  {number} of {len(jobs)} runs in {said - begun:.0f} s", flush=True)


def describe(job: Job, brokers: bool = False) -> str:
    """The command line that repeats a run."""
    seed, strike = job
    told = f"python -m tests.simulation --seed {seed}{' --brokers' if brokers else ''}"
    return told if strike is None else f"{told} --strike '{strike.place}' --fault {strike.fault}"


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def _run(job: Job) -> tuple[Job, Outcome | str]:
    return _told(job, lambda: run_seed(*job))


def _run_fleet(job: Job) -> tuple[Job, Outcome | str]:
    return _told(job, lambda: run_fleet_seed(job[0]))


def _told(job: Job, run: Callable[[], Outcome]) -> tuple[Job, Outcome | str]:
    try:
        return job, run()
    except KeyboardInterrupt:
        raise
    except BaseException:
        return job, traceback.format_exc()
