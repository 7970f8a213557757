"""Run the scripts by hand.

    python -m tests.peers.differential --kafka PORT [--headwater PORT] [SCRIPT ...]

With Kafka alone: prints what it answers. With both: prints the differences.
"""

from __future__ import annotations

import argparse
import fnmatch
import random
import sys
import time
import traceback

from . import scripts as _scripts  # noqa: F401  registers them
from .compare import compare, run_script
from .session import SCRIPTS


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kafka", type=int, required=True)
    parser.add_argument("--headwater", type=int)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("scripts", nargs="*")
    asked = parser.parse_args()
    run = f"d{random.randrange(36**4):05d}"
    failures = 0
    for name in SCRIPTS:
        if asked.scripts and not any(fnmatch.fnmatch(name, p) for p in asked.scripts):
            continue
        started = time.monotonic()
        try:
            kafka = run_script(name, asked.kafka, run)
        except Exception:
            print(f"== {name}: FAILED AT KAFKA")
            print("".join(traceback.format_exc().splitlines(True)[-9:])[-1500:])
            failures += 1
            continue
        wrong = [each for each in kafka if each.is_error != each.was_refused]
        for each in wrong:
            print(f"   unexpected: {each.api_name} v{each.version} [{each.case}] {each.answer}")
        if asked.show:
            for each in kafka:
                print(f"   {each.api_name} v{each.version} [{each.case}] {str(each.answer)[:600]}")
        print(f"== {name}: {len(kafka)} exchanges, {time.monotonic() - started:.1f} s at Kafka")
        if asked.headwater is None:
            continue
        started = time.monotonic()
        try:
            ours = run_script(name, asked.headwater, run)
        except Exception:
            print(f"== {name}: FAILED AT HEADWATER")
            print("".join(traceback.format_exc().splitlines(True)[-9:])[-1500:])
            failures += 1
            continue
        found = compare(kafka, ours).findings
        failures += bool(found)
        shown: set[tuple[str, str, str]] = set()
        for finding in found:
            brief = (finding.exchange.case, finding.path, "")
            if brief not in shown:
                print(finding)
            shown.add(brief)
        print(f"   {len(found)} findings, {time.monotonic() - started:.1f} s at Headwater")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
