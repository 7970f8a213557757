"""Memory stays within what is configured, under loads that would take all that there is.

The bound: the four settings that bound what the broker keeps of records, and a stated base for all
else: the interpreter with its libraries, the process that merges, buffers that were freed and are
kept for the next burst (`broker/heap.py`), and bytes on their way through the library that talks to
the store. docs/operations.md tells operators the same.
"""

from __future__ import annotations

import asyncio
import random
import resource
import struct
import time
from pathlib import Path

import pytest

from .conftest import StartBroker
from .load import create_topic, fresh
from .processes import BrokerProcess, Minio
from .resident import MIB, MemoryWatch
from .store_proxy import Fault, StoreProxy
from .wire import ask, batch_of, fetch_request, fetched, produce_request, produced

pytestmark = [pytest.mark.peer, pytest.mark.timeout(240)]

SMALL = {
    "memory.request.bytes": 32 * MIB,
    "memory.response.bytes": 16 * MIB,
    "log.cache.bytes": 32 * MIB,
    "cache.memory.bytes": 16 * MIB,
}
BASE_BYTES = 256 * MIB
BOUND_BYTES = sum(SMALL.values()) + BASE_BYTES
SETTINGS = {key: str(size) for key, size in SMALL.items()}

CONSUMERS = 1000
PARTITIONS = 8
HISTORY_BYTES = 16 * MIB  # of each partition
LARGEST = 100 * MIB - 4096


def assert_bounded(memory: MemoryWatch, bound_bytes: int = BOUND_BYTES) -> None:
    print(f"memory: {memory}; the bound is {bound_bytes / MIB:.0f} MiB")
    assert memory.most_bytes < bound_bytes, str(memory)


def pid_of(broker: BrokerProcess) -> int:
    assert broker.process is not None
    return broker.process.pid


def fill(broker: BrokerProcess, topic: str) -> None:
    """Random bytes, so that nothing gets smaller on its way."""
    from confluent_kafka import Producer

    rng = random.Random(1)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 20})
    for _ in range(HISTORY_BYTES // (64 << 10)):
        for partition in range(PARTITIONS):
            producer.produce(topic, rng.randbytes(64 << 10), partition=partition)
        producer.poll(0)
        while len(producer) > 500:
            producer.poll(0.1)
    assert producer.flush(60) == 0


async def read_history(broker: BrokerProcess, topic: str, number: int) -> int:
    """From the beginning to the end; the bytes read. Every other one reads its answers slowly."""
    rng = random.Random(number)
    await asyncio.sleep(rng.uniform(0, 2))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", broker.port, local_addr=(f"127.0.1.{1 + number // 100}", 0), limit=64 << 10
    )
    partition = number % PARTITIONS
    # All of it would be 16 GB: each reads a part, from a place of its own.
    offset = rng.randrange(0, HISTORY_BYTES // (64 << 10) * 3 // 4)
    wanted = offset + HISTORY_BYTES // (64 << 10) // 8
    read = 0
    try:
        while offset < wanted:
            writer.write(
                fetch_request(topic, partition, offset, max_bytes=4 * MIB, max_wait_ms=5000)
            )
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            answer = bytearray()
            while len(answer) < size:
                piece = await reader.read(min(size - len(answer), 64 << 10))
                assert piece, "closed in the middle of an answer"
                answer += piece
                if number % 2:
                    await asyncio.sleep(0.01)
            got = fetched(answer)
            assert got.error == 0, got
            if got.next_offset is not None:
                assert got.next_offset > offset
                offset = got.next_offset
            read += got.size_bytes
    finally:
        writer.close()
    return read


def test_a_thousand_consumers_of_history_share_the_bound(start_broker: StartBroker) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    broker = start_broker(settings=SETTINGS)
    topic = fresh("history")
    create_topic(broker.bootstrap, topic, PARTITIONS)
    fill(broker, topic)
    # Nothing of it is in the log cache then.
    assert broker.stop() == 0
    broker.start()

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(read_history(broker, topic, n) for n in range(CONSUMERS)))

    began = time.monotonic()
    with MemoryWatch(pid_of(broker)) as memory:
        read = asyncio.run(asyncio.wait_for(all_of_them(), 200))
    took_s = time.monotonic() - began
    print(f"{sum(read) / MIB:.0f} MiB to {CONSUMERS} consumers in {took_s:.1f} s")
    assert min(read) >= HISTORY_BYTES // 8
    assert_bounded(memory)
    assert "Traceback" not in broker.log_text, broker.log_tail()


@pytest.mark.parametrize("where", ["files", "minio"])
def test_batches_of_a_hundred_mebibytes_go_one_at_a_time(
    start_broker: StartBroker, minio: Minio, where: str
) -> None:
    """They are larger than each of the bounds: one of them at a time is let through all the same,
    in every place where it has to be whole.
    """
    settings = {**SETTINGS, "message.max.bytes": str(100 * MIB), "fetch.max.bytes": str(100 * MIB)}
    if where == "files":
        broker = start_broker(settings=settings)
    else:
        broker = start_broker(minio.make_bucket(fresh("large")), settings=settings, env=minio.env)
    topic = fresh("large")
    create_topic(broker.bootstrap, topic, 1)
    batch = batch_of(LARGEST, b"0123456789abcdef")

    async def send() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        try:
            done = produced(await ask(reader, writer, *produce_request(topic, batch, 90_000)))
            assert done.error == 0, done
            return done.base_offset
        finally:
            writer.close()

    async def read(offset: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        try:
            size = 0
            while not size:  # there may be no room for so much before the wait is over
                answer = await ask(
                    reader, writer,
                    fetch_request(topic, 0, offset, max_bytes=100 * MIB, max_wait_ms=20_000),
                )  # fmt: skip
                got = fetched(answer)
                assert got.error == 0, got
                size = got.size_bytes
            return size
        finally:
            writer.close()

    async def together(*tasks: object) -> list[int]:
        return await asyncio.wait_for(asyncio.gather(*tasks), 150)  # type: ignore[call-overload,no-any-return]

    async def sent_and_read() -> None:
        assert sorted(await together(*(send() for _ in range(3)))) == [0, 1, 2]
        assert await together(*(read(n % 3) for n in range(4))) == [len(batch)] * 4

    with MemoryWatch(pid_of(broker)) as memory:
        asyncio.run(sent_and_read())
    # Two of them: one that is received or written, and one that is read or sent.
    assert_bounded(memory, BOUND_BYTES + 2 * 100 * MIB)
    assert broker.stop() == 0
    broker.start()
    with MemoryWatch(pid_of(broker)) as memory:
        sizes = asyncio.run(together(*(read(n % 3) for n in range(4))))
    assert sizes == [len(batch)] * 4
    assert_bounded(memory, BOUND_BYTES + 2 * 100 * MIB)
    assert "Traceback" not in broker.log_text, broker.log_tail()


PRODUCERS = 16
BATCH_BYTES = 900_000
AT_ONCE = 3


async def flood(broker: BrokerProcess, topic: str, number: int, stop: asyncio.Event) -> int:
    """Batches as fast as they are taken, from an address of its own; how many were acknowledged."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", broker.port, local_addr=(f"127.0.2.{1 + number}", 0)
    )
    batch = batch_of(BATCH_BYTES, random.Random(number).randbytes(1000))
    slots = asyncio.Semaphore(AT_ONCE)
    sent = 0
    done = 0

    async def send() -> None:
        nonlocal sent
        while not stop.is_set():
            await slots.acquire()
            for piece in produce_request(topic, batch, 60_000):
                writer.write(piece)
            await writer.drain()
            sent += 1

    sending = asyncio.create_task(send())
    try:
        while done < sent or not sending.done():
            async with asyncio.timeout(90):
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                answer = produced(await reader.readexactly(size))
            assert answer.error == 0, answer
            done += 1
            slots.release()
            await asyncio.sleep(0)
        await sending
    finally:
        sending.cancel()
        writer.close()
    return done


def test_producers_faster_than_the_store_wait(minio: Minio, tmp_path: Path) -> None:
    proxy = StoreProxy(minio.port)
    env = {**minio.env, "AWS_ENDPOINT_URL": proxy.endpoint}
    store = minio.make_bucket(fresh("slow"))
    broker = BrokerProcess(store, tmp_path, settings=SETTINGS, env=env).start()
    topic = fresh("flood")
    pinned: list[float] = []

    async def all_of_them() -> list[int]:
        stop = asyncio.Event()
        floods = [asyncio.create_task(flood(broker, topic, n, stop)) for n in range(PRODUCERS)]
        for _ in range(40):
            await asyncio.sleep(0.5)
            pinned.append(
                await asyncio.to_thread(broker.metric, "headwater_log_cache_pinned_bytes")
            )
        stop.set()
        proxy.fault = None
        return await asyncio.gather(*floods)

    try:
        create_topic(broker.bootstrap, topic, 1)
        with MemoryWatch(pid_of(broker)) as memory:
            proxy.fault = Fault("delay", delay_s=3.0, methods=("PUT",))
            acknowledged = asyncio.run(all_of_them())
        print(
            f"{sum(acknowledged) * BATCH_BYTES / MIB:.0f} MiB acknowledged, at most "
            f"{max(pinned) / MIB:.0f} MiB at once were held by the log"
        )
        assert min(acknowledged) > 0
        assert proxy.met["delay"] > 0
        # Or they were not faster than the store.
        assert max(pinned) > SMALL["log.cache.bytes"] / 2
        assert_bounded(memory)
        assert end_of(broker, topic) == sum(acknowledged)
        assert "Traceback" not in broker.log_text, broker.log_tail()
        broker.wait_ready(True)
    finally:
        broker.kill()
        proxy.close()


def end_of(broker: BrokerProcess, topic: str) -> int:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": fresh("end")})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
    finally:
        consumer.close()
    return int(end)
