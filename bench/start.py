"""How long until the ready line, and until a produce to an existing topic is acknowledged?

From the start of the process, interpreter and imports included; the median of a few.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from .figures import Figure
from .load import finish_load, start_load
from .places import Places

NAME = "start"
STARTS = 3


def measure(places: Places) -> Iterator[Figure]:
    for store in places.stores:
        with places.broker(store) as subject:
            topic = "" if store == "memory" else subject.create_topic()
            ready, acknowledged = [], []
            for _ in range(STARTS):
                subject.broker.stop()
                waiting = None
                if topic:
                    waiting = start_load(
                        "first_acknowledged", bootstrap=subject.bootstrap, topic=topic
                    )
                    time.sleep(1.0)  # its own imports
                began, began_wall = time.monotonic(), time.time()
                subject.broker.start()
                ready.append(time.monotonic() - began)
                if waiting is not None:
                    acknowledged.append(finish_load(waiting)["at"] - began_wall)
            yield Figure(NAME, "ready", store, statistics.median(ready), "s")
            if acknowledged:
                first = statistics.median(acknowledged)
                yield Figure(NAME, "first acknowledged produce", store, first, "s")
