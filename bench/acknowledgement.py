"""How long does an acknowledgement take, one request in flight on an idle broker?

In rounds, each with raw PUTs of 1 KiB by the same driver beside it; the medians of the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "acknowledgement"
REQUESTS = 200
ROUNDS = 3


def measure(places: Places) -> Iterator[Figure]:
    for place in places.names:
        with places.subject(place) as subject:
            topic = subject.create_topic()
            p50, p99, raw = [], [], []
            for _ in range(ROUNDS):
                if place in ("file", "minio"):
                    raw.append(places.raw(place, put_s=0, get_s=0)["put_p50_ms"])
                found = run_load(
                    "one_by_one", bootstrap=subject.bootstrap, topic=topic, requests=REQUESTS
                )
                p50.append(found["p50_ms"])
                p99.append(found["p99_ms"])
            yield Figure(NAME, "one in flight, p50", place, statistics.median(p50), "ms")
            yield Figure(NAME, "one in flight, p99", place, statistics.median(p99), "ms")
            if raw:
                beside = statistics.median(raw)
                yield Figure(NAME, "(raw PUT of 1 KiB beside it)", place, beside, "ms")
