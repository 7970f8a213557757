"""What is the store asked, and what would that cost at AWS: per GiB in, and idle?

The idle broker has served a client; ten seconds later it must be silent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "store requests"
REQUESTS = "headwater_store_requests_total"
DOLLARS = "headwater_store_request_dollars_total"
IDLE_S = 20.0


def measure(places: Places) -> Iterator[Figure]:
    for store in places.stores:
        with places.broker(store) as subject:
            for setting, size_bytes, partitions in (
                ("1 MiB batches", 1 << 20, 1),
                ("16 KiB batches, 16 partitions", 16 << 10, 16),
            ):
                topic = subject.create_topic(partitions)
                before = subject.metrics()
                made = run_load(
                    "produce", bootstrap=subject.bootstrap, topic=topic, partitions=partitions,
                    batch_bytes=size_bytes, connections=2, in_flight=5, seconds=30,
                    warm_up_s=0, max_bytes=512 << 20,
                )  # fmt: skip
                after = subject.metrics()
                per_gib = (1 << 30) / made["bytes"]
                asked = (after[REQUESTS] - before[REQUESTS]) * per_gib
                yield Figure(NAME, f"{setting}", store, asked, "per GiB in")
                paid = (after[DOLLARS] - before[DOLLARS]) * per_gib
                yield Figure(NAME, f"{setting}, at list price", store, paid, "$ per GiB")
            before = subject.metrics()
            time.sleep(IDLE_S)
            after = subject.metrics()
            asked = after[REQUESTS] - before[REQUESTS]
            setting = f"in the {IDLE_S:.0f} s after that (uploads, merging)"
            yield Figure(NAME, setting, store, asked, "requests")
        yield _idle(places, store)


def _idle(places: Places, store: str) -> Figure:
    """A broker that has served a little and is then left alone."""
    with places.broker(store) as subject:
        topic = subject.create_topic()
        run_load("one_by_one", bootstrap=subject.bootstrap, topic=topic, requests=100)
        time.sleep(12.0)
        before = subject.metrics()
        time.sleep(IDLE_S)
        asked = subject.metrics()[REQUESTS] - before[REQUESTS]
    return Figure(NAME, "idle broker", store, asked * 86_400 / IDLE_S, "per day")
