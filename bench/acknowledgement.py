"""How long does an acknowledgement take, one request in flight on an idle broker?"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "acknowledgement"
REQUESTS = 400


def measure(places: Places) -> Iterator[Figure]:
    for place in places.names:
        with places.subject(place) as subject:
            topic = subject.create_topic()
            found = run_load(
                "one_by_one", bootstrap=subject.bootstrap, topic=topic, requests=REQUESTS
            )
            yield Figure(NAME, "one in flight, p50", place, found["p50_ms"], "ms")
            yield Figure(NAME, "one in flight, p99", place, found["p99_ms"], "ms")
