"""Ten thousand connections with bad manners beside one good producer and one good consumer."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from .conftest import StartBroker
from .load import NumberedLoad, create_topic, fresh
from .processes import ROOT
from .resident import MIB, MemoryWatch
from .strangers import KINDS

pytestmark = [pytest.mark.peer, pytest.mark.timeout(240)]

STRANGERS = int(os.environ.get("HEADWATER_STRANGERS", "10000"))
WATCH_S = 20.0
# A connection that is accepted: its objects and those of its transport, its task and its timer.
CONNECTION_BYTES = 12 * 1024
BASE_BYTES = 160 * MIB


class Caller(threading.Thread):
    """Asks for the cluster's metadata five times a second, and notes how long each answer took."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka.admin import AdminClient

        self.took_s: list[float] = []
        self.failed: list[str] = []
        self._stopping = threading.Event()
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    def run(self) -> None:
        while not self._stopping.wait(0.2):
            began = time.monotonic()
            try:
                self._admin.list_topics(timeout=30)
            except Exception as error:
                self.failed.append(str(error))
            self.took_s.append(time.monotonic() - began)

    def finish(self) -> None:
        self._stopping.set()
        self.join(60)
        assert not self.is_alive()


class Listener(threading.Thread):
    """A member of a group that reads everything."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Consumer

        self.values: list[bytes] = []
        self.failed: list[str] = []
        self.errors: list[str] = []
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": fresh("group"),
                "auto.offset.reset": "earliest",
                "error_cb": lambda error: self.errors.append(str(error)),
            }
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, 0.2):
                if message.error() is not None:
                    self.failed.append(str(message.error()))
                else:
                    self.values.append(message.value())
        self._consumer.close()

    def wait_for(self, values: list[bytes], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while len(self.values) < len(values):
            assert time.monotonic() < deadline, (len(self.values), len(values))
            time.sleep(0.05)
        assert sorted(self.values) == sorted(values)

    def finish(self) -> None:
        self._stopping.set()
        self.join(60)
        assert not self.is_alive()


def of(took_s: list[float]) -> str:
    ranked = sorted(took_s)
    middle, late = ranked[len(ranked) // 2], ranked[len(ranked) * 99 // 100]
    return (
        f"{len(ranked)} calls, p50 {middle * 1000:.0f} ms, p99 {late * 1000:.0f} ms, "
        f"slowest {ranked[-1] * 1000:.0f} ms"
    )


def test_ten_thousand_bad_connections_harm_no_good_one(start_broker: StartBroker) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= STRANGERS + 1000, f"raise the limit of open files: it is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request_bytes = 32 * MIB
    broker = start_broker(
        settings={
            "memory.request.bytes": str(request_bytes),
            "memory.response.bytes": str(16 * MIB),
            "log.cache.bytes": str(32 * MIB),
            "cache.memory.bytes": str(16 * MIB),
        }
    )
    assert broker.process is not None
    seed = random.SystemRandom().randrange(10**9)
    topic = fresh("numbers")
    create_topic(broker.bootstrap, topic)
    load = NumberedLoad(broker.bootstrap, topic, **{"request.timeout.ms": 30_000})
    listener = Listener(broker.bootstrap, topic)
    caller = Caller(broker.bootstrap)
    crowd: subprocess.Popen[bytes] | None = None
    with MemoryWatch(broker.process.pid) as memory:
        try:
            for one in (load, listener, caller):
                one.start()
            load.wait_for_more(200)
            quiet, caller.took_s = caller.took_s, []
            crowd = subprocess.Popen(
                [sys.executable, "-m", "tests.peers.strangers",
                 str(broker.port), str(STRANGERS), str(seed)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
            )  # fmt: skip
            assert crowd.stdout is not None and crowd.stdin is not None
            began = time.monotonic()
            opened: dict[str, Any] = json.loads(crowd.stdout.readline())
            opened_s = time.monotonic() - began
            opening, caller.took_s = caller.took_s, []
            time.sleep(WATCH_S)
            load.wait_for_more(50)
            connections = broker.metric("headwater_connections")
            crowd.stdin.close()
            done: dict[str, Any] = json.loads(crowd.stdout.readline())
            during = caller.took_s
            load.finish()
            listener.wait_for(load.all_acknowledged)
            caller.finish()
            listener.finish()
        finally:
            load.abandon()
            if crowd is not None:
                crowd.kill()
                crowd.wait()
    print(
        f"seed {seed}; {STRANGERS} were there after {opened_s:.1f} s, {connections:.0f} at the end"
    )
    print(f"opened {done['opened']}, closed {done['closed']}, refused {done['refused']}")
    print(f"metadata: before: {of(quiet)}; while they come: {of(opening)}; then: {of(during)}")
    print(f"memory: {memory}; acknowledged {len(load.all_acknowledged)}")
    assert set(opened["opened"]) == {kind.__name__ for kind in KINDS}
    assert sum(opened["opened"].values()) >= STRANGERS
    for kind in ("announces_an_absurd_length", "sends_garbage", "claims_a_huge_array"):
        assert done["closed"].get(kind, 0) > 0, f"{kind}: none was closed"
    assert not caller.failed, caller.failed[:3]
    assert not listener.failed, listener.failed[:3]
    assert not listener.errors, listener.errors[:3]
    load.assert_kept(broker.bootstrap)
    bound = BASE_BYTES + request_bytes * 17 // 16 + 96 * MIB + STRANGERS * CONNECTION_BYTES
    assert memory.most_bytes < bound, (memory.most_bytes / MIB, bound / MIB)
    assert "Traceback" not in broker.log_text, broker.log_tail()
    broker.wait_ready(True)
