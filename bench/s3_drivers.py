"""Which library should talk to S3?"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Figure
from .places import Places

NAME = "S3 drivers"
DRIVERS = ("obstore", "aiobotocore")


def measure(places: Places) -> Iterator[Figure]:
    if "minio" not in places.stores:
        return
    for driver in DRIVERS:
        raw = places.raw("minio", driver=driver)
        yield Figure(NAME, f"{driver}: PUT 8 MiB", "minio", raw["put_mb_per_s"], "MB/s")
        yield Figure(NAME, f"{driver}: GET 8 MiB", "minio", raw["get_mb_per_s"], "MB/s")
        yield Figure(NAME, f"{driver}: PUT 1 KiB p50", "minio", raw["put_p50_ms"], "ms")
        yield Figure(
            NAME, f"{driver}: own processor time, PUT", "minio", raw["put_cpu_s_per_gb"], "s/GB"
        )
        yield Figure(
            NAME, f"{driver}: own processor time, GET", "minio", raw["get_cpu_s_per_gb"], "s/GB"
        )
