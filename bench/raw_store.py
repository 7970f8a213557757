"""What can the store do by itself?"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Figure
from .places import Places

NAME = "raw store"


def measure(places: Places) -> Iterator[Figure]:
    for store in places.stores:
        if store == "memory":
            continue  # a dictionary
        raw = places.raw(store)
        yield Figure(NAME, "PUT 8 MiB", store, raw["put_mb_per_s"], "MB/s")
        yield Figure(NAME, "GET 8 MiB", store, raw["get_mb_per_s"], "MB/s")
        yield Figure(NAME, "PUT 1 KiB p50", store, raw["put_p50_ms"], "ms")
        yield Figure(NAME, "PUT 1 KiB p99", store, raw["put_p99_ms"], "ms")
        yield Figure(NAME, "GET 1 KiB p50", store, raw["get_p50_ms"], "ms")
