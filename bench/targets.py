"""What is to be reached on two cores, as ratios within one run where something is compared."""

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
    yield from _cluster(run)


def _cluster(run: Run) -> Iterator[Verdict]:
    """Seconds, and KiB, of several brokers."""
    for question, setting, bound in (
        ("cluster", "default: kill -9 of a leader, silence of what it led, p50", 5.0),
        ("cluster", "default: kill -9 of a leader, silence of what it led, worst", 10.0),
        ("cluster", "default: kill -9 of a controller, silence of what it led, worst", 10.0),
        ("cluster", "session 2 s: kill -9 of a leader, silence of what it led, worst", 4.0),
        ("cluster", "session 2 s: kill -9 of a controller, silence of what it led, worst", 4.0),
        ("cluster", "default: the next controller decides, after suspicion", 2.0),
        ("cluster", "one partition moved: its silence, worst", 0.3),
        ("cluster", "all of 1,000 partitions to one broker: in all", 5.0),
        ("cluster", "all of 1,000 partitions to one broker: silence of a partition, worst", 1.0),
        ("cluster", "a third broker: from start to its share of 1,000 partitions", 10.0),
        ("cluster", "a broker with all of 1,000 partitions is stopped: in all", 10.0),
        ("cluster scale", "100,000 partitions: three started, all led", 60.0),
        ("cluster scale", "memory of a partition that is known", 8.0),
        ("cluster scale", "100,000 partitions, all led by one: memory", 20.0),
    ):
        for place in ("file", "minio"):
            value = run.find(question, setting, place)
            if value is not None:
                yield Verdict(setting, place, value, bound, False)


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
