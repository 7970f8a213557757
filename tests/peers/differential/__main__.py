"""Run the scripts by hand.

    python -m tests.peers.differential [--kafka PORT] [SCRIPT ...]
    python -m tests.peers.differential --write      makes docs/compatibility.md anew

Peers that are not named are started. Prints every difference that is not documented.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import sys
import tempfile
from pathlib import Path

from . import document
from .run import both_headwaters, kafka_node, run_all
from .session import SCRIPTS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", type=int)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--show", action="store_true", help="Kafka's answers")
    parser.add_argument("scripts", nargs="*")
    asked = parser.parse_args()
    if asked.scripts:
        for name in list(SCRIPTS):
            if not any(fnmatch.fnmatch(name, pattern) for pattern in asked.scripts):
                del SCRIPTS[name]
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kafka_port = asked.kafka or stack.enter_context(kafka_node())
        plain, validating = stack.enter_context(both_headwaters(directory))
        run = run_all(kafka_port, plain, validating)
    failed = False
    for name, outcome in run.outcomes.items():
        problems = [f"   {outcome.failure}"] if outcome.failure else []
        problems += [
            f"   not {'refused' if each.is_error else 'accepted'} by Kafka: "
            f"{each.api_name} v{each.version} [{each.case}] {str(each.answer)[:400]}"
            for each in outcome.kafka
            if each.is_error != each.was_refused
        ]
        shown: set[tuple[str, str]] = set()
        for finding in outcome.findings:
            brief = finding.exchange.case, finding.path
            if brief not in shown:
                problems.append(str(finding))
            shown.add(brief)
        failed |= bool(problems)
        found = f", {len(outcome.findings)} differences" if outcome.findings else ""
        print(f"== {name}: {len(outcome.kafka)} exchanges{found}", *problems, sep="\n")
        if asked.show:
            for each in outcome.kafka:
                print(f"   {each.api_name} v{each.version} [{each.case}] {str(each.answer)[:800]}")
    if asked.write and not failed and not asked.scripts:
        document.PATH.write_text(document.render(run.kafka))
        print(f"wrote {document.PATH}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
