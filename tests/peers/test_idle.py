"""Idle means idle: a broker without requests asks its store nothing, and says so in `/metrics`.

With a consumer waiting in long polls it asks no more than whether it still leads.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from .load import NumberedLoad, create_topic, fresh
from .processes import BrokerProcess, Minio

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

SETTLE_S = 10.0
WATCH_S = 20.0
DAY_S = 86_400
SESSION_TIMEOUT_S = 3.0


@dataclass
class Idle:
    """One broker that was used, then left alone. store: which one."""

    name: str
    broker: BrokerProcess
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    fetches: float = 0

    @property
    def made(self) -> dict[str, int]:
        """Requests by operation, while nobody but us watched."""
        return {
            name: int(count - self.before.get(name, 0))
            for name, count in self.after.items()
            if count > self.before.get(name, 0)
        }


def store_requests(broker: BrokerProcess) -> dict[str, float]:
    _, text = broker.http("/metrics")
    pattern = r'^headwater_store_requests_total\{operation="(\w+)"\} (\S+)$'
    return {name: float(count) for name, count in re.findall(pattern, text, re.MULTILINE)}


class Waiting(threading.Thread):
    """A member of a group that waits for records, and commits nothing since nothing comes."""

    def __init__(self, broker: BrokerProcess, topic: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Consumer

        self.stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": fresh("group"),
                "session.timeout.ms": 6000,
            }
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        while not self.stopping.is_set():
            self._consumer.poll(0.5)
        self._consumer.close()


@pytest.fixture(scope="module")
def idle(minio: Minio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Idle]]:
    """All brokers at the same time: it is waiting, mostly."""
    brokers: dict[str, Idle] = {}
    waiting: list[Waiting] = []
    try:
        for name in ("files", "minio", "files, a consumer waits", "minio, a consumer waits"):
            directory = tmp_path_factory.mktemp("idle")
            if name.startswith("files"):
                broker = BrokerProcess(f"file://{directory}/data", directory)
            else:
                store = minio.make_bucket(fresh("idle"))
                broker = BrokerProcess(store, directory, env=minio.env)
            brokers[name] = Idle(name, broker)
            broker.start()
            topic = fresh("numbers")
            create_topic(broker.bootstrap, topic)
            load = NumberedLoad(broker.bootstrap, topic)
            load.start()
            load.wait_for_more(100)
            load.finish()
            load.assert_kept(broker.bootstrap)
            del load  # with the connections of its client
            if name.endswith("waits"):
                waiting.append(Waiting(broker, topic))
                waiting[-1].start()
        time.sleep(SETTLE_S)
        for one in brokers.values():
            one.before = store_requests(one.broker)
            one.fetches = -one.broker.metric("headwater_requests_total")
        time.sleep(WATCH_S)
        for one in brokers.values():
            one.after = store_requests(one.broker)
            one.fetches += one.broker.metric("headwater_requests_total")
        yield brokers
    finally:
        for member in waiting:
            member.stopping.set()
        for member in waiting:
            member.join(30)
        for one in brokers.values():
            one.broker.kill()


def tell(one: Idle) -> None:
    total = sum(one.made.values())
    print(
        f"idle broker ({one.name}): {json.dumps(one.made)} in {WATCH_S:g} s, "
        f"{total * DAY_S / WATCH_S:.0f} requests a day"
    )


@pytest.mark.parametrize("store", ["files", "minio"])
def test_a_broker_without_requests_asks_its_store_nothing(
    idle: dict[str, Idle], store: str
) -> None:
    one = idle[store]
    tell(one)
    assert sum(one.before.values()) > 0
    assert one.made == {}


@pytest.mark.parametrize("store", ["files", "minio"])
def test_a_consumer_that_waits_costs_confirmations_only(idle: dict[str, Idle], store: str) -> None:
    one = idle[f"{store}, a consumer waits"]
    tell(one)
    assert one.fetches > 10, "nobody was waiting"
    # Each holds for `broker.session.timeout.ms`.
    assert set(one.made) <= {"get", "get_range", "get_ranges"}, one.made
    assert 1 <= sum(one.made.values()) <= WATCH_S / SESSION_TIMEOUT_S + 1, one.made
