"""aiokafka as load: `python -m tests.chaos.client_aio produce|consume JSON`, as client_rdkafka."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any

from .client_settings import AIOKAFKA, PARTITIONS
from .history import Recorder

COMMIT_EVERY_S = 0.2


async def produce(note: Recorder, stopping: asyncio.Event, given: dict[str, Any]) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(
        bootstrap_servers=given["bootstrap"], enable_idempotence=True, **AIOKAFKA
    )
    await producer.start()
    waiting: set[asyncio.Task[None]] = set()

    async def told(future: Any, value: str, sent: float) -> None:
        try:
            answer = await future
        except Exception as error:
            note.note("error", what="produce", text=f"{type(error).__name__}: {error}")
            return
        note.note(
            "acknowledged", partition=answer.partition,
            offset=answer.offset if answer.offset >= 0 else None,
            value=value, took_s=round(time.monotonic() - sent, 4),
        )  # fmt: skip

    number = 0
    while not stopping.is_set():
        for partition in range(PARTITIONS):
            value, sent = f"{given['name']}.{number}", time.monotonic()
            number += 1
            try:
                future = await producer.send(given["topic"], value.encode(), partition=partition)
            except Exception as error:
                note.note("error", what="produce", text=f"{type(error).__name__}: {error}")
                continue
            task = asyncio.create_task(told(future, value, sent))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        try:
            await asyncio.wait_for(stopping.wait(), given["pause_s"])
        except TimeoutError:
            pass
    await producer.stop()
    if waiting:
        await asyncio.wait(waiting, timeout=60)
    note.note("ended", unanswered=len(waiting))


async def consume(note: Recorder, stopping: asyncio.Event, given: dict[str, Any]) -> None:
    from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: Any) -> None:
            await commit()

        async def on_partitions_assigned(self, assigned: Any) -> None:
            note.note("assigned", partitions=sorted(one.partition for one in assigned))

    consumer = AIOKafkaConsumer(
        bootstrap_servers=given["bootstrap"], group_id=given["group"], enable_auto_commit=False,
        auto_offset_reset="earliest", **AIOKAFKA,
    )  # fmt: skip
    behind: dict[Any, int] = {}

    async def commit() -> None:
        wanted = dict(behind)
        if not wanted:
            return
        try:
            await consumer.commit(wanted)
        except Exception as error:
            note.note("error", what="commit", text=f"{type(error).__name__}: {error}")
            return
        for place, offset in wanted.items():
            note.note("committed", partition=place.partition, offset=offset)
            if behind.get(place) == offset:
                del behind[place]

    await consumer.start()
    consumer.subscribe([given["topic"]], listener=Listener())
    due = time.monotonic() + COMMIT_EVERY_S
    while not stopping.is_set():
        try:
            given_now = await consumer.getmany(timeout_ms=100)
        except Exception as error:
            note.note("error", what="consume", text=f"{type(error).__name__}: {error}")
            continue
        for place, records in given_now.items():
            for one in records:
                note.note(
                    "delivered", partition=one.partition, offset=one.offset,
                    value=one.value.decode(),
                )  # fmt: skip
                behind[place] = one.offset + 1
        if behind and time.monotonic() >= due:
            await commit()
            due = time.monotonic() + COMMIT_EVERY_S
    await consumer.stop()
    note.note("ended", unanswered=0)


async def run(note: Recorder, what: str, given: dict[str, Any]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await {"produce": produce, "consume": consume}[what](note, stopping, given)


def main() -> None:
    # What it retries by itself it logs; what an application sees is noted.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    given = json.loads(sys.argv[2])
    with Path(given["history"]).open("a") as file:
        asyncio.run(run(Recorder(file), sys.argv[1], given))


if __name__ == "__main__":
    main()
