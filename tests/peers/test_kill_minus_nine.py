"""kill -9 at random moments, again and again, under an idempotent producer and a consumer group.

Nothing that was acknowledged may be missing, moved or doubled, and the group goes on from what it
committed. The rounds and their seed are printed, so that a failure can be looked at again.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from .processes import BrokerProcess, Minio

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("HEADWATER_KILL_ROUNDS", "50"))
PARTITIONS = 4


class NumberedProducer(threading.Thread):
    """Sends ascending numbers to each partition, and keeps what was acknowledged where."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Producer

        self.topic = topic
        self.stopping = threading.Event()
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        self.failed: list[str] = []
        self.left = -1
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 300_000,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 200,
                "topic.metadata.refresh.interval.ms": 500,
            }
        )

    def _told(self, error: object, message: object) -> None:
        if error is not None:
            self.failed.append(str(error))
            return
        self.acknowledged[message.partition(), message.offset()] = message.value()  # type: ignore[attr-defined]

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            for partition in range(PARTITIONS):
                self._produce(partition, f"{partition}:{number}".encode())
            number += 1
            self._producer.poll(0)
            if number % 20 == 0:
                time.sleep(0.005)
        self.left = self._producer.flush(120)

    def _produce(self, partition: int, number: bytes) -> None:
        value = number + b"." * random.randrange(400)
        while True:
            try:
                self._producer.produce(self.topic, value, partition=partition, callback=self._told)
                return
            except BufferError:
                self._producer.poll(0.1)


class CommittingConsumer(threading.Thread):
    """A member of a group that commits what it has seen; what it sees never goes back."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Consumer

        self.stopping = threading.Event()
        self.committed: dict[int, int] = {}
        self.went_back: list[str] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "group.id": "survivors",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 10_000,
                "reconnect.backoff.max.ms": 200,
            }
        )
        self._consumer.subscribe([topic])

    def run(self) -> None:
        from confluent_kafka import KafkaException

        while not self.stopping.is_set():
            messages = [m for m in self._consumer.consume(500, 0.2) if m.error() is None]
            for message in messages:
                floor = self.committed.get(message.partition(), 0)
                if message.offset() < floor:
                    self.went_back.append(f"{message.partition()}@{message.offset()} < {floor}")
            if not messages:
                continue
            try:
                done = self._consumer.commit(asynchronous=False)
            except KafkaException:
                continue  # the broker was killed; what comes next is committed with it
            for one in done or ():
                if one.error is None and one.offset >= 0:
                    self.committed[one.partition] = one.offset
        self._consumer.close()

    def wait_for(self, ends: dict[int, int], timeout_s: float = 90.0) -> None:
        """Until it has committed everything; records may have to come once more first."""
        deadline = time.monotonic() + timeout_s
        while self.committed != ends:
            assert time.monotonic() < deadline, (self.committed, ends)
            time.sleep(0.1)


def read_all(bootstrap: str, topic: str) -> dict[int, list[tuple[int, bytes]]]:
    """Every record of every partition, in the order in which it comes."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
    found: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
    for partition in range(PARTITIONS):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        assert low == 0
        consumer.assign([TopicPartition(topic, partition, 0)])
        deadline = time.monotonic() + 60
        while len(found[partition]) < high and time.monotonic() < deadline:
            for message in consumer.consume(5000, 1.0):
                assert message.error() is None, message.error()
                found[partition].append((message.offset(), message.value()))
        assert len(found[partition]) == high, (partition, len(found[partition]), high)
    consumer.close()
    return found


def kill_again_and_again(broker: BrokerProcess, rounds: int, seed: int) -> None:
    from confluent_kafka import Consumer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    print(f"{rounds} rounds of kill -9, seed {seed}, store {broker.store}")
    rng = random.Random(seed)
    topic = "numbers"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    producer = NumberedProducer(broker.bootstrap, topic)
    consumer = CommittingConsumer(broker.bootstrap, topic)
    producer.start()
    consumer.start()
    slowest = 0.0
    for _ in range(rounds):
        time.sleep(rng.uniform(0.1, 1.5))
        broker.kill()
        started = time.monotonic()
        broker.start()
        slowest = max(slowest, time.monotonic() - started)
    time.sleep(1)
    producer.stopping.set()
    producer.join(180)
    assert producer.left == 0, producer.left
    found = read_all(broker.bootstrap, topic)
    ends = {partition: len(records) for partition, records in found.items()}
    consumer.wait_for(ends)
    consumer.stopping.set()
    consumer.join(60)
    assert not consumer.is_alive()
    acknowledged = producer.acknowledged
    stored = {
        (partition, offset): value
        for partition, records in found.items()
        for offset, value in records
    }
    lost = [place for place, value in acknowledged.items() if stored.get(place) != value][:10]
    print(
        f"{len(acknowledged)} acknowledged, {sum(map(len, found.values()))} stored, "
        f"slowest start {slowest:.2f} s"
    )
    assert not producer.failed, producer.failed[:3]
    assert not lost, f"acknowledged and not there: {lost}"
    for partition, records in found.items():
        assert [offset for offset, _ in records] == list(range(len(records)))
        numbers = [int(value.split(b":")[1].rstrip(b".")) for _, value in records]
        assert numbers == sorted(set(numbers)), f"doubled or reordered in partition {partition}"
    assert not consumer.went_back, consumer.went_back[:10]
    again = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "survivors"})
    kept = again.committed([TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=30)
    again.close()
    assert {one.partition: one.offset for one in kept} == ends


def seed_of_this_run() -> int:
    return int(os.environ.get("HEADWATER_KILL_SEED", random.SystemRandom().randrange(10**9)))


def test_nothing_acknowledged_is_lost_on_files(tmp_path: Path) -> None:
    broker = BrokerProcess(f"file://{tmp_path}/data", tmp_path).start()
    try:
        kill_again_and_again(broker, ROUNDS, seed_of_this_run())
    finally:
        broker.kill()


def test_nothing_acknowledged_is_lost_on_minio(tmp_path: Path, minio: Minio) -> None:
    store = minio.make_bucket(f"kill-{random.SystemRandom().randrange(10**9)}")
    broker = BrokerProcess(store, tmp_path, env=minio.env).start()
    try:
        kill_again_and_again(broker, ROUNDS, seed_of_this_run())
    finally:
        broker.kill()
