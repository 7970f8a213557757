"""Three real brokers on one store: killed, paused and stopped under an idempotent producer and a
group; nothing acknowledged is lost, doubled or reordered, and every broker tells the same.

Who leads what and who decides is asked, never assumed: on a busy machine a broker may be missed
for a while, and come back, at any time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.cluster import WAIT_S, Cluster

from .load import NumberedLoad, create_topic, fresh

# Every wait inside ends by itself, and says what is missing.
pytestmark = [pytest.mark.peer, pytest.mark.timeout(1200)]

PARTITIONS = 6
ALL = {1, 2, 3}
Victim = Callable[[Cluster], int]


def running(directory: Path) -> Cluster:
    """Nodes 1, 2 and 3 on files."""
    return Cluster(f"file://{directory}/data", directory)


class Group(threading.Thread):
    """A member of a group, that keeps every record that it was given, in order."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Consumer

        self.seen: dict[int, list[tuple[int, bytes]]] = {p: [] for p in range(PARTITIONS)}
        self.stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": fresh("group"),
                "log_level": 0,
                "auto.offset.reset": "earliest",
                "auto.commit.interval.ms": 200,
                "topic.metadata.refresh.interval.ms": 1000,
                "socket.timeout.ms": 10_000,
            }
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        while not self.stopping.is_set():
            for message in self._consumer.consume(500, 0.2):
                place, value = (message.partition(), message.offset()), message.value()
                if message.error() is None and value is not None:
                    self.seen[place[0]].append((place[1], value))  # type: ignore[index,arg-type]
        self._consumer.close()

    def count(self) -> int:
        return sum(len({offset for offset, _ in seen}) for seen in self.seen.values())


def under_load(cluster: Cluster, trouble: Callable[[NumberedLoad], Any]) -> None:
    topic = fresh("t")
    create_topic(cluster.bootstrap, topic, PARTITIONS)
    load = NumberedLoad(cluster.bootstrap, topic, partitions=PARTITIONS)
    group = Group(cluster.bootstrap, topic)
    load.start()
    group.start()
    load.wait_for_more(100)
    trouble(load)
    load.wait_for_more(200)
    load.finish()
    load.assert_kept(cluster.bootstrap)
    deadline = time.monotonic() + WAIT_S
    while group.count() < len(load.all_acknowledged) and time.monotonic() < deadline:
        time.sleep(0.1)
    group.stopping.set()
    group.join(WAIT_S)
    assert not group.is_alive()
    for partition, seen in group.seen.items():
        at = dict(seen)
        acknowledged = {o: v for (p, o), v in load.acknowledged.items() if p == partition}
        assert acknowledged.items() <= at.items(), f"records of {partition} never came"


def test_three_brokers_share_topics_and_tell_the_same(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        cluster.wait_for(ALL)
        topic = fresh("t")
        create_topic(cluster.brokers[3].bootstrap, topic, PARTITIONS)
        cluster.wait_shared_out(ALL)

        def told(asked: int) -> Any:
            found = cluster.told_by(asked)
            if found is None or topic not in found.topics:
                return None
            leaders = {p: one.leader for p, one in found.topics[topic].partitions.items()}
            return found.controller_id, sorted(found.brokers), leaders

        def different() -> str:
            answers = [told(asked) for asked in sorted(ALL)]
            same = answers[0] is not None and answers[0] == answers[1] == answers[2]
            return "" if same else str(answers)

        cluster.wait_until(different, "all tell the same")


def a_follower(cluster: Cluster) -> int:
    return cluster.leader_not_controller()


def the_controller(cluster: Cluster) -> int:
    return cluster.controller(1)


VICTIMS = pytest.mark.parametrize(
    "choose", [a_follower, the_controller], ids=["a follower", "the controller"]
)


@VICTIMS
def test_a_broker_killed_under_load_loses_and_doubles_nothing(
    choose: Victim, tmp_path: Path
) -> None:
    with running(tmp_path) as cluster:
        cluster.wait_shared_out(ALL)

        def kill(load: NumberedLoad) -> None:
            victim = choose(cluster)
            cluster.brokers[victim].kill()
            cluster.wait_for(ALL - {victim})
            load.wait_for_more(100)
            cluster.add(victim)
            cluster.wait_for(ALL)

        under_load(cluster, kill)


@VICTIMS
def test_a_broker_that_slept_comes_back_under_a_new_incarnation(
    choose: Victim, tmp_path: Path
) -> None:
    with running(tmp_path) as cluster:
        cluster.wait_shared_out(ALL)
        slept: list[int] = []

        def pause(load: NumberedLoad) -> None:
            victim = choose(cluster)
            slept.append(victim)
            cluster.pause(victim)
            try:
                cluster.wait_for(ALL - {victim})
            finally:
                cluster.resume(victim)
            cluster.wait_for(ALL)

        under_load(cluster, pause)
        broker = cluster.brokers[slept[0]]
        assert broker.process is not None and broker.process.poll() is None, "the same process"
        assert "it joins anew" in broker.log_text


def test_two_of_three_killed_at_once_are_taken_over_by_the_third(tmp_path: Path) -> None:
    with running(tmp_path) as cluster:
        cluster.wait_shared_out(ALL)

        def kill(load: NumberedLoad) -> None:
            controller = cluster.controller(1)
            left = max(ALL - {controller})
            for victim in ALL - {left}:
                cluster.brokers[victim].kill()
            cluster.wait_for({left})

        under_load(cluster, kill)
