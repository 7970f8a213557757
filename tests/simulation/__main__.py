"""`python -m tests.simulation`: many seeds, or one with everything that happened in it.

--seeds 500 --jobs 2     half fixed, half drawn from the commit; then a run for every place at
                         which none of them crashed or paused a process
--seed 17                one, with its trace
--brokers                with either: several brokers at a time, instead of one after the other
"""

from __future__ import annotations

import argparse
import sys
import time

from .batch import Batch, commit_id, describe, run_all, seeds_of
from .fleet_simulation import FleetSimulation
from .simulation import LEAST_ACKNOWLEDGED, Simulation, Strike


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--commit", default=None, help="draw the second half of the seeds from it")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--strike", help="with --seed: also hit a process that waits there")
    parser.add_argument("--fault", default="crash")
    parser.add_argument("--no-places", action="store_true", help="leave out the second part")
    parser.add_argument("--brokers", action="store_true", help="several brokers at a time")
    asked = parser.parse_args()
    if asked.seed is not None:
        strike = Strike(asked.strike, asked.fault) if asked.strike else None
        if asked.brokers:
            return one(asked.seed, FleetSimulation(asked.seed))
        return one(asked.seed, Simulation(asked.seed, strike))
    places = not asked.no_places and not asked.brokers
    return many(asked.seeds, asked.jobs, asked.commit or commit_id(), places, asked.brokers)


def one(seed: int, simulation: Simulation | FleetSimulation) -> int:
    lines: list[str] = []
    simulation.loop.on_record = lambda at_s, event: lines.append(f"{at_s - 1000:10.4f} {event}")
    try:
        outcome = simulation.run()
    except BaseException:
        print("\n".join(line for line in lines if " store " in line or "chaos" in line)[-20_000:])
        print(f"seed {seed}: failed", file=sys.stderr)
        raise
    print("\n".join(lines[-200:]))
    print(f"seed {seed}: trace {outcome.trace}, {outcome.seconds:.1f} simulated seconds")
    print(dict(outcome.counted), dict(outcome.fired), sep="\n")
    return 0


def many(count: int, jobs: int, commit: str, places: bool, brokers: bool) -> int:
    fixed, drawn = seeds_of(count, commit)
    print(f"seeds 0 to {len(fixed) - 1}, and from commit {commit}: {drawn}", flush=True)
    begun = time.monotonic()
    batch = Batch(brokers)
    run_all([(seed, None) for seed in fixed + drawn], batch, jobs)
    if places and not batch.failures:
        extra = list(batch.jobs_for_places())
        print(f"{len(extra)} more runs, for {len(batch.never_struck)} places not yet hit")
        run_all(extra, batch, jobs)
    print(
        f"{batch.runs} runs, {batch.seconds / 3600:.2f} simulated hours, "
        f"{batch.acknowledged} acknowledged batches ({batch.least_acknowledged} at least) "
        f"in {time.monotonic() - begun:.0f} s"
    )
    for kind, times in sorted(batch.fired.items()):
        print(f"  {kind:20} {times}")
    good = not batch.failures
    for job, _ in batch.failures:
        print(f"FAILED {describe(job, brokers)}")
    if batch.runs and batch.least_acknowledged < LEAST_ACKNOWLEDGED:
        good = False
        print("a run had too few acknowledged batches")
    if missing := batch.never_fired:
        good = False
        print(f"never fired: {', '.join(missing)}")
    if not brokers:
        not_hit = len(batch.never_struck)
        print(f"{len(batch.reached)} places where a process waited, {not_hit} not hit")
    if places and not batch.failures and batch.never_struck:
        good = False
        print("\n".join(f"  not hit: {place}" for place in batch.never_struck))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
