"""Three real brokers on one store: killed, paused and stopped under an idempotent producer and a
group; nothing acknowledged is lost, doubled or reordered, and every broker tells the same.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .load import NumberedLoad, create_topic, fresh
from .processes import BrokerProcess

PARTITIONS = 6
# A dead broker is missed for 3 s by default; the rest is the machine's.
TAKEN_OVER_S = 30.0


class Trio:
    """Nodes 1, 2 and 3; the first decides at the beginning."""

    def __init__(self, directory: Path) -> None:
        settings = {"offsets.topic.num.partitions": "3"}
        self.brokers = {
            node_id: BrokerProcess(
                f"file://{directory}/data", directory, node_id=node_id, settings=settings
            )
            for node_id in (1, 2, 3)
        }

    @property
    def bootstrap(self) -> str:
        return ",".join(one.bootstrap for one in self.brokers.values())

    def told_by(self, node_id: int) -> Any:
        """The metadata of that broker, as librdkafka decodes it."""
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.brokers[node_id].bootstrap}).list_topics(
            timeout=20
        )

    def wait_for(self, asked: int, live: set[int]) -> None:
        """Until that broker tells of these brokers, and a leader among them for every partition."""
        deadline = time.monotonic() + TAKEN_OVER_S
        while True:
            told = self.told_by(asked)
            leaders = {p.leader for t in told.topics.values() for p in t.partitions.values()}
            if set(told.brokers) == live and told.controller_id in live and leaders <= live:
                return
            assert time.monotonic() < deadline, (told.brokers, told.controller_id, leaders)
            time.sleep(0.2)


@contextmanager
def running(directory: Path) -> Iterator[Trio]:
    trio = Trio(directory)
    try:
        for broker in trio.brokers.values():
            broker.start()
        yield trio
    finally:
        for broker in trio.brokers.values():
            broker.kill()


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
            }
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        while not self.stopping.is_set():
            for message in self._consumer.consume(500, 0.2):
                if message.error() is None:
                    place = self.seen[message.partition()]
                    place.append((message.offset(), message.value()))
        self._consumer.close()

    def count(self) -> int:
        return sum(len({offset for offset, _ in seen}) for seen in self.seen.values())


def under_load(trio: Trio, trouble: Any) -> None:
    topic = fresh("t")
    create_topic(trio.brokers[2].bootstrap, topic, PARTITIONS)
    load = NumberedLoad(trio.bootstrap, topic, partitions=PARTITIONS)
    group = Group(trio.bootstrap, topic)
    load.start()
    group.start()
    load.wait_for_more(100)
    trouble(load)
    load.wait_for_more(200)
    load.finish()
    load.assert_kept(trio.bootstrap)
    deadline = time.monotonic() + 60
    while group.count() < len(load.all_acknowledged) and time.monotonic() < deadline:
        time.sleep(0.1)
    group.stopping.set()
    group.join(30)
    for partition, seen in group.seen.items():
        at = dict(seen)
        acknowledged = {o: v for (p, o), v in load.acknowledged.items() if p == partition}
        assert acknowledged.items() <= at.items(), f"records of {partition} never came"


def test_three_brokers_share_topics_and_tell_the_same(tmp_path: Path) -> None:
    with running(tmp_path) as trio:
        topic = fresh("t")
        create_topic(trio.brokers[3].bootstrap, topic, PARTITIONS)
        for asked in (1, 2, 3):
            told = trio.told_by(asked)
            assert sorted(told.brokers) == [1, 2, 3]
            assert told.controller_id == 1
            leaders = [p.leader for _, p in sorted(told.topics[topic].partitions.items())]
            assert sorted(leaders) == [1, 1, 2, 2, 3, 3], "each leads its share"


@pytest.mark.parametrize("victim", [3, 1], ids=["a follower", "the controller"])
def test_a_broker_killed_under_load_loses_and_doubles_nothing(victim: int, tmp_path: Path) -> None:
    with running(tmp_path) as trio:

        def kill(load: NumberedLoad) -> None:
            trio.brokers[victim].kill()
            trio.wait_for(2, {1, 2, 3} - {victim})
            load.wait_for_more(100)
            trio.brokers[victim].start()
            trio.wait_for(2, {1, 2, 3})

        under_load(trio, kill)


@pytest.mark.parametrize("victim", [2, 1], ids=["a follower", "the controller"])
def test_a_broker_that_slept_comes_back_under_a_new_incarnation(
    victim: int, tmp_path: Path
) -> None:
    with running(tmp_path) as trio:

        def pause(load: NumberedLoad) -> None:
            process = trio.brokers[victim].process
            assert process is not None
            os.kill(process.pid, signal.SIGSTOP)
            trio.wait_for(3, {1, 2, 3} - {victim})
            os.kill(process.pid, signal.SIGCONT)
            trio.wait_for(3, {1, 2, 3})
            assert process.poll() is None, "it came back by itself"

        under_load(trio, pause)
        assert "it joins anew" in trio.brokers[victim].log_text


def test_brokers_stopped_one_after_the_other_under_load_lose_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as trio:

        def roll(load: NumberedLoad) -> None:
            for node_id, broker in trio.brokers.items():
                asked = node_id % 3 + 1
                assert broker.stop() == 0
                trio.wait_for(asked, {1, 2, 3} - {node_id})
                broker.start()
                trio.wait_for(asked, {1, 2, 3})

        under_load(trio, roll)


def test_two_of_three_killed_at_once_are_taken_over_by_the_third(tmp_path: Path) -> None:
    with running(tmp_path) as trio:

        def kill(load: NumberedLoad) -> None:
            trio.brokers[1].kill()
            trio.brokers[2].kill()
            trio.wait_for(3, {3})

        under_load(trio, kill)
