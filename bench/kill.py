"""How long until a broker is ready again after kill -9 under full load, on the same node id?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from .figures import Figure
from .load import finish_load, run_load, start_load
from .places import Places

NAME = "kill -9"
KILLS = 3


def measure(places: Places) -> Iterator[Figure]:
    for store in places.stores:
        if store == "memory":
            continue  # gone with its process
        with places.broker(store) as subject:
            topic, other = subject.create_topic(16), subject.create_topic()
            ready, acknowledged = [], []
            for _ in range(KILLS):
                load = start_load(
                    "produce", bootstrap=subject.bootstrap, topic=topic, partitions=16,
                    batch_bytes=16 << 10, connections=2, in_flight=5, seconds=60,
                )  # fmt: skip
                time.sleep(4.0)
                subject.broker.kill()
                finish_load(load)  # its connections are gone
                began, began_wall = time.monotonic(), time.time()
                subject.broker.start()
                ready.append(time.monotonic() - began)
                found = run_load("first_acknowledged", bootstrap=subject.bootstrap, topic=other)
                acknowledged.append(found["at"] - began_wall)
            yield Figure(NAME, "ready again", store, statistics.median(ready), "s")
            # The client's own start is in it.
            first = statistics.median(acknowledged)
            yield Figure(NAME, "first acknowledged produce", store, first, "s")
