"""How much memory is resident over all processes of a broker: idle, under load, and after it?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from .figures import Figure
from .load import finish_load, start_load
from .places import Places

NAME = "memory"


def measure(places: Places) -> Iterator[Figure]:
    for store in places.stores:
        if store == "memory":
            # A store in memory grows with what is stored, not with the broker.
            with places.broker(store) as subject:
                time.sleep(1.0)
                yield Figure(NAME, "idle", store, subject.resident_bytes() / 1e6, "MB")
            continue
        with places.broker(store) as subject:
            time.sleep(1.0)
            yield Figure(NAME, "idle", store, subject.resident_bytes() / 1e6, "MB")
            topic = subject.create_topic(16)
            load = start_load(
                "produce", bootstrap=subject.bootstrap, topic=topic, partitions=16,
                batch_bytes=64 << 10, connections=4, in_flight=5, seconds=5,
            )  # fmt: skip
            most = 0
            while load.poll() is None:
                most = max(most, subject.resident_bytes())
                time.sleep(0.2)
            finish_load(load)
            yield Figure(NAME, "most, producing at full speed", store, most / 1e6, "MB")
