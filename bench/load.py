"""The load generator, a process of its own: `python -m bench.load KIND JSON`, one JSON line out.

Blocking sockets, one thread each, whole requests built before the clock starts: what it costs the
machine is a copy into the socket, for every broker the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from . import wire

ROOT = Path(__file__).parent.parent


def run_load(kind: str, **options: Any) -> dict[str, Any]:
    """Run one in a process of its own."""
    started = start_load(kind, **options)
    return finish_load(started)


def start_load(kind: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.load", kind, json.dumps(options)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish_load(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=300)
    if process.returncode:
        raise RuntimeError(f"the load generator ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


class _Tally:
    """What all threads did. latencies_s: of every request."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bytes = 0
        self.requests = 0
        self.latencies_s: list[float] = []
        self.failures: list[str] = []

    def add(self, size_bytes: int, requests: int, latencies_s: list[float]) -> None:
        with self.lock:
            self.bytes += size_bytes
            self.requests += requests
            self.latencies_s += latencies_s


def produce(
    bootstrap: str,
    topic: str,
    partitions: int,
    batch_bytes: int,
    connections: int,
    in_flight: int,
    seconds: float,
    warm_up_s: float = 0.5,
    max_bytes: int = 1 << 62,
    record_bytes: int = 1024,
) -> dict[str, Any]:
    """Every request has one batch for each partition; `in_flight` requests on a connection."""
    batch = wire.batch_of(batch_bytes, record_bytes)
    frame = wire.produce_frame(topic, [(i, batch) for i in range(partitions)])
    size_bytes = len(batch) * partitions
    tally = _Tally()
    begin = threading.Barrier(connections)
    room = max_bytes // connections

    def one() -> None:
        mine = bytearray(frame)
        with wire.connect(bootstrap) as link:
            answers = wire.Answers(link)
            begin.wait()
            started = time.perf_counter()
            counted_from, end_at = started + warm_up_s, started + warm_up_s + seconds
            sent: deque[float] = deque()
            latencies: list[float] = []
            number = sent_bytes = counted = 0
            while True:
                now = time.perf_counter()
                while len(sent) < in_flight and now < end_at and sent_bytes < room:
                    wire.set_correlation(mine, number)
                    sent.append(now)
                    link.sendall(mine)
                    sent_bytes += size_bytes
                    number += 1
                    now = time.perf_counter()
                if not sent:
                    break
                wire.check_produced(answers.next(), topic)
                now = time.perf_counter()
                took = now - sent.popleft()
                if counted_from <= now <= end_at:
                    latencies.append(took)
                    counted += 1
            tally.add(counted * size_bytes, counted, latencies)

    took_s = _in_threads(one, connections, tally) - warm_up_s
    return _summary(tally, min(took_s, seconds))


def consume(
    bootstrap: str,
    topic: str,
    partitions: int,
    connections: int,
    seconds: float,
    max_bytes: int = 1 << 62,
    fetch_bytes: int = 50 << 20,
    partition_bytes: int = 1 << 20,
    again: bool = True,
) -> dict[str, Any]:
    """Read from the beginning; at the end begin `again`, or stop. Partitions are shared out."""
    tally = _Tally()
    begin = threading.Barrier(connections)
    room = max_bytes // connections

    def one(number: int) -> None:
        offsets = {i: 0 for i in range(partitions) if i % connections == number}
        ends: dict[int, int] = {}
        total = requests = 0
        latencies: list[float] = []
        with wire.connect(bootstrap) as link:
            answers = wire.Answers(link, 4 << 20)
            begin.wait()
            end_at = time.perf_counter() + seconds
            while offsets and total < room:
                now = time.perf_counter()
                if now >= end_at:
                    break
                wanted = list(offsets.items())
                link.sendall(wire.fetch_frame(topic, wanted, 500, fetch_bytes, partition_bytes))
                for index, size, behind, high in wire.fetched(answers.next(), topic):
                    total += size
                    ends[index] = high
                    if behind >= 0:
                        offsets[index] = behind
                requests += 1
                latencies.append(time.perf_counter() - now)
                for index, high in ends.items():
                    if index in offsets and offsets[index] >= high:
                        if again:
                            offsets[index] = 0
                        else:
                            del offsets[index]
            tally.add(total, requests, latencies)

    workers = list(range(connections))
    took_s = _in_threads(lambda: one(workers.pop()), connections, tally)
    return _summary(tally, took_s)


def one_by_one(
    bootstrap: str, topic: str, requests: int, batch_bytes: int = 1024, pause_s: float = 0.0
) -> dict[str, Any]:
    """One request in flight: how long an acknowledgement takes."""
    frame = wire.produce_frame(topic, [(0, wire.batch_of(batch_bytes, batch_bytes))])
    tally = _Tally()
    with wire.connect(bootstrap) as link:
        answers = wire.Answers(link)
        latencies = []
        for number in range(requests + 20):
            if pause_s:
                time.sleep(pause_s)
            wire.set_correlation(frame, number)
            started = time.perf_counter()
            link.sendall(frame)
            wire.check_produced(answers.next(), topic)
            if number >= 20:
                latencies.append(time.perf_counter() - started)
        tally.add(0, requests, latencies)
    return _summary(tally, sum(latencies))


def first_acknowledged(bootstrap: str, topic: str, timeout_s: float = 60.0) -> dict[str, Any]:
    """Tries until a produce is acknowledged; "at": time.time() of that."""
    frame = wire.produce_frame(topic, [(0, wire.batch_of(1024))])
    end_at = time.monotonic() + timeout_s
    while time.monotonic() < end_at:
        try:
            with wire.connect(bootstrap) as link:
                link.sendall(frame)
                wire.check_produced(wire.Answers(link).next(), topic)
                return {"at": time.time()}
        except (OSError, wire.BadAnswer):
            time.sleep(0.005)
    raise SystemExit("nothing was acknowledged in time")


def end_to_end(bootstrap: str, topic: str, records: int) -> dict[str, Any]:
    """From the send of a record to its arrival at a consumer in a long poll."""
    frame = wire.produce_frame(topic, [(0, wire.batch_of(1024))])
    tally = _Tally()
    latencies: list[float] = []
    with wire.connect(bootstrap) as producer, wire.connect(bootstrap) as consumer:
        acks, records_in = wire.Answers(producer), wire.Answers(consumer)
        consumer.sendall(wire.fetch_frame(topic, [(0, 0)], 100, 1 << 20, 1 << 20))
        offset = 0
        for _, _, _, high in wire.fetched(records_in.next(), topic):
            offset = high
        for number in range(records + 20):
            consumer.sendall(wire.fetch_frame(topic, [(0, offset)], 5000, 1 << 20, 1 << 20))
            time.sleep(0.002)  # so that the poll waits already
            started = time.perf_counter()
            producer.sendall(frame)
            for _, size, behind, _ in wire.fetched(records_in.next(), topic):
                assert size, "an empty answer to a long poll"
                offset = behind
            if number >= 20:
                latencies.append(time.perf_counter() - started)
            wire.check_produced(acks.next(), topic)
    tally.add(0, records, latencies)
    return _summary(tally, sum(latencies))


def client_produce(
    bootstrap: str, topic: str, seconds: float, record_bytes: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """confluent-kafka as an application uses it."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, **settings})
    value = (
        bytes(record_bytes // 2) + wire.batch_of(1024)[61 : 61 + record_bytes - record_bytes // 2]
    )
    done = failed = 0

    def delivered(error: object, _message: object) -> None:
        nonlocal done, failed
        if error is None:
            done += 1
        else:
            failed += 1

    producer.produce(topic, value)
    producer.flush(30)
    started = time.perf_counter()
    end_at = started + seconds
    while time.perf_counter() < end_at:
        for _ in range(200):
            try:
                producer.produce(topic, value, on_delivery=delivered)
            except BufferError:
                producer.poll(0.01)
                break
        producer.poll(0)
    producer.flush(60)
    took_s = time.perf_counter() - started
    return {
        "mb_per_s": done * record_bytes / took_s / 1e6,
        "records_per_s": done / took_s,
        "failures": [f"{failed} records"] if failed else [],
    }


def client_consume(bootstrap: str, topic: str, records: int, seconds: float) -> dict[str, Any]:
    """confluent-kafka from the beginning, in a group of its own, until so many or the time."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": wire.unique("bench"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    found = size = 0
    started = 0.0
    end_at = time.perf_counter() + seconds + 15
    while found < records and time.perf_counter() < end_at:
        for message in consumer.consume(500, 0.2):
            if message.error() is None:
                if not started:
                    started = time.perf_counter()
                    end_at = started + seconds
                found += 1
                size += len(message.value() or b"")
    took_s = time.perf_counter() - started
    consumer.close()
    return {"mb_per_s": size / took_s / 1e6, "records_per_s": found / took_s, "failures": []}


def _in_threads(one: Any, count: int, tally: _Tally) -> float:
    def guarded() -> None:
        try:
            one()
        except Exception as error:
            tally.failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def _summary(tally: _Tally, seconds: float) -> dict[str, Any]:
    p50, p99 = np.percentile(tally.latencies_s or [0.0], (50, 99)) * 1e3
    return {
        "bytes": tally.bytes,
        "requests": tally.requests,
        "seconds": seconds,
        "mb_per_s": tally.bytes / seconds / 1e6,
        "requests_per_s": tally.requests / seconds,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "failures": tally.failures,
    }


KINDS = {
    one.__name__: one
    for one in (
        produce,
        consume,
        one_by_one,
        first_acknowledged,
        end_to_end,
        client_produce,
        client_consume,
    )
}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](**json.loads(sys.argv[2]))))
