"""How long from the send of a record to its arrival at a waiting consumer?"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "end to end"
RECORDS = 300


def measure(places: Places) -> Iterator[Figure]:
    for place in places.names:
        with places.subject(place) as subject:
            topic = subject.create_topic()
            found = run_load(
                "end_to_end", bootstrap=subject.bootstrap, topic=topic, records=RECORDS
            )
            yield Figure(NAME, "one record, p50", place, found["p50_ms"], "ms")
            yield Figure(NAME, "one record, p99", place, found["p99_ms"], "ms")
