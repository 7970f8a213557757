"""How much can be produced and consumed, by batch size and partition count?

Two connections with five requests in flight each, one batch for each partition in a request; what
was produced is then consumed from the beginning over one connection. The same against Kafka.
"""

from __future__ import annotations

from collections.abc import Iterator

from .figures import Figure
from .load import run_load
from .places import Places

NAME = "throughput"
SIZES = {"16 KiB": 16 << 10, "256 KiB": 256 << 10, "1 MiB": 1 << 20}
PARTITIONS = (1, 16)
CONNECTIONS, IN_FLIGHT = 2, 5
SECONDS = 3.0


def measure(places: Places) -> Iterator[Figure]:
    for size_name, size_bytes in SIZES.items():
        for partitions in PARTITIONS:
            for place in places.names:
                if size_name == "1 MiB" and partitions == 1 and place == "minio":
                    # Before and after, since a busy machine changes by the second.
                    raw = [places.raw(place, put_s=3.0, get_s=0, small=0)["put_mb_per_s"]]
                    yield from _one(places, place, size_name, size_bytes, partitions)
                    raw.append(places.raw(place, put_s=3.0, get_s=0, small=0)["put_mb_per_s"])
                    yield Figure("produce", "(raw PUT beside it)", place, sum(raw) / 2, "MB/s")
                else:
                    yield from _one(places, place, size_name, size_bytes, partitions)


def _one(
    places: Places, place: str, size_name: str, size_bytes: int, partitions: int
) -> Iterator[Figure]:
    plural = "s" if partitions > 1 else ""
    setting = f"{size_name} batches, {partitions} partition{plural}"
    with places.subject(place) as subject:
        topic = subject.create_topic(partitions)
        load = {"bootstrap": subject.bootstrap, "topic": topic, "partitions": partitions}
        before = 0.0 if place == "kafka" else subject.cpu_s()
        made = run_load(
            "produce", **load, batch_bytes=size_bytes, connections=CONNECTIONS,
            in_flight=IN_FLIGHT, seconds=SECONDS, max_bytes=3 << 29,
        )  # fmt: skip
        _refuse_failures(made)
        yield Figure("produce", setting, place, made["mb_per_s"], "MB/s")
        if place != "kafka" and partitions == 1:
            # The warm-up is in the time and not in the bytes: a ninth more at most.
            spent = (subject.cpu_s() - before) / (made["bytes"] / 1e9)
            yield Figure("produce: broker's processor time", setting, place, spent, "s/GB")
        read = run_load("consume", **load, connections=1, seconds=SECONDS / 2)
        _refuse_failures(read)
        yield Figure("consume", setting, place, read["mb_per_s"], "MB/s")
        subject.delete_topic(topic)


def _refuse_failures(found: dict[str, object]) -> None:
    if found["failures"]:
        raise RuntimeError(f"the load failed: {found['failures']}")
