"""The table of a run and its chart; both are made of rows that are kept, so that one fault can be
measured again.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .clients import AIOKAFKA, JAVA, RDKAFKA
from .run import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "chaos.md"
CHART = PAGE.with_suffix(".svg")
KEPT = Path(__file__).with_name("results.json")
BEGIN, END = "<!-- figures begin -->", "<!-- figures end -->"
COLOURS = {RDKAFKA: "#4477aa", AIOKAFKA: "#ddaa33", JAVA: "#bb5566"}
HEAD = (
    "fault", "acknowledged", "lost", "duplicated", "reordered", "errors",
    "longest without an acknowledgement, s", "longest without a delivery, s",
    "p99 of the first 10 s", "",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Of one fault. Silences in seconds, by client; p99_s None where nothing was sent."""

    name: str
    when: str
    acknowledged: int
    lost: int
    duplicated: int
    reordered: int
    errors: dict[str, int]
    without_acknowledgement_s: dict[str, float]
    without_delivery_s: dict[str, float]
    p99_s: float | None
    stuck: bool

    @staticmethod
    def of(one: Outcome) -> Row:
        verdict, figures = one.verdict, one.figures
        silences = {
            name.removesuffix("-producer"): round(gap, 2)
            for name, gap in figures.acknowledgement_gaps_s.items()
        }
        return Row(
            name=one.name,
            when=time.strftime("%Y-%m-%d %H:%M"),
            acknowledged=figures.acknowledged,
            lost=len(verdict.lost),
            duplicated=len(verdict.duplicated),
            reordered=len(verdict.reordered) + len(verdict.went_back),
            errors=dict(sorted(Counter(error.what for error in figures.errors).items())),
            without_acknowledgement_s=silences,
            without_delivery_s={k: round(gap, 2) for k, gap in figures.delivery_gaps_s.items()},
            p99_s=None if figures.p99_s is None else round(figures.p99_s, 3),
            stuck=bool(one.stuck),
        )

    def cells(self) -> tuple[str, ...]:
        errors = ", ".join(f"{count} {what}" for what, count in self.errors.items())
        bad = self.lost or self.duplicated or self.reordered
        return (
            self.name, f"{self.acknowledged:,}", str(self.lost), str(self.duplicated),
            str(self.reordered), errors or "0", _by_client(self.without_acknowledgement_s),
            _by_client(self.without_delivery_s),
            "" if self.p99_s is None else f"{self.p99_s:.2f} s",
            "STUCK" if self.stuck else "FAULT" if bad else "",
        )  # fmt: skip


def _by_client(silences: dict[str, float]) -> str:
    return ", ".join(f"{client} {gap:.1f}" for client, gap in silences.items())


def table(rows: Iterable[Row]) -> str:
    lines = [HEAD, *(one.cells() for one in rows)]
    widths = [max(len(one[i]) for one in lines) for i in range(len(HEAD))]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(one, widths, strict=True)) + " |"
        for one in lines
    ]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:]])


def write(rows: Sequence[Row], order: Iterable[str]) -> Path:
    """These rows in the place of those kept of the same faults; then the page and its chart."""
    kept: dict[str, Row] = {}
    if KEPT.exists():
        kept = {one["name"]: Row(**one) for one in json.loads(KEPT.read_text())}
    kept.update({one.name: one for one in rows})
    shown = [kept[name] for name in order if name in kept]
    KEPT.write_text(json.dumps([asdict(one) for one in shown], indent=1) + "\n")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    about = (
        f"Measured on {os.cpu_count()} cores, {memory} GiB, {platform.system()}, Python "
        f"{platform.python_version()}, {min(one.when for one in shown)} to "
        f"{max(one.when for one in shown)}; brokers, clients and MinIO share the machine."
    )
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{about}\n\n{table(shown)}\n{END}{after}")
    CHART.write_text(chart(shown))
    return PAGE


def chart(rows: Iterable[Row]) -> str:
    """SVG: for each fault a bar for each client, as long as its longest silence."""
    bars: list[tuple[str, str, float]] = []
    for one in rows:
        name = one.name
        for client, gap in one.without_acknowledgement_s.items():
            bars.append((name, client, gap))
            name = ""
    longest = max((gap for _, _, gap in bars), default=0.0) or 1.0
    height = 40 + sum(22 if name else 16 for name, _, _ in bars)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}"'
    lines = [
        f'{head} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20" font-size="14">Longest time without an acknowledgement</text>',
    ]
    y = 28
    for name, client, gap in bars:
        y += 22 if name else 16
        width = 420 * gap / longest
        fill = COLOURS.get(client, "grey")
        lines += [
            f'<text x="10" y="{y}">{name}</text>',
            f'<rect x="200" y="{y - 10}" width="{width:.1f}" height="12" fill="{fill}"/>',
            f'<text x="{206 + width:.1f}" y="{y}">{client} {gap:.1f} s</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
