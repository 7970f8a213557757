"""`python -m tests.simulation`: many seeds, or one with everything that happened in it.

--seeds 500 --jobs 2     half fixed, half drawn from the commit, and one in ten as many of streams
                         without a broker, one in forty as many of several brokers; more where a
                         place was not reached; then a run for every place at which none of them
                         crashed or paused a process. A place that is left fails the command
--seed 17                one, with its trace
--brokers                with either: several brokers at a time, instead of one after the other
"""

from __future__ import annotations

import argparse
import sys
import time

from .batch import Batch, Job, commit_id, run_all, seeds_of
from .strike import Strike
from .worlds import WORLDS, simulation_of

ATTEMPTS = 3
# Of as many seeds one is played by several brokers, which some places take.
FLEET_SHARE = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--commit", default=None, help="draw the second half of the seeds from it")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--world", default="broker", choices=WORLDS, help="with --seed")
    parser.add_argument("--strike", help="with --seed: also hit a process that waits there")
    parser.add_argument("--fault", default="crash")
    parser.add_argument("--no-places", action="store_true", help="leave out the second part")
    parser.add_argument("--brokers", action="store_true", help="several brokers at a time")
    asked = parser.parse_args()
    if asked.seed is not None:
        strike = Strike(asked.strike, asked.fault) if asked.strike else None
        world = "fleet" if asked.brokers else asked.world
        return one(Job(world, asked.seed, strike))
    commit = asked.commit or commit_id()
    if asked.brokers:
        return many_brokers(asked.seeds, asked.jobs, commit)
    return many(asked.seeds, asked.jobs, commit, not asked.no_places)


def one(job: Job) -> int:
    if job.world not in ("broker", "fleet"):
        outcome = WORLDS[job.world](job.seed, job.strike)
    else:
        simulation = simulation_of(job.world, job.seed, job.strike)
        lines: list[str] = []
        simulation.loop.on_record = lambda at_s, event: lines.append(f"{at_s - 1000:10.4f} {event}")
        try:
            outcome = simulation.run()
        except BaseException:
            told = [line for line in lines if " store " in line or "chaos" in line]
            print("\n".join(told)[-20_000:])
            print(f"seed {job.seed}: failed", file=sys.stderr)
            raise
        print("\n".join(lines[-200:]))
    print(f"seed {job.seed}: trace {outcome.trace}, {outcome.seconds:.1f} simulated seconds")
    print(dict(outcome.counted), dict(outcome.fired), sep="\n")
    return 0


def many_brokers(count: int, processes: int, commit: str) -> int:
    fixed, drawn = seeds_of(count, commit)
    print(f"seeds 0 to {len(fixed) - 1}, and from commit {commit}: {drawn}", flush=True)
    begun = time.monotonic()
    batch = Batch(brokers=True)
    run_all([Job("fleet", seed) for seed in fixed + drawn], batch, processes)
    tell(batch, time.monotonic() - begun)
    return 0 if judge(batch, places=False) else 1


def many(count: int, processes: int, commit: str, places: bool) -> int:
    fixed, drawn = seeds_of(count, commit)
    print(f"seeds 0 to {len(fixed) - 1}, and from commit {commit}: {drawn}", flush=True)
    begun = time.monotonic()
    batch = Batch()
    shares = {"broker": 1, "lives": 10}
    if places:
        shares["fleet"] = FLEET_SHARE
    jobs = [
        Job(world, seed)
        for world, share in shares.items()
        for seed in (*fixed[: len(fixed) // share], *drawn[: len(drawn) // share])
    ]
    run_all(jobs, batch, processes)
    for attempt in range(ATTEMPTS if places else 0):
        further = batch.jobs_for_more(attempt)
        if further and not batch.failures:
            print(f"{len(further)} more seeds, for {batch.never_reached}", flush=True)
            run_all(further, batch, processes)
    for attempt in range(ATTEMPTS if places else 0):
        further = batch.jobs_for_places(attempt)
        if further and not batch.failures:
            print(f"{len(further)} more runs, for as many places not yet hit", flush=True)
            run_all(further, batch, processes)
    tell(batch, time.monotonic() - begun)
    return 0 if judge(batch, places) else 1


def tell(batch: Batch, seconds: float) -> None:
    print(
        f"{batch.runs} runs, {batch.seconds / 3600:.2f} simulated hours, "
        f"{batch.acknowledged} acknowledged batches in {seconds:.0f} s"
    )
    for kind, times in sorted(batch.fired.items()):
        print(f"  {kind:20} {times}")


def judge(batch: Batch, places: bool) -> bool:
    """Says what is wrong with the batch, if anything."""
    good = not batch.failures and not batch.too_short
    for job, _ in batch.failures:
        print(f"FAILED {job}")
    for job in batch.too_short:
        print(f"TOO SHORT {job}")
    if missing := batch.never_fired:
        good = False
        print(f"never fired: {', '.join(missing)}")
    print(
        f"{len(batch.reached)} places where a process waited, {len(batch.never_struck)} not hit; "
        f"{len(batch.never_reached)} places of the code not reached"
    )
    if not places or batch.failures:
        return good
    for place in batch.never_struck:
        print(f"  not hit: {place}")
    for place in batch.never_reached:
        print(f"  not reached: {place}")
    return good and not batch.never_struck and not batch.never_reached


if __name__ == "__main__":
    sys.exit(main())
