"""How many produce requests of one small record a second?"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "one-record requests"
CONNECTIONS, IN_FLIGHT = 4, 16


def measure(places: Places) -> Iterator[Figure]:
    for place in places.names:
        with places.subject(place) as subject:
            topic = subject.create_topic()
            before = 0.0 if place == "kafka" else subject.cpu_s()
            found = run_load(
                "produce", bootstrap=subject.bootstrap, topic=topic, partitions=1,
                batch_bytes=100, record_bytes=100, connections=CONNECTIONS,
                in_flight=IN_FLIGHT, seconds=4.0,
            )  # fmt: skip
            setting = f"{CONNECTIONS} connections, {IN_FLIGHT} in flight"
            yield Figure(NAME, setting, place, found["requests_per_s"], "1/s")
            if place != "kafka":
                spent = (subject.cpu_s() - before) / found["requests"] * 1e6
                yield Figure(NAME, "broker's processor time", place, spent, "us each")
