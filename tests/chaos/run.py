"""One fault from beginning to end: a cluster, load, the fault, what is there afterwards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.peers.load import create_topic, fresh
from tests.peers.processes import Minio
from tests.peers.store_proxy import StoreProxy

from .checker import Figures, Verdict, judge, measure
from .client_settings import PARTITIONS
from .clients import Load
from .cluster import WAIT_S, Cluster, NotInTime
from .history import ClientHistory
from .reading import read_everything

# Enough to have a rate before the fault, and to see that the rate comes back after it.
MORE = 100


@dataclass(frozen=True)
class Outcome:
    """stuck: what the cluster or a client did not get to in time, "" where nothing."""

    name: str
    verdict: Verdict
    figures: Figures
    stuck: str
    read_s: float
    took_s: float

    def complaints(self) -> list[str]:
        """What is wrong, and every error that an application saw; a few of each."""
        verdict = self.verdict
        found = [f"lost: {one}" for one in verdict.lost[:5]]
        found += [f"duplicated: {one}" for one in verdict.duplicated[:5]]
        found += [f"reordered: {one}" for one in verdict.reordered[:5]]
        found += [f"went back: {one}" for one in verdict.went_back[:5]]
        errors = Counter(f"{one.what}: {one.text}" for one in self.figures.errors)
        found += [f"error, {count} times: {text}" for text, count in errors.most_common(10)]
        if self.stuck:
            found.append(f"stuck: {self.stuck}")
        return found


class Run:
    """What a fault acts on."""

    def __init__(self, cluster: Cluster, minio: Minio, load: Load) -> None:
        self.cluster = cluster
        self.minio = minio
        self._load = load
        self.began_at = time.monotonic()
        self._is_marked = False

    def began(self) -> None:
        """The fault begins now (the first time counts)."""
        if not self._is_marked:
            self.began_at, self._is_marked = time.monotonic(), True

    def sleep(self, seconds: float) -> None:
        """Only for how long a fault lasts, never for what comes of it."""
        time.sleep(seconds)

    def goes_on(self, more: int = MORE) -> None:
        """Until every producer was told of so many more records, and every group given them."""
        before = self._load.done()

        def wanting() -> str:
            now = self._load.done()
            behind = {name: now[name] - was for name, was in before.items()}
            return "" if min(behind.values()) >= more else str(behind)

        self.cluster.wait_until(wanting, f"{more} more records for each", every_s=0.1)


def run_fault(
    name: str,
    act: Callable[[Run], None],
    minio: Minio,
    directory: Path,
    kinds: Sequence[str],
    brokers: int = 3,
    proxied: tuple[int, ...] = (),
    pause_s: float = 0.02,
) -> Outcome:
    """Never raises for what the cluster does: that is in the outcome."""
    started = time.monotonic()
    doors = {node_id: StoreProxy(minio.port) for node_id in proxied}
    store = minio.make_bucket(fresh("chaos"))
    cluster = Cluster(store, directory, brokers, minio.env, doors)
    load: Load | None = None
    stuck, began = "", started
    try:
        topic = fresh(name)
        create_topic(cluster.bootstrap, topic, PARTITIONS)
        load = Load(cluster.bootstrap, topic, directory, kinds, pause_s)
        run = Run(cluster, minio, load)
        try:
            run.goes_on()
            act(run)
            run.goes_on()
        except NotInTime as error:
            stuck = str(error)
        began, ended = run.began_at, time.monotonic()
        load.finish()
        histories = load.histories()
        stored, read_s, unread = read_everything(cluster.bootstrap, topic, WAIT_S)
        verdict = judge(histories, stored)
        return Outcome(
            name, verdict, measure(histories, began, ended), stuck or unread or unended(histories),
            read_s, time.monotonic() - started,
        )  # fmt: skip
    finally:
        if load is not None:
            load.kill()
        cluster.close()


def unended(histories: Sequence[ClientHistory]) -> str:
    for one in histories:
        if not one.has_ended:
            return f"{one.name} did not end"
        if one.unanswered:
            return f"{one.name} waits for {one.unanswered} answers"
    return ""
