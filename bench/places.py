"""Where a question is asked: the broker on each of its stores, and Apache Kafka beside it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.peers.processes import HERE, PEERS_HOME, BrokerProcess, Minio

from . import wire
from .raw import run_raw

STORES = ("memory", "file", "minio")


class Subject:
    """Something that speaks Kafka. name: a store's, or "kafka"."""

    def __init__(self, name: str, bootstrap: str, broker: BrokerProcess | None = None) -> None:
        self.name = name
        self.bootstrap = bootstrap
        self._broker = broker

    @property
    def broker(self) -> BrokerProcess:
        assert self._broker is not None, f"{self.name} is no broker of ours"
        return self._broker

    def create_topic(self, partitions: int = 1) -> str:
        """A new one that is led already."""
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        name = wire.unique("bench")
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for future in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            future.result(30)
        self._lead(name, partitions)
        return name

    def _lead(self, topic: str, partitions: int) -> None:
        """Wait for the leaders by writing to all of them."""
        batch = wire.batch_of(100, 100)
        frame = wire.produce_frame(topic, [(i, batch) for i in range(partitions)])
        with wire.connect(self.bootstrap) as link:
            answers = wire.Answers(link)
            for attempt in range(100):
                link.sendall(frame)
                try:
                    wire.check_produced(answers.next(), topic)
                    return
                except wire.BadAnswer:
                    if attempt == 99:
                        raise
                    time.sleep(0.05)

    def delete_topic(self, name: str) -> None:
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        for future in admin.delete_topics([name]).values():
            future.result(30)

    def metrics(self) -> dict[str, float]:
        """Sums over labels of everything at /metrics, and each series by its full name."""
        url = f"http://127.0.0.1:{self.broker.http_port}/metrics"
        found: dict[str, float] = {}
        with urllib.request.urlopen(url, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("#") or not line.strip():
                    continue
                series, _, number = line.rpartition(" ")
                name = series.partition("{")[0]
                found[name] = found.get(name, 0.0) + float(number)
                if name != series:
                    found[series] = float(number)
        return found

    def cpu_s(self) -> float:
        """Processor time that the broker and every process below it have used."""
        assert self.broker.process is not None
        return sum(_cpu_s(pid) for pid in _with_children(self.broker.process.pid))

    def resident_bytes(self) -> int:
        """Of the broker and every process below it."""
        assert self.broker.process is not None
        return resident_bytes(self.broker.process.pid)


class Places:
    """Opened once for a run. stores: some of STORES."""

    def __init__(self, stores: list[str], kafka: bool) -> None:
        self.stores = stores
        self.has_kafka = kafka
        self._stack = contextlib.ExitStack()
        self._directory = Path()
        self._minio: Minio | None = None
        self._kafka: Subject | None = None
        self._buckets = 0

    def __enter__(self) -> Places:
        self._directory = Path(tempfile.mkdtemp(prefix="headwater-bench-"))
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        if "minio" in self.stores:
            self._minio = Minio().start()
            self._stack.callback(self._minio.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def env(self) -> dict[str, str]:
        """For clients of the S3 store. Compiled modules are kept, as on a user's machine."""
        return {"PYTHONDONTWRITEBYTECODE": "", **({} if self._minio is None else self._minio.env)}

    def uri(self, store: str) -> str:
        """A new, empty store."""
        self._buckets += 1
        if store == "memory":
            return "memory:"
        if store == "file":
            return f"file://{self._directory}/store-{self._buckets}"
        assert self._minio is not None
        return self._minio.make_bucket(f"bench-{self._buckets}")

    def stored(self, uri: str, under: str) -> list[int]:
        """Sizes of all objects below that prefix of a store, in bytes."""
        if uri.startswith("file://"):
            files = Path(uri.removeprefix("file://"), under).rglob("*")
            return [one.stat().st_size for one in files if one.is_file()]
        assert self._minio is not None
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        pages = self._minio.client().get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=bucket, Prefix=f"{prefix}/{under}/")
        return [one["Size"] for page in found for one in page.get("Contents", [])]

    @contextlib.contextmanager
    def broker(
        self, store: str, settings: dict[str, str] | None = None, uri: str | None = None
    ) -> Iterator[Subject]:
        """A broker on a new store; killed at the end."""
        directory = Path(tempfile.mkdtemp(dir=self._directory))
        if store == "file":
            # As by default: BrokerProcess always names a cache directory.
            settings = {"cache.disk.bytes": "0", **(settings or {})}
        broker = BrokerProcess(uri or self.uri(store), directory, settings, self.env)
        broker.start()
        try:
            yield Subject(store, broker.bootstrap, broker)
        finally:
            broker.kill()
            if uri is None and broker.store.startswith("file://"):
                shutil.rmtree(broker.store.removeprefix("file://"), ignore_errors=True)

    def kafka(self) -> Subject:
        """One Apache Kafka for the whole run."""
        if self._kafka is None:
            port = _unused_port()
            script = str(HERE / "kafka.sh")
            subprocess.run(
                ["bash", script, "start", str(port)], check=True, capture_output=True, timeout=900
            )
            self._stack.callback(subprocess.run, ["bash", script, "stop", str(port)])
            self._kafka = Subject("kafka", f"127.0.0.1:{port}")
        return self._kafka

    @contextlib.contextmanager
    def subject(self, name: str) -> Iterator[Subject]:
        """A broker on a store of that name, or Kafka."""
        if name == "kafka":
            yield self.kafka()
        else:
            with self.broker(name) as subject:
                yield subject

    @property
    def names(self) -> list[str]:
        """All that speak Kafka."""
        return [*self.stores, *(["kafka"] if self.has_kafka else [])]

    def raw(self, store: str, **options: Any) -> dict[str, float]:
        """The store's own figures as of now, see bench.raw."""
        uri = self.uri(store)
        found = run_raw(uri, self.env, **options)
        if store == "file":
            shutil.rmtree(uri.removeprefix("file://"), ignore_errors=True)
        return found


def resident_bytes(pid: int) -> int:
    """Of a process and every one below it."""
    return sum(_resident(one) for one in _with_children(pid))


def _unused_port() -> int:
    """One that no other Kafka of kafka.sh has, nor anybody else."""
    while True:
        port = random.SystemRandom().randrange(30_000, 39_000)
        if (PEERS_HOME / "kafka" / f"node-{port}").exists():
            continue
        try:
            for one in (port, port + 1):
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", one))
        except OSError:
            continue
        return port


def _with_children(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0
