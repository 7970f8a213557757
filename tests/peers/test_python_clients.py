"""confluent-kafka (librdkafka), aiokafka and kafka-python against a broker, unchanged."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from .processes import BrokerProcess

pytestmark = pytest.mark.peer

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def fresh(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def confluent_consume(broker: BrokerProcess, topic: str, count: int, **config: Any) -> list[Any]:
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": fresh("group"),
            "auto.offset.reset": "earliest",
            **config,
        }
    )
    consumer.subscribe([topic])
    messages: list[Any] = []
    deadline = time.monotonic() + 40
    while len(messages) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            messages.append(message)
    consumer.close()
    return messages


@pytest.mark.parametrize("codec", CODECS)
def test_librdkafka_gets_back_what_it_sent_in_every_codec(
    file_broker: BrokerProcess, codec: str
) -> None:
    from confluent_kafka import Producer

    topic = fresh(f"librdkafka-{codec}")
    producer = Producer(
        {
            "bootstrap.servers": file_broker.bootstrap,
            "compression.type": codec,
            "enable.idempotence": True,
            "linger.ms": 5,
        }
    )
    sent: list[tuple[bytes | None, bytes | None]] = []
    for i in range(500):
        key = None if i % 7 == 0 else f"key-{i}".encode()
        value = None if i % 11 == 0 and key is not None else b"v" * (i % 300)
        sent.append((key, value))
        producer.produce(topic, key=key, value=value, headers=[("n", str(i).encode())], partition=0)
    sent.append((b"big", b"x" * 900_000))
    producer.produce(topic, key=b"big", value=b"x" * 900_000, partition=0)
    assert producer.flush(30) == 0
    messages = confluent_consume(file_broker, topic, len(sent))
    assert [(m.key(), m.value()) for m in messages] == [(k, v) for k, v in sent]
    assert [m.offset() for m in messages] == list(range(len(sent)))
    assert messages[3].headers() == [("n", b"3")]


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_aiokafka_gets_back_what_it_sent_in_every_codec(
    file_broker: BrokerProcess, codec: str | None
) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    topic = fresh("aiokafka")

    async def scenario() -> list[Any]:
        producer = AIOKafkaProducer(
            bootstrap_servers=file_broker.bootstrap,
            compression_type=codec,
            enable_idempotence=True,
        )
        await producer.start()
        for i in range(200):
            await producer.send(
                topic, f"value-{i}".encode(), key=b"k", timestamp_ms=1_700_000_000_000 + i
            )
        await producer.stop()
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=file_broker.bootstrap,
            group_id=fresh("group"),
            auto_offset_reset="earliest",
        )
        await consumer.start()
        records = []
        try:
            while len(records) < 200:
                records.append(await asyncio.wait_for(consumer.getone(), 30))
        finally:
            await consumer.stop()
        return records

    records = asyncio.run(scenario())
    assert [r.value for r in records] == [f"value-{i}".encode() for i in range(200)]
    assert [r.timestamp for r in records] == [1_700_000_000_000 + i for i in range(200)]


def test_kafka_python_finds_offsets_by_time_and_seeks(file_broker: BrokerProcess) -> None:
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    topic = fresh("kafka-python")
    producer = KafkaProducer(bootstrap_servers=file_broker.bootstrap)
    start = int(time.time() * 1000) - 100_000
    for i in range(100):
        producer.send(topic, str(i).encode(), timestamp_ms=start + i * 100)
    producer.flush(30)
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=file_broker.bootstrap, auto_offset_reset="earliest")
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    found = consumer.offsets_for_times({partition: start + 4_250})[partition]
    assert (found.offset, found.timestamp) == (43, start + 4_300)
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: 100}
    consumer.seek(partition, 90)
    values: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(values) < 10 and time.monotonic() < deadline:
        for batch in consumer.poll(500).values():
            values += [r.value for r in batch]
    consumer.close()
    assert values == [str(i).encode() for i in range(90, 100)]


class Reader:
    """A member of a group that knows how far it read each partition that it has now.

    Nobody commits until everybody is done, so a partition that moves is read from its beginning
    again by the one who got it; what another had read of it does not count.
    """

    def __init__(self, config: dict[str, Any], topic: str) -> None:
        from confluent_kafka import Consumer

        self.positions: dict[int, int] = {}
        self.values: set[bytes] = set()
        self.consumer = Consumer(config)
        self.consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)

    def _assigned(self, _: Any, partitions: list[Any]) -> None:
        self.positions = {one.partition: 0 for one in partitions}

    def _revoked(self, *_: Any) -> None:
        self.positions = {}

    def read(self) -> None:
        for message in self.consumer.consume(100, 0.2):
            assert message.error() is None, message.error()
            self.positions[message.partition()] = message.offset() + 1
            self.values.add(message.value())


def test_a_group_shares_partitions_and_resumes_from_its_commits(file_broker: BrokerProcess) -> None:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    topic, group = fresh("shared"), fresh("group")
    admin = AdminClient({"bootstrap.servers": file_broker.bootstrap})
    admin.create_topics([NewTopic(topic, 6, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": file_broker.bootstrap})
    for i in range(600):
        producer.produce(topic, str(i).encode(), partition=i % 6)
    assert producer.flush(30) == 0
    config = {
        "bootstrap.servers": file_broker.bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    readers = [Reader(config, topic), Reader(config, topic)]

    def are_done() -> bool:
        return all(sorted(one.positions.values()) == [100, 100, 100] for one in readers)

    deadline = time.monotonic() + 60
    while not are_done():
        assert time.monotonic() < deadline, [one.positions for one in readers]
        for one in readers:
            one.read()
    assert sorted(p for one in readers for p in one.positions) == list(range(6))
    assert set().union(*(one.values for one in readers)) == {str(i).encode() for i in range(600)}
    # Both before anybody leaves: that would make a generation of which the other knows nothing yet.
    for one in readers:
        committed = one.consumer.commit(asynchronous=False)
        assert [(c.offset, c.error) for c in committed] == [(100, None)] * 3, committed
    for one in readers:
        one.consumer.close()
    for i in range(600, 660):
        producer.produce(topic, str(i).encode(), partition=i % 6)
    assert producer.flush(30) == 0
    three = Reader(config, topic)
    deadline = time.monotonic() + 60
    while sorted(three.positions.values()) != [110] * 6:
        assert time.monotonic() < deadline, three.positions
        three.read()
    three.consumer.close()
    assert three.values == {str(i).encode() for i in range(600, 660)}


def test_a_partition_that_moves_is_read_again_from_what_was_committed(
    file_broker: BrokerProcess,
) -> None:
    """What one member read and did not commit, the next reads from the last commit on."""
    from confluent_kafka import Producer, TopicPartition

    topic, group = fresh("moved"), fresh("group")
    producer = Producer({"bootstrap.servers": file_broker.bootstrap})
    for i in range(100):
        producer.produce(topic, str(i).encode())
    assert producer.flush(30) == 0
    config = {
        "bootstrap.servers": file_broker.bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    deadline = time.monotonic() + 60
    one = Reader(config, topic)
    while one.positions != {0: 100}:
        assert time.monotonic() < deadline, one.positions
        one.read()
    one.consumer.commit(offsets=[TopicPartition(topic, 0, 40)], asynchronous=False)
    one.consumer.close()
    two = Reader(config, topic)
    while two.positions != {0: 100}:
        assert time.monotonic() < deadline, two.positions
        two.read()
    two.consumer.close()
    assert two.values == {str(i).encode() for i in range(40, 100)}
