"""What is to be reached on two cores, as ratios within one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .figures import Run


@dataclass(frozen=True)
class Verdict:
    """value: the ratio or figure; bound: what it is held against."""

    name: str
    place: str
    value: float
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def row(self) -> list[str]:
        sign = "at least" if self.at_least else "at most"
        said = "met" if self.met else "NOT MET"
        return [self.name, self.place, f"{sign} {self.bound:g}", f"{self.value:.2f}", said]


def verdicts(run: Run) -> Iterator[Verdict]:
    """Of every target whose figures the run has."""
    for place in ("file", "minio"):
        yield from _ratio(
            run, "acknowledgement p50 / one raw 1 KiB PUT", place, 1.7, False,
            ("acknowledgement", "one in flight, p50", place),
            ("acknowledgement", "(raw PUT of 1 KiB beside it)", place),
        )  # fmt: skip
    yield from _ratio(
        run, "produce, 1 MiB batches / raw PUT", "minio", 0.6, True,
        ("produce", "1 MiB batches, 1 partition", "minio"),
        ("produce", "(raw PUT beside it)", "minio"),
    )  # fmt: skip
    for place in ("file", "minio"):
        yield from _ratio(
            run, "catch-up read / raw GET", place, 0.5, True,
            ("catch-up read", "1 MiB batches", place),
            ("catch-up read", "1 MiB batches (raw GET beside it)", place),
        )  # fmt: skip
    for place in ("memory", "file", "minio"):
        for name, figure, bound in (
            ("ready, seconds", ("start", "ready", place), 1.0),
            ("resident when idle, MB", ("memory", "idle", place), 120.0),
            ("ready after kill -9 under load, seconds", ("kill -9", "ready again", place), 3.0),
        ):
            value = run.find(*figure)
            if value is not None:
                yield Verdict(name, place, value, bound, False)
    for setting in ("produce, 1 KiB records", "consume, 1 KiB records"):
        for place in ("memory", "file", "minio"):
            yield from _ratio(
                run, f"confluent-kafka, {setting} / Apache Kafka", place, 0.7, True,
                ("clients", setting, place), ("clients", setting, "kafka"),
            )  # fmt: skip
    for setting in ("1 MiB batches, 1 partition", "1 MiB batches, 16 partitions",
                    "256 KiB batches, 1 partition", "16 KiB batches, 16 partitions"):  # fmt: skip
        for place in ("memory", "file", "minio"):
            yield from _ratio(
                run, f"produce, {setting} / Apache Kafka", place, 0.7, True,
                ("produce", setting, place), ("produce", setting, "kafka"),
            )  # fmt: skip


def _ratio(
    run: Run,
    name: str,
    place: str,
    bound: float,
    at_least: bool,
    above: tuple[str, str, str],
    below: tuple[str, str, str],
) -> Iterator[Verdict]:
    one, other = run.find(*above), run.find(*below)
    if one is not None and other:
        yield Verdict(name, place, one / other, bound, at_least)
