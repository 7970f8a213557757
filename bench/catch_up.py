"""How fast is history read after a restart, with every cache of the broker cold?

(What the operating system keeps of the store's files stays, here as for the raw GETs.)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "catch-up read"
HISTORY_BYTES = 512 << 20


def measure(places: Places) -> Iterator[Figure]:
    for store in places.stores:
        if store == "memory":
            continue  # nothing survives the restart
        for setting, size_bytes, partitions in (
            ("1 MiB batches", 1 << 20, 1),
            ("16 KiB batches, 16 partitions", 16 << 10, 16),
        ):
            with places.broker(store) as subject:
                topic = subject.create_topic(partitions)
                load = {"bootstrap": subject.bootstrap, "topic": topic, "partitions": partitions}
                made = run_load(
                    "produce", **load, batch_bytes=size_bytes, connections=2, in_flight=5,
                    seconds=60, warm_up_s=0, max_bytes=HISTORY_BYTES,
                )  # fmt: skip
                subject.broker.stop()
                shutil.rmtree(subject.broker.directory / "cache", ignore_errors=True)
                subject.broker.start()
                raw = [places.raw(store, put_s=0, get_s=2.0, small=0)["get_mb_per_s"]]
                before = subject.metrics()
                read = run_load(
                    "consume", **load, connections=1, seconds=60, again=False,
                    partition_bytes=8 << 20,
                )  # fmt: skip
                after = subject.metrics()
                raw.append(places.raw(store, put_s=0, get_s=2.0, small=0)["get_mb_per_s"])
                if read["failures"] or read["bytes"] < made["bytes"]:
                    raise RuntimeError(f"{read['bytes']} of {made['bytes']}: {read['failures']}")
                yield Figure(NAME, setting, store, read["mb_per_s"], "MB/s")
                beside = f"{setting} (raw GET beside it)"
                yield Figure(NAME, beside, store, sum(raw) / 2, "MB/s")
                name = "headwater_store_requests_total"
                per_gib = (1 << 30) / read["bytes"]
                asked = (after[name] - before[name]) * per_gib
                yield Figure(NAME, f"{setting}: store requests", store, asked, "per GiB out")
                name = "headwater_store_request_dollars_total"
                paid = (after[name] - before[name]) * per_gib
                yield Figure(NAME, f"{setting}: requests at list price", store, paid, "$ per GiB")
