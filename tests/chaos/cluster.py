"""Brokers on one store, that come, go, stop and die; and waits for what they tell."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.peers.processes import BrokerProcess
from tests.peers.store_proxy import StoreProxy

# Generous: a machine that is busy with other tests may be many times slower than an idle one.
WAIT_S = 180.0
START_S = 120.0


class NotInTime(AssertionError):
    """What the cluster had to become, and what it was when the wait ended."""


class Cluster:
    """Nodes 1 to `size`. env: for who reaches the store. doors: of nodes that reach it through
    one; closed with the cluster.
    """

    def __init__(
        self,
        store: str,
        directory: Path,
        size: int = 3,
        env: Mapping[str, str] | None = None,
        doors: Mapping[int, StoreProxy] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.store = store
        self.directory = directory
        self.settings = {"offsets.topic.num.partitions": "3", **(settings or {})}
        self.doors = doors or {}
        self.brokers: dict[int, BrokerProcess] = {}
        self._env = env or {}
        try:
            for node_id in range(1, size + 1):
                self.add(node_id)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, node_id: int) -> BrokerProcess:
        """A node that was not there before, or one that ended."""
        if node_id not in self.brokers:
            env = dict(self._env)
            if (door := self.doors.get(node_id)) is not None:
                env["AWS_ENDPOINT_URL"] = door.endpoint
            cache = self.directory / f"cache-{node_id}"
            self.brokers[node_id] = BrokerProcess(
                self.store, self.directory, self.settings, env, node_id, cache
            )
        return self.brokers[node_id].start(START_S)

    def close(self) -> None:
        for broker in self.brokers.values():
            broker.kill()
        for door in self.doors.values():
            door.close()

    @property
    def bootstrap(self) -> str:
        return ",".join(one.bootstrap for one in self.brokers.values())

    @property
    def running(self) -> set[int]:
        return {node_id for node_id, one in self.brokers.items() if one.process is not None}

    def pause(self, node_id: int) -> None:
        os.kill(self._pid(node_id), signal.SIGSTOP)

    def resume(self, node_id: int) -> None:
        os.kill(self._pid(node_id), signal.SIGCONT)

    def terminate(self, node_id: int) -> None:
        """SIGTERM; `ended` waits for it."""
        os.kill(self._pid(node_id), signal.SIGTERM)

    def ended(self, node_id: int) -> None:
        broker = self.brokers[node_id]
        status = broker.wait_end(WAIT_S)
        if status:
            raise NotInTime(f"node {node_id} ended with {status}\n{broker.log_tail()}")
        broker.kill()  # what is left of it: the pipe

    def _pid(self, node_id: int) -> int:
        process = self.brokers[node_id].process
        assert process is not None
        return process.pid

    def told_by(self, node_id: int) -> Any:
        """The metadata of that broker, as librdkafka decodes it; None where it does not answer."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.brokers[node_id].bootstrap, "log_level": 0})
        try:
            return admin.list_topics(timeout=30)
        except KafkaException:
            return None

    def leaders(self, asked: int) -> Counter[int]:
        """How many partitions each node leads."""
        told = self.told_by(asked)
        if told is None:
            return Counter()
        return Counter(p.leader for t in told.topics.values() for p in t.partitions.values())

    def controller(self, asked: int) -> int:
        """Who decides, as that broker knows."""
        found: list[int] = []

        def unknown() -> str:
            told = self.told_by(asked)
            if told is None or told.controller_id not in told.brokers:
                return "nobody"
            found.append(told.controller_id)
            return ""

        self.wait_until(unknown, "somebody decides")
        return found[0]

    def leader_not_controller(self, asked: int = 1) -> int:
        """The node that leads most of those that do not decide."""
        found: list[int] = []

        def unknown() -> str:
            controller = self.controller(asked)
            leaders = self.leaders(asked)
            counts = [(leaders[one], one) for one in self.running - {controller} if leaders[one]]
            found.extend(one for _, one in sorted(counts)[-1:])
            return "" if found else f"only {dict(leaders)}"

        self.wait_until(unknown, "somebody leads and does not decide")
        return found[0]

    def other_than(self, *nodes: int) -> int:
        """The lowest running node that is none of these."""
        return min(self.running - set(nodes))

    def wait_for(self, live: set[int], asked: set[int] | None = None) -> None:
        """Until each of these brokers (default: all of them) tells of exactly these brokers, with
        a controller and a leader for every partition among them.
        """
        for node_id in sorted(asked or live):
            self.wait_until(
                lambda node_id=node_id: self._differs(node_id, live),  # type: ignore[misc]
                f"node {node_id} tells of {sorted(live)}",
            )

    def wait_shared_out(self, live: set[int]) -> None:
        """Until all of them lead something, too, and nobody twice as much as another and more."""
        self.wait_for(live)

        def unfair() -> str:
            found = self.leaders(min(live))
            counts = [found[node_id] for node_id in live]
            return "" if min(counts) * 2 >= max(counts) else str(dict(found))

        self.wait_until(unfair, f"each of {sorted(live)} leads its share")

    def wait_until(self, wrong: Callable[[], str], wanted: str, every_s: float = 0.25) -> None:
        """wrong: "" when it is so; otherwise what there is instead."""
        deadline = time.monotonic() + WAIT_S
        while found := wrong():
            if time.monotonic() > deadline:
                raise NotInTime(f"wanted: {wanted}; after {WAIT_S:g} s: {found}")
            time.sleep(every_s)

    def _differs(self, asked: int, live: set[int]) -> str:
        told = self.told_by(asked)
        if told is None:
            return "it does not answer"
        leaders = {p.leader for t in told.topics.values() for p in t.partitions.values()}
        if set(told.brokers) == live and told.controller_id in live and leaders <= live:
            return ""
        return f"brokers {sorted(told.brokers)}, controller {told.controller_id}, leaders {leaders}"
