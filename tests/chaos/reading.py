"""A fresh reader of everything, at the end."""

from __future__ import annotations

import time

from tests.peers.load import fresh

from .client_settings import PARTITIONS, RDKAFKA_CONSUMER


def read_everything(
    bootstrap: str, topic: str, timeout_s: float
) -> tuple[dict[int, dict[int, str]], float, str]:
    """Values by partition and offset up to the end offsets of now; how long it took; what is
    missing where that is too long, else "".
    """
    from confluent_kafka import Consumer, TopicPartition

    began = time.monotonic()
    config = {**RDKAFKA_CONSUMER, "bootstrap.servers": bootstrap, "group.id": fresh("reader")}
    reader = Consumer(config)
    found: dict[int, dict[int, str]] = {partition: {} for partition in range(PARTITIONS)}
    ends: dict[int, int] = {}
    try:
        while True:
            missing = {p: ends[p] - len(found[p]) for p in ends if len(found[p]) < ends[p]}
            if len(ends) == PARTITIONS and not missing:
                return found, time.monotonic() - began, ""
            if time.monotonic() - began > timeout_s:
                text = f"a fresh reader waits for {missing} records by partition, ends are {ends}"
                return found, time.monotonic() - began, text
            if len(ends) < PARTITIONS:
                ends = _ends(reader, topic)
                if len(ends) == PARTITIONS:
                    reader.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
                continue
            for message in reader.consume(1000, 0.2):
                place, value = (message.partition(), message.offset()), message.value()
                if message.error() is None and value is not None:
                    found[place[0]][place[1]] = value.decode()  # type: ignore[index]
    finally:
        reader.close()


def _ends(reader: object, topic: str) -> dict[int, int]:
    """{} where a leader does not answer: asked again."""
    from confluent_kafka import KafkaException, TopicPartition

    try:
        return {
            p: reader.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]  # type: ignore[attr-defined]
            for p in range(PARTITIONS)
        }
    except KafkaException:
        time.sleep(0.2)
        return {}
