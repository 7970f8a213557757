"""Two real brokers in two racks: clients that tell their rack read from the broker there.

What shows it are the brokers' own counters. On a busy machine a broker may not be heard for a
while, and a consumer then goes back to the leader, rightly: a round is repeated until it was whole.
Should it be missed for so long that the other one leads, that is in the consumer's rack too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .load import create_topic, fresh
from .processes import BrokerProcess, run_tool

pytestmark = [pytest.mark.peer, pytest.mark.timeout(900)]

WAIT_S = 240.0
VALUE = b"v" * 200


class Racks(NamedTuple):
    """One topic of one partition. rack: of the consumers; near: the broker there, which did not
    lead at first.
    """

    topic: str
    other: BrokerProcess
    near: BrokerProcess
    rack: str


def bytes_to(broker: BrokerProcess, rack: str) -> int:
    """Given to consumers of the `same`, an `other` or an `unknown` rack."""
    _, text = broker.http("/metrics")
    found = re.search(rf'^headwater_consumer_bytes_total{{rack="{rack}"}} (\S+)$', text, re.M)
    assert found is not None, text
    return int(found[1])


@pytest.fixture
def racks(tmp_path: Path) -> Iterator[Racks]:
    from confluent_kafka.admin import AdminClient

    brokers = {
        node_id: BrokerProcess(
            f"file://{tmp_path}/data",
            tmp_path,
            {"broker.rack": rack},
            node_id=node_id,
            cache_dir=tmp_path / f"cache-{node_id}",
        )
        for node_id, rack in ((1, "zone-a"), (2, "zone-b"))
    }
    try:
        for broker in brokers.values():
            broker.start()
        topic = fresh("racks")
        create_topic(brokers[1].bootstrap, topic, 1)
        admin = AdminClient({"bootstrap.servers": brokers[1].bootstrap})
        deadline = time.monotonic() + WAIT_S
        while True:
            told = admin.list_topics(topic, timeout=10).topics[topic].partitions[0]
            if told.leader in brokers and sorted(told.replicas) == [1, 2]:
                break
            assert time.monotonic() < deadline, (told.leader, told.replicas)
            time.sleep(0.1)
        assert sorted(told.isrs) == [1, 2]
        near = 3 - told.leader
        rack = brokers[near].settings["broker.rack"]
        yield Racks(topic, brokers[told.leader], brokers[near], rack)
    finally:
        for broker in brokers.values():
            broker.kill()


def produce(racks: Racks, first: int, count: int) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": racks.other.bootstrap, "log_level": 0})
    for number in range(first, first + count):
        producer.produce(racks.topic, VALUE, str(number).encode())
    assert producer.flush(60) == 0


def librdkafka_consumer(racks: Racks) -> Any:
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": racks.other.bootstrap,
            "group.id": fresh("racks"),
            "client.rack": racks.rack,
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 100,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(racks.topic, 0, OFFSET_BEGINNING)])
    return consumer


def read_on(consumer: Any, keys: list[int], count: int) -> None:
    """Until so many were read."""
    deadline = time.monotonic() + WAIT_S
    while len(keys) < count:
        assert time.monotonic() < deadline, f"{len(keys)} of {count} came"
        for message in consumer.consume(500, 0.2):
            assert message.error() is None, message.error()
            keys.append(int(message.key()))


def test_librdkafka_reads_everything_from_the_broker_of_its_rack(racks: Racks) -> None:
    consumer = librdkafka_consumer(racks)
    keys: list[int] = []
    deadline = time.monotonic() + WAIT_S
    try:
        while True:
            crossed, near = bytes_to(racks.other, "other"), bytes_to(racks.near, "same")
            produce(racks, len(keys), 100)
            read_on(consumer, keys, len(keys) + 100)
            if bytes_to(racks.other, "other") == crossed and bytes_to(
                racks.near, "same"
            ) >= near + 100 * len(VALUE):
                break
            assert time.monotonic() < deadline, "no round stayed within the rack"
    finally:
        consumer.close()
    assert keys == list(range(len(keys))), "once each, and in order"
    assert bytes_to(racks.near, "other") == 0


def test_a_java_consumer_is_sent_to_the_broker_of_its_rack(racks: Racks) -> None:
    count = 2000
    produce(racks, 0, count)
    expected = [str(number) for number in range(count)]
    deadline = time.monotonic() + WAIT_S
    # So that the leader knows from the start that the other broker can serve.
    consumer = librdkafka_consumer(racks)
    try:
        read_on(consumer, [], count)
        near = bytes_to(racks.near, "same")
        while bytes_to(racks.near, "same") == near:
            assert time.monotonic() < deadline, "it never read in its rack"
            consumer.poll(0)
            out = run_tool(
                "kafka-console-consumer", "--bootstrap-server", racks.other.bootstrap,
                "--topic", racks.topic, "--from-beginning", "--max-messages", str(count),
                "--timeout-ms", "60000", "--command-property", f"client.rack={racks.rack}",
                "--command-property", "max.partition.fetch.bytes=4000",
                "--formatter-property", "print.key=true",
                "--formatter-property", "print.value=false",
            )  # fmt: skip
            assert out.split() == expected, "once each, and in order"
    finally:
        consumer.close()


def test_kafka_topics_shows_the_serving_broker_as_a_replica_in_sync(racks: Racks) -> None:
    at = ("--bootstrap-server", racks.near.bootstrap)
    deadline = time.monotonic() + WAIT_S
    while True:
        out = run_tool("kafka-topics", *at, "--describe", "--topic", racks.topic)
        shown = re.search(r"Leader: (\d)\s+Replicas: (\d),(\d)\s+Isr: (\d),(\d)", out)
        if shown is not None:
            break
        assert time.monotonic() < deadline, out
    assert shown[1] == shown[2] and {shown[2], shown[3]} == {shown[4], shown[5]} == {"1", "2"}
    assert racks.topic not in run_tool(
        "kafka-topics", *at, "--describe", "--under-replicated-partitions"
    )
