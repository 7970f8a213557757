"""librdkafka as load: `python -m tests.chaos.client_rdkafka produce|consume JSON`, until SIGTERM.

Its events go to the file that is named; a SIGTERM ends it in good order: what was sent is answered,
what was delivered is committed.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from .client_settings import PARTITIONS, RDKAFKA_CONSUMER, RDKAFKA_PRODUCER
from .history import Recorder

COMMIT_EVERY_S = 0.2
ENDS_WITHIN_S = 120.0


def produce(note: Recorder, stopping: threading.Event, given: dict[str, Any]) -> None:
    from confluent_kafka import Producer

    topic = given["topic"]
    config = {**RDKAFKA_PRODUCER, "bootstrap.servers": given["bootstrap"]}
    producer = Producer(config)
    number = 0

    def send(partition: int, value: str) -> None:
        sent = time.monotonic()

        def told(error: Any, message: Any) -> None:
            if error is not None:
                note.note("error", what="produce", text=str(error))
                return
            took_s = round(time.monotonic() - sent, 4)
            note.note(
                "acknowledged", partition=message.partition(), offset=message.offset(),
                value=value, took_s=took_s,
            )  # fmt: skip

        while True:
            try:
                producer.produce(topic, value.encode(), partition=partition, on_delivery=told)
                return
            except BufferError:  # nothing is acknowledged for long
                producer.poll(0.1)

    while not stopping.is_set():
        for partition in range(PARTITIONS):
            send(partition, f"{given['name']}.{number}")
            number += 1
        deadline = time.monotonic() + given["pause_s"]
        while (left := deadline - time.monotonic()) > 0:
            producer.poll(left)
    note.note("ended", unanswered=producer.flush(ENDS_WITHIN_S))


def consume(note: Recorder, stopping: threading.Event, given: dict[str, Any]) -> None:
    from confluent_kafka import Consumer, KafkaError, KafkaException

    config = {
        **RDKAFKA_CONSUMER,
        "bootstrap.servers": given["bootstrap"],
        "group.id": given["group"],
        "partition.assignment.strategy": given["assignor"],
    }
    consumer = Consumer(config)

    def assigned(_: Any, partitions: Any) -> None:
        note.note("assigned", partitions=sorted(one.partition for one in partitions))

    consumer.subscribe([given["topic"]], on_assign=assigned)
    is_behind = False  # something was delivered, and is not committed yet

    def commit() -> bool:
        try:
            done = consumer.commit(asynchronous=False)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() == KafkaError._NO_OFFSET:
                return True  # a rebalance came in between: what was delivered is another's
            note.note("error", what="commit", text=f"{cause.name()}: {cause.str()}")
            return False
        for one in done or ():
            if one.error is not None:
                note.note("error", what="commit", text=f"{one.error.name()}: {one.error.str()}")
            elif one.offset >= 0:
                note.note("committed", partition=one.partition, offset=one.offset)
        return True

    due = time.monotonic() + COMMIT_EVERY_S
    while not stopping.is_set():
        for message in consumer.consume(500, 0.05):
            if (error := message.error()) is not None:
                note.note("error", what="consume", text=f"{error.name()}: {error.str()}")
                continue
            is_behind = True
            note.note(
                "delivered", partition=message.partition(), offset=message.offset(),
                value=(message.value() or b"").decode(),
            )  # fmt: skip
        if is_behind and time.monotonic() >= due:
            is_behind = not commit()
            due = time.monotonic() + COMMIT_EVERY_S
    consumer.close()
    note.note("ended", unanswered=0)


def main() -> None:
    what, given = sys.argv[1], json.loads(sys.argv[2])
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with Path(given["history"]).open("a") as file:
        {"produce": produce, "consume": consume}[what](Recorder(file), stopping, given)


if __name__ == "__main__":
    main()
