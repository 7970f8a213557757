"""Brokers that die, come and go: how long is a partition silent, and how long does it take in all?

Three brokers, on MinIO where it is among the stores. Silence is the time between two
acknowledgements of a partition that a probe writes to all the time, 50 ms after each answer: the
probe's pause is in it. Of a thousand partitions sixty are watched.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from tests.chaos.cluster import Cluster
from tests.peers.load import create_topic

from . import wire
from .cluster_probe import Probe, silence_s
from .figures import Figure
from .load import run_load
from .places import Places

NAME = "cluster"
WATCHED = 60
MANY = 1000
MOVES = 10
HELD_BYTES = 64 << 20
# Uploads and merges that an earlier load left have begun by then.
AT_REST_S = 5.0
ALL = {1, 2, 3}
# After the last leader is there, so that every partition answers again.
SETTLE_S = 1.0
_LOG_TIME = re.compile(r"^(\S+ \S+),(\d+) ", re.MULTILINE)


def measure(places: Places) -> Iterator[Figure]:
    store = "minio" if "minio" in places.stores else "file"
    yield from _failover(places, store, "default", {})
    fast = {"broker.session.timeout.ms": "2000"}
    yield from _failover(places, store, "session 2 s", fast)
    yield from _moves(places, store)
    yield from _many(places, store)


@contextlib.contextmanager
def cluster_of(
    places: Places, store: str, size: int, settings: dict[str, str] | None = None
) -> Iterator[Cluster]:
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory,
        Cluster(places.uri(store), Path(directory), size, places.env, settings=settings) as cluster,
    ):
        yield cluster


def _failover(places: Places, store: str, label: str, settings: dict[str, str]) -> Iterator[Figure]:
    """Of the partitions that the victim led, which are a third of those watched."""
    with cluster_of(places, store, 3, settings) as cluster:
        topic = wire.unique("bench")
        create_topic(cluster.bootstrap, topic, WATCHED)
        cluster.wait_shared_out(ALL)
        for who in ("leader", "controller"):
            asked = min(cluster.running)
            controller = cluster.controller(asked)
            victim = controller if who == "controller" else cluster.leader_not_controller(asked)
            hit = _led_by(cluster, asked, topic)[victim]
            probe = _probe(cluster, topic, list(range(WATCHED)))
            time.sleep(1.0)
            began, began_wall = time.monotonic(), time.time()
            cluster.brokers[victim].kill()
            cluster.wait_for(ALL - {victim})
            time.sleep(SETTLE_S)
            times, ended = probe.acknowledged(), time.monotonic()
            silences = [silence_s(times[index], began, ended) for index in hit]
            setting = f"{label}: kill -9 of a {who}, silence of what it led"
            yield Figure(NAME, f"{setting}, p50", store, statistics.median(silences), "s")
            yield Figure(NAME, f"{setting}, worst", store, max(silences), "s")
            if who == "controller":
                yield from _succession(cluster, store, label, began_wall)
            cluster.add(victim)
            cluster.wait_shared_out(ALL)


def _succession(cluster: Cluster, store: str, label: str, began_wall: float) -> Iterator[Figure]:
    """From the survivors' logs."""
    heard: list[float] = []
    decided: list[float] = []
    for node_id in cluster.running:
        for line in cluster.brokers[node_id].log_text.splitlines():
            if (found := _LOG_TIME.match(line)) is None:
                continue
            at = datetime.fromisoformat(found[1]).timestamp() + int(found[2]) / 1000
            if at < began_wall:
                continue
            if "its term is ended" in line:
                heard.append(at)
            elif "decides from term" in line:
                decided.append(at)
    if decided and heard:
        setting = f"{label}: the next controller decides"
        yield Figure(NAME, f"{setting}, after the kill", store, min(decided) - began_wall, "s")
        yield Figure(NAME, f"{setting}, after suspicion", store, min(decided) - min(heard), "s")


def _moves(places: Places, store: str) -> Iterator[Figure]:
    """One partition, to the next broker and the next, by AlterPartitionReassignments."""
    with cluster_of(places, store, 3) as cluster:
        topic = wire.unique("bench")
        create_topic(cluster.bootstrap, topic, 1)
        cluster.wait_for(ALL)
        probe = _probe(cluster, topic, [0])
        time.sleep(0.5)
        spans = []
        for _ in range(MOVES):
            began = time.monotonic()
            _move_on(cluster, topic)
            time.sleep(0.3)
            spans.append((began, time.monotonic()))
        (times,) = probe.acknowledged().values()
        silences = [silence_s(times, *span) for span in spans]
        median = statistics.median(silences)
        yield Figure(NAME, "one partition moved: its silence, median", store, median, "s")
        yield Figure(NAME, "one partition moved: its silence, worst", store, max(silences), "s")

        leader = cluster.brokers[next(iter(_led_by(cluster, 1, topic)))]
        run_load(
            "produce", bootstrap=leader.bootstrap, topic=topic, partitions=1,
            batch_bytes=1 << 20, connections=1, in_flight=2, seconds=60, max_bytes=HELD_BYTES,
        )  # fmt: skip
        before = _store_bytes_at_rest(cluster)
        _move_on(cluster, topic)
        copied = _store_bytes_at_rest(cluster) - before
        setting = f"one partition of {HELD_BYTES >> 20} MiB moved: to and from the store"
        yield Figure(NAME, setting, store, copied / 1024, "KiB")


def _move_on(cluster: Cluster, topic: str) -> None:
    (leader,) = _led_by(cluster, 1, topic)
    target = leader % 3 + 1
    _reassign(cluster, topic, {0: target})
    _wait_led_by(cluster, topic, target, 1)


def _many(places: Places, store: str) -> Iterator[Figure]:
    what = f"{MANY:,} partitions"
    with cluster_of(places, store, 2) as cluster:
        topic = wire.unique("bench")
        began = time.monotonic()
        create_topic(cluster.bootstrap, topic, MANY)
        cluster.wait_for({1, 2})
        yield Figure(
            NAME, f"{what}: created, and all leaders told", store, time.monotonic() - began, "s"
        )

        began = time.monotonic()
        cluster.add(3)
        yield Figure(NAME, "a third broker: ready", store, time.monotonic() - began, "s")
        _wait_led_by(cluster, topic, 3, MANY * 3 // 10)
        took = time.monotonic() - began
        yield Figure(NAME, f"a third broker: from start to its share of {what}", store, took, "s")
        cluster.wait_shared_out(ALL)
        time.sleep(SETTLE_S)

        watched = list(range(0, MANY, MANY // WATCHED))
        probe = _probe(cluster, topic, watched)
        time.sleep(0.5)
        began = time.monotonic()
        _reassign(cluster, topic, dict.fromkeys(range(MANY), 2))
        _wait_led_by(cluster, topic, 2, MANY)
        took = time.monotonic() - began
        yield from _told(store, f"all of {what} to one broker", took, probe, began)

        probe = _probe(cluster, topic, watched)
        time.sleep(0.5)
        began = time.monotonic()
        cluster.terminate(2)
        cluster.ended(2)
        took = time.monotonic() - began
        cluster.wait_for({1, 3})
        yield from _told(store, f"a broker with all of {what} is stopped", took, probe, began)


def _told(store: str, setting: str, took: float, probe: Probe, began: float) -> Iterator[Figure]:
    time.sleep(SETTLE_S)
    ended = time.monotonic()
    silences = [silence_s(times, began, ended) for times in probe.acknowledged().values()]
    yield Figure(NAME, f"{setting}: in all", store, took, "s")
    median = statistics.median(silences)
    yield Figure(NAME, f"{setting}: silence of a partition, median", store, median, "s")
    yield Figure(NAME, f"{setting}: silence of a partition, worst", store, max(silences), "s")


def _probe(cluster: Cluster, topic: str, partitions: list[int]) -> Probe:
    return Probe(
        [cluster.brokers[node_id].bootstrap for node_id in sorted(cluster.running)],
        topic,
        partitions,
    )


def _led_by(cluster: Cluster, asked: int, topic: str) -> dict[int, list[int]]:
    """Partitions by leader, as that broker knows it."""
    found: dict[int, list[int]] = {}
    told = cluster.told_by(asked)
    if told is not None and topic in told.topics:
        for index, one in sorted(told.topics[topic].partitions.items()):
            found.setdefault(one.leader, []).append(index)
    return found


def _wait_led_by(cluster: Cluster, topic: str, node_id: int, count: int) -> None:
    def missing() -> str:
        led = len(_led_by(cluster, 1, topic).get(node_id, ()))
        return "" if led >= count else f"{led}"

    cluster.wait_until(missing, f"node {node_id} leads {count}", every_s=0.05)


def _reassign(cluster: Cluster, topic: str, leaders: dict[int, int]) -> None:
    import kafka
    from kafka.admin import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=cluster.brokers[1].bootstrap)
    try:
        admin.alter_partition_reassignments(
            {kafka.TopicPartition(topic, index): [leader] for index, leader in leaders.items()}
        )
    finally:
        admin.close()


def _store_bytes_at_rest(cluster: Cluster) -> float:
    """Sent and received by all brokers, once that does not grow any more."""

    def now() -> float:
        running = [cluster.brokers[node_id] for node_id in sorted(cluster.running)]
        return sum(broker.metric("headwater_store_bytes_total") for broker in running)

    before = -1.0
    while (found := now()) != before:
        before = found
        time.sleep(AT_REST_S)
    return found
