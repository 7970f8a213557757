"""What does an ordinary client reach? confluent-kafka, the same settings against Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "clients"
SETTINGS: dict[str, Any] = {
    "linger.ms": 5,
    "batch.size": 1_000_000,
    "acks": "all",
    "queue.buffering.max.messages": 200_000,
}
SECONDS = 6.0


def measure(places: Places) -> Iterator[Figure]:
    for place in places.names:
        with places.subject(place) as subject:
            topic = subject.create_topic(4)
            made = run_load(
                "client_produce", bootstrap=subject.bootstrap, topic=topic, seconds=SECONDS,
                record_bytes=1024, settings=SETTINGS,
            )  # fmt: skip
            if made["failures"]:
                raise RuntimeError(f"{place}: {made['failures']}")
            yield Figure(NAME, "produce, 1 KiB records", place, made["mb_per_s"], "MB/s")
            read = run_load(
                "client_consume", bootstrap=subject.bootstrap, topic=topic,
                records=int(made["records_per_s"] * SECONDS * 0.9), seconds=SECONDS,
            )  # fmt: skip
            yield Figure(NAME, "consume, 1 KiB records", place, read["mb_per_s"], "MB/s")
            subject.delete_topic(topic)
