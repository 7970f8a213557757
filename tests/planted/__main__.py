"""`python -m tests.planted`: every planted bug is found by the simulation, and nothing else is.

A planted bug is a patch in this folder: a line that says what it does, then a unified diff. It is
applied to a copy of the tree; the product has no switch for it. A bug counts as found by a seed
that fails with the patch and passes without. Those that say "Found with --brokers." above the diff
take several brokers.

    python -m tests.planted                 all of them
    python -m tests.planted NAME ...        some
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PACKAGES = ("protocol", "objectstore", "wal", "s3stream", "broker", "tests")
SEEDS = 250
RUN_TIMEOUT_S = 300


@dataclass(frozen=True)
class Planted:
    name: str
    patch: Path

    @property
    def what(self) -> str:
        return self.patch.read_text().partition("\n")[0]

    @property
    def options(self) -> tuple[str, ...]:
        """Of the simulation that finds it."""
        about = self.patch.read_text().partition("\n--- a/")[0]
        return ("--brokers",) if "Found with --brokers." in about else ()


def planted() -> list[Planted]:
    return [Planted(path.stem, path) for path in sorted(HERE.glob("*.patch"))]


def copy_tree(target: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "peers", "planted")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=ignored)


def apply(patch: Path, tree: Path) -> None:
    """Raises CalledProcessError: it does not fit the tree any more, and must be made anew."""
    subprocess.run(
        ["git", "apply", "--unsafe-paths", f"--directory={tree}", str(patch)],
        cwd="/",
        check=True,
    )


def run(tree: Path, seed: int, options: tuple[str, ...] = ()) -> str | None:
    """None where the seed passes; else the last line of what it says."""
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", "-m", "tests.simulation"),
                *("--seed", str(seed), *options),
            ],
            cwd=tree,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "hangs"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if ": " in line and line[0] != " "]
    return lines[-1] if lines else "failed"


def find(one: Planted, clean: Path, seeds: range) -> tuple[Planted, int | None, str]:
    """The first seed that finds it, and what the seed says."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        try:
            apply(one.patch, tree)
        except subprocess.CalledProcessError:
            return one, None, "the patch does not fit the tree any more"
        for seed in seeds:
            told = run(tree, seed, one.options)
            if told is not None and run(clean, seed, one.options) is None:
                return one, seed, told
    return one, None, ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    asked = parser.parse_args()
    chosen = [one for one in planted() if not asked.names or one.name in asked.names]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="unplanted-") as folder:
        clean = Path(folder)
        copy_tree(clean)
        with ThreadPoolExecutor(asked.jobs) as pool:
            for one, seed, told in pool.map(
                lambda one: find(one, clean, range(asked.seeds)), chosen
            ):
                if seed is None:
                    missed += 1
                    print(f"NOT FOUND  {one.name}: {told or one.what}", flush=True)
                else:
                    print(f"found  {one.name} by seed {seed}: {told[:160]}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} planted bugs found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
