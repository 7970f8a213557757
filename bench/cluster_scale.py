"""A hundred thousand partitions on three brokers: creation, memory, start, sizes of what is told.

10,000 topics of ten partitions each, made by Kafka's protocol in requests of 200. Memory is what
the processes have resident; a broker that leads nothing is what all know of all, and the one that
leads everything is where the others are drained away.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from tests.chaos.cluster import Cluster

from .cluster import ALL, cluster_of
from .figures import Figure
from .places import Places, resident_bytes

NAME = "cluster scale"
TOPICS = int(os.environ.get("BENCH_TOPICS", "10000"))
PARTITIONS = 10
AT_ONCE = 200
# Garbage is collected, and what was asked for is answered.
SETTLE_S = 5.0


def measure(places: Places) -> Iterator[Figure]:
    store = "minio" if "minio" in places.stores else "file"
    count = TOPICS * PARTITIONS
    what = f"{count:,} partitions"
    with cluster_of(places, store, 3) as cluster:
        cluster.wait_for(ALL)
        time.sleep(SETTLE_S)
        empty = _resident(cluster)
        began = time.monotonic()
        _create_topics(cluster)
        yield Figure(NAME, f"{what}: topics created", store, time.monotonic() - began, "s")
        _wait_led(cluster, count)
        yield Figure(NAME, f"{what}: all led", store, time.monotonic() - began, "s")
        time.sleep(SETTLE_S)
        shared = _resident(cluster)
        per = [(shared[one] - empty[one]) / count / 1024 for one in sorted(ALL)]
        setting = f"{what}, a third led by each: memory"
        yield Figure(NAME, f"{setting}, mean", store, sum(per) / 3, "KiB each")
        yield Figure(NAME, f"{setting}, most", store, max(per), "KiB each")
        began = time.monotonic()
        told = cluster.told_by(2)
        assert told is not None
        yield Figure(NAME, "Metadata of all, asked by librdkafka", store,
                     time.monotonic() - began, "s")  # fmt: skip

        yield from _metadata_sizes(places, cluster, store, "as it was made")

        for node_id in (3, 2):
            began = time.monotonic()
            cluster.terminate(node_id)
            cluster.ended(node_id)
            took = time.monotonic() - began
            yield Figure(NAME, f"{what}: broker {node_id} stopped", store, took, "s")
        _wait_led(cluster, count)
        time.sleep(SETTLE_S)
        alone = (_resident(cluster)[1] - empty[1]) / count / 1024
        yield Figure(NAME, f"{what}, all led by one: memory", store, alone, "KiB each")
        # shared = known + led / 3, alone = known + led
        led = (alone - sum(per) / 3) * 1.5
        yield Figure(NAME, "memory of a partition that is known", store, alone - led, "KiB each")
        yield Figure(NAME, "memory of one that is led, besides", store, led, "KiB each")

        cluster.brokers[1].kill()
        began = time.monotonic()
        cluster.add(1)
        yield Figure(NAME, f"{what}: one broker ready after kill -9", store,
                     time.monotonic() - began, "s")  # fmt: skip
        for node_id in (2, 3):
            cluster.add(node_id)
        _wait_led(cluster, count)
        took = time.monotonic() - began
        yield Figure(NAME, f"{what}: three started, all led", store, took, "s")
        cluster.wait_shared_out(ALL)
        took = time.monotonic() - began
        yield Figure(NAME, f"{what}: each leads its share", store, took, "s")

        yield from _metadata_sizes(places, cluster, store, "after all that")

        victim = cluster.leader_not_controller()
        began = time.monotonic()
        cluster.brokers[victim].kill()
        cluster.wait_for(ALL - {victim})
        took = time.monotonic() - began
        yield Figure(NAME, f"{what}: a third of them taken over", store, took, "s")


def _metadata_sizes(places: Places, cluster: Cluster, store: str, when: str) -> Iterator[Figure]:
    sizes = places.stored(cluster.store, "meta")
    setting = f"metadata in the bucket, {when}"
    yield Figure(NAME, f"{setting}: objects", store, len(sizes), "objects")
    yield Figure(NAME, f"{setting}: in all", store, sum(sizes) / 1e6, "MB")
    yield Figure(NAME, f"{setting}: largest", store, max(sizes) / 1e6, "MB")


def _create_topics(cluster: Cluster) -> None:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    for first in range(0, TOPICS, AT_ONCE):
        names = [f"topic-{number:05d}" for number in range(first, min(first + AT_ONCE, TOPICS))]
        futures = admin.create_topics(
            [NewTopic(name, PARTITIONS, 1) for name in names], request_timeout=60
        )
        for future in futures.values():
            future.result(90)


def _wait_led(cluster: Cluster, count: int) -> None:
    """Every partition has been opened by its leader: what is not led yet is not counted."""

    def missing() -> str:
        try:
            led = sum(
                int(cluster.brokers[one].metric("headwater_partitions")) for one in cluster.running
            )
        except OSError as error:  # its loop is busy with them
            return str(error)
        return "" if led >= count else f"{led}"

    cluster.wait_until(missing, f"{count} partitions are led", every_s=0.5)


def _resident(cluster: Cluster) -> dict[int, int]:
    """Of each running broker and what is below it, in bytes."""
    found = {}
    for node_id in sorted(cluster.running):
        process = cluster.brokers[node_id].process
        assert process is not None
        found[node_id] = resident_bytes(process.pid)
    return found
