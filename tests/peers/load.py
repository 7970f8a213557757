"""Load that proves itself: numbers sent in order, and what was acknowledged where."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

PARTITIONS = 2


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def create_topic(bootstrap: str, topic: str, partitions: int = PARTITIONS) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


class NumberedLoad(threading.Thread):
    """An idempotent producer that sends ascending numbers to each partition, until `finish`."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        pause_s: float = 0.01,
        partitions: int = PARTITIONS,
        **config: Any,
    ) -> None:
        super().__init__(daemon=True)
        self._partitions = partitions
        from confluent_kafka import Producer

        self.topic = topic
        self.acknowledged: dict[tuple[int, int], bytes] = {}
        # librdkafka does not know the offset of a batch whose answer was a time-out and whose
        # successor was acknowledged: it concludes that both are there.
        self.placeless: list[bytes] = []
        self.failed: list[str] = []
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "log_level": 0,
                "enable.idempotence": True,
                "linger.ms": 2,
                "message.timeout.ms": 120_000,
                "request.timeout.ms": 2000,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 50,
                "retry.backoff.max.ms": 200,
                "topic.metadata.refresh.interval.ms": 1000,
                **config,
            }
        )
        self._left = 0

    def _told(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed.append(str(error))
        elif message.offset() is None:
            self.placeless.append(message.value())
        else:
            self.acknowledged[message.partition(), message.offset()] = message.value()

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            for partition in range(self._partitions):
                value = f"{partition}:{number}".encode()
                self._produce(partition, value)
            number += 1
            self._producer.poll(0)
            time.sleep(self._pause_s)
        self._left = self._producer.flush(60)

    def _produce(self, partition: int, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(self.topic, value, partition=partition, callback=self._told)
                return
            except BufferError:  # the broker has been away for long
                self._producer.poll(0.1)

    @property
    def all_acknowledged(self) -> list[bytes]:
        return [*self.acknowledged.values(), *self.placeless]

    def wait_for_more(self, count: int = 20, timeout_s: float = 120.0) -> None:
        """Until so many more were acknowledged."""
        enough = len(self.all_acknowledged) + count
        deadline = time.monotonic() + timeout_s
        while len(self.all_acknowledged) < enough and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(self.all_acknowledged) >= enough, f"nothing is acknowledged: {self.failed[:3]}"

    def finish(self) -> None:
        """Everything sent is acknowledged after this."""
        self._stopping.set()
        self.join(90)
        assert not self.is_alive()
        assert not self._left, f"{self._left} records without an answer"
        assert not self.failed, self.failed[:3]

    def abandon(self) -> None:
        """Stop without asking what became of it."""
        self._stopping.set()
        self._producer.purge()
        self.join(90)

    def assert_kept(self, bootstrap: str) -> None:
        """Every acknowledged record is where it was acknowledged; none is there twice."""
        found = read_all(bootstrap, self.topic, self._partitions)
        for (partition, offset), value in self.acknowledged.items():
            assert found[partition].get(offset) == value, (partition, offset, value)
        stored = {value for records in found.values() for value in records.values()}
        assert stored.issuperset(self.placeless)
        for partition, records in found.items():
            assert sorted(records) == list(range(len(records))), f"holes in {partition}"
            numbers = [int(records[offset].split(b":")[1]) for offset in sorted(records)]
            assert numbers == list(range(len(numbers))), f"doubled or missing in {partition}"


def _watermarks(consumer: Any, place: Any, deadline: float) -> tuple[int, int]:
    """librdkafka gives this one question's error to its caller, also where the leader has moved."""
    from confluent_kafka import KafkaError, KafkaException

    while True:
        try:
            found = consumer.get_watermark_offsets(place, timeout=deadline - time.monotonic())
            return found[0], found[1]
        except KafkaException as error:
            moved = error.args[0].code() == KafkaError.NOT_LEADER_FOR_PARTITION
            if not moved or time.monotonic() > deadline:
                raise
            consumer.list_topics(place.topic, timeout=10)


def read_all(
    bootstrap: str, topic: str, partitions: int = PARTITIONS, timeout_s: float = 120.0
) -> dict[int, dict[int, bytes]]:
    """Values by offset, by partition: everything below the high watermarks of now."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
            "group.id": fresh("read"),
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    found: dict[int, dict[int, bytes]] = {}
    deadline = time.monotonic() + timeout_s
    try:
        for partition in range(partitions):
            place = TopicPartition(topic, partition, 0)
            low, high = _watermarks(consumer, place, deadline)
            found[partition] = {}
            consumer.assign([TopicPartition(topic, partition, low)])
            while len(found[partition]) < high - low:
                assert time.monotonic() < deadline, (partition, len(found[partition]), high)
                for message in consumer.consume(1000, 0.2):
                    assert message.error() is None, message.error()
                    found[partition][message.offset()] = message.value()
    finally:
        consumer.close()
    return found
