"""What was measured: figures by question, setting and place; the table; the file of a run."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One number. place: memory, file, minio or kafka. setting: what was asked of it."""

    question: str
    setting: str
    place: str
    value: float
    unit: str


@dataclass
class Run:
    """All figures of one run, and what the machine was doing meanwhile."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load_before: float = 0.0
    load_after: float = 0.0
    started: str = ""

    def begin(self) -> None:
        self.started = time.strftime("%Y-%m-%d %H:%M")
        self.load_before = os.getloadavg()[0]

    def end(self) -> None:
        self.load_after = os.getloadavg()[0]

    def find(self, question: str, setting: str, place: str) -> float | None:
        for one in self.figures:
            if (one.question, one.setting, one.place) == (question, setting, place):
                return one.value
        return None

    def save(self) -> Path:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path

    @property
    def machine(self) -> str:
        cores = os.cpu_count()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
        return (
            f"{cores} cores, {memory} GiB, {platform.system()}, Python "
            f"{platform.python_version()}, {self.started}; load average before "
            f"{self.load_before:.1f}, after {self.load_after:.1f} (this run's own included)"
        )


def load(path: Path) -> Run:
    kept = json.loads(path.read_text())
    kept["figures"] = [Figure(**one) for one in kept["figures"]]
    return Run(**kept)


def newest() -> Path:
    """The newest file of results. Raises SystemExit without one."""
    found = sorted(RESULTS.glob("*.json"))
    if not found:
        raise SystemExit("there are no results yet: run `python -m bench`")
    return found[-1]


def rows_of(run: Run, places: Sequence[str]) -> list[list[str]]:
    """Question, setting, unit, one cell for each place; in the order of the figures."""
    cells: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in run.figures:
        cells.setdefault((one.question, one.setting, one.unit), {})[one.place] = one.value
    return [
        [*key, *(_number(found.get(place)) for place in places)] for key, found in cells.items()
    ]


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned by spaces; the first three to the left."""
    rows = [list(head), *map(list, rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 3) -> str:
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "|".join(" --- " if i < left else " ---: " for i in range(len(head))) + "|")
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"
