"""`python -m tests.chaos [FAULT ...]`: do each of them, print a table, keep it with its chart."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.peers.processes import Minio

from .clients import JAVA, KINDS, have_java
from .faults import CASES
from .report import Row, table, write
from .run import Outcome, run_fault


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FAULT", help="default: all")
    parser.add_argument("--list", action="store_true", help="the faults, and end")
    parser.add_argument("--times", type=int, default=1, help="do each so often")
    parser.add_argument("--clients", default=",".join(KINDS), help=f"of {','.join(KINDS)}")
    parser.add_argument("--keep", type=Path, help="keep logs and histories here")
    parser.add_argument(
        "--write", action="store_true", help="put it into docs/chaos.md and its chart"
    )
    given = parser.parse_args()
    if given.list:
        for name, case in CASES.items():
            print(f"{name:26} {case.what}")
        return 0
    kinds = [one for one in given.clients.split(",") if one != JAVA or have_java()]
    if unknown := [one for one in given.names if one not in CASES] + sorted({*kinds} - {*KINDS}):
        parser.error(f"no such fault or client: {', '.join(unknown)}")
    outcomes: list[Outcome] = []
    minio = Minio().start()
    try:
        for name in given.names or CASES:
            for number in range(given.times):
                outcomes.append(one_run(name, number, minio, kinds, given.keep))
    finally:
        minio.stop()
    rows = [Row.of(one) for one in outcomes]
    print(table(rows))
    if given.write:
        print(f"written to {write(rows, CASES)}")
    return 0 if all(one.verdict.is_clean and not one.stuck for one in outcomes) else 1


def one_run(name: str, number: int, minio: Minio, kinds: list[str], keep: Path | None) -> Outcome:
    case = CASES[name]
    print(f"{name}: {case.what}", file=sys.stderr, flush=True)
    directory = Path(tempfile.mkdtemp(prefix="headwater-chaos-"))
    try:
        outcome = run_fault(name, case.act, minio, directory, kinds, case.brokers, case.proxied)
        for line in outcome.complaints():
            print(f"    {line}", file=sys.stderr, flush=True)
        if keep is not None:
            shutil.copytree(directory, keep / f"{name}-{number}", dirs_exist_ok=True)
        return outcome
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
