"""`python -m docs.model`: explore the protocol's models, and find each fault without its rule.

python -m docs.model                  the size of CI, all broken variants, the named scenarios
python -m docs.model --full           larger sizes too (by 64-bit hashes, see explore.py)
python -m docs.model --show NAME      one broken variant or scenario, with its whole trace
python -m docs.model --table          the variants as a table for README.md
"""

from __future__ import annotations

import argparse
import sys
import time

from .catalog import BROKEN, HOLDS, LARGER, SPARE, SUBJECTS, Broken, Size, rules_without_a_fault
from .explore import Found
from .scenarios import SCENARIOS, Scenario


def show_trace(found: Found) -> None:
    for number, what in enumerate(found.trace, 1):
        print(f"    {number:2}. {what}")
    print(f"    => {found.fault}")


def check_size(size: Size, *, exact: bool = True) -> bool:
    found = size.run(exact=exact)
    told = "holds" if found.holds else "FAULT"
    print(
        f"  {told}  {found.states:>9,} states, depth {found.depth:>3}, "
        f"{found.seconds:5.1f} s  {size}",
        flush=True,
    )
    if not found.holds:
        show_trace(found)
    return found.holds


def check_broken(one: Broken) -> bool:
    found = one.size.run()
    if found.fault is None:
        print(f"  NOTHING FOUND without {one.name}: the model does not see what the rule is for")
        return False
    good = one.says in found.fault and len(found.trace) == one.steps
    told = "found" if good else "OTHER"
    print(f"  {told}  {len(found.trace):>2} steps  {one.name}: {found.fault}", flush=True)
    if not good:
        print(f"    expected in {one.steps} steps: {one.says}")
        show_trace(found)
    return good


def check_scenario(scenario: Scenario) -> bool:
    kept, broken = scenario.run(broken=False), scenario.run(broken=True)
    good = kept.holds and broken.fault is not None
    told = "holds" if good else "FAULT"
    print(
        f"  {told}  {scenario.name}: {kept.states:,} states after {len(scenario.script)} steps; "
        f"without {', '.join(scenario.off)}: {broken.fault}",
        flush=True,
    )
    if not kept.holds:
        show_trace(kept)
    return good


def check_all(*, full: bool) -> bool:
    good = True
    began = time.process_time()
    print("Every state holds:")
    for size in (*HOLDS, *SPARE):
        good &= check_size(size)
    if full:
        print("Larger sizes:")
        for size in LARGER:
            good &= check_size(size, exact=False)
    print(f"Without a rule, {len(BROKEN)} planted faults; the shortest way to each:")
    for one in BROKEN:
        good &= check_broken(one)
    for rule in rules_without_a_fault():
        print(f"  NOTHING TRIED without {rule}")
        good = False
    print("Named scenarios:")
    for scenario in SCENARIOS:
        good &= check_scenario(scenario)
    told = "All as it should be" if good else "FAILED"
    print(f"{told}, {time.process_time() - began:.0f} s of a processor")
    return good


def show(name: str) -> bool:
    for one in BROKEN:
        if one.name == name:
            for rule in one.size.off:
                print(f"Without: {SUBJECTS[one.size.subject].RULES[rule]}")
            show_trace(one.size.run())
            return True
    for scenario in SCENARIOS:
        if name in scenario.name:
            print(f"{scenario.name}: {scenario.story}")
            print(f"Without {', '.join(scenario.off)}, after its script:")
            show_trace(scenario.run(broken=True))
            return True
    print(f"there is no {name}; there are:", *(one.name for one in BROKEN), sep="\n  ")
    return False


def table() -> bool:
    print("| without | steps | the rule | what is found |\n|---|---:|---|---|")
    for one in BROKEN:
        rules = "; ".join(SUBJECTS[one.size.subject].RULES[rule] for rule in one.size.off)
        print(f"| `{one.name}` | {one.steps} | {rules} | {one.size.run().fault} |")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="docs.model", description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--show", metavar="NAME")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.show:
        return 0 if show(arguments.show) else 2
    if arguments.table:
        return 0 if table() else 1
    return 0 if check_all(full=arguments.full) else 1


if __name__ == "__main__":
    sys.exit(main())
