"""Real processes for tests: brokers of ours, MinIO, Apache Kafka and its tools."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HEADWATER = Path(sys.executable).parent / "headwater"
PEERS_HOME = Path(os.environ.get("PEERS_HOME", Path.home() / ".cache" / "headwater-peers"))

_READY = re.compile(r"headwater is ready: kafka (\S+) http (\S+) store (\S+) node (\d+)")


class _Ports:
    """Which ports this process has taken for its servers, known to all that run beside it.

    A port is free again as soon as it was looked at, or when its server is killed; another test
    that looks then must not take it. Record locks of one file, a byte for each port: they end
    with the process that holds them.
    """

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._ours: set[int] = set()

    def take(self, port: int) -> bool:
        """False where somebody has it."""
        if self._file is None:
            place = Path(tempfile.gettempdir()) / f"headwater-test-ports-{os.getuid()}"
            self._file = place.open("ab")
        if port in self._ours:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        self._ours.add(port)
        with socket.socket() as chosen:
            try:
                chosen.bind(("127.0.0.1", port))
            except OSError:
                return False
        return True


_PORTS = _Ports()


def free_port() -> int:
    """A port of the loopback address that nobody has now, and no other test takes any more.

    Below those that the system gives to clients: one of those could be the near end of somebody's
    connection, or a client's own (it asks again and again while the broker is away, and meets
    itself), when the broker wants it back.
    """
    while True:
        port = random.randrange(10_240, 32_000)
        if _PORTS.take(port):
            return port


class BrokerProcess:
    """`headwater start` as a child; `kill` is kill -9, `start` starts it anew with the same
    arguments, so on the same store, node id and port."""

    def __init__(
        self,
        store: str,
        directory: Path,
        settings: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
        node_id: int | None = 1,
        cache_dir: Path | None = None,
    ) -> None:
        self.store = store
        self.directory = directory
        self.port = free_port()
        self.http_port = free_port()
        self.settings = {"group.initial.rebalance.delay.ms": "0", **(settings or {})}
        self.env = {**os.environ, **(env or {})}
        self.node_id = node_id
        self.cache_dir = cache_dir or directory / "cache"
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_line = ""
        self.starts = 0

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        return self.directory / f"broker-{self.port}.log"

    def command(self, extra: Sequence[str] = ()) -> list[str]:
        command = [
            str(HEADWATER), "start", "--store", self.store,
            "--listener", self.bootstrap, "--http", f"127.0.0.1:{self.http_port}",
            "--cache-dir", str(self.cache_dir),
            *extra,
        ]  # fmt: skip
        if self.node_id is not None:
            command += ["--node-id", str(self.node_id)]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        return command

    def start(self, timeout_s: float = 90.0, extra: Sequence[str] = ()) -> BrokerProcess:
        """Returns when the ready line was printed; raises with the log's end otherwise."""
        command = self.command(extra)
        self.starts += 1
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, env=self.env, cwd=self.directory
            )
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        line = b""
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.process.stdout], [], [], 0.2)
            if ready:
                line = self.process.stdout.readline()
                if not line or _READY.match(line.decode()):
                    break
            if self.process.poll() is not None:
                break
        self.ready_line = line.decode().strip()
        if not _READY.match(self.ready_line):
            self.kill()
            raise AssertionError(f"the broker did not start: {line!r}\n{self.log_tail()}")
        return self

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_text.splitlines()[-lines:])

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of one of the admin pages."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}{path}", timeout=10
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """The sum over all series of a family."""
        _, text = self.http("/metrics")
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def wait_ready(self, ready: bool, timeout_s: float = 90.0) -> str:
        """Until `/readyz` says so; its body."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status, body = self.http("/readyz")
            if (status == 200) == ready:
                return body
            time.sleep(0.1)
        raise AssertionError(f"/readyz never said {ready}: {body}\n{self.log_tail()}")

    def wait_end(self, timeout_s: float) -> int:
        """Until the process ends by itself; its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the broker goes on\n{self.log_tail()}") from None

    @property
    def log_text(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the broker did not end\n{self.log_tail()}") from None
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return status


def run_tool(name: str, *args: str, stdin: str | None = None, timeout_s: float = 120.0) -> str:
    """One of Kafka's own tools by its script's name; its standard output. Raises on failure."""
    done = subprocess.run(
        ["bash", str(HERE / "kafka.sh"), name, *args],
        input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False,
        env={**os.environ, "KAFKA_HEAP": "-Xmx256m", "KAFKA_LOG": "error"},
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(
            f"{name} {args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout


class Minio:
    """A MinIO server on ports of its own, with one bucket."""

    def __init__(self) -> None:
        self.port = free_port()
        while not _PORTS.take(self.port + 1):  # its console's
            self.port = free_port()

    endpoint = property(lambda self: f"http://127.0.0.1:{self.port}")

    @property
    def env(self) -> dict[str, str]:
        """The standard variables that point a client at this server."""
        return {
            "AWS_ACCESS_KEY_ID": "minioadmin",
            "AWS_SECRET_ACCESS_KEY": "minioadmin",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def start(self) -> Minio:
        self._script("start", str(self.port))
        return self

    def stop(self) -> None:
        self._script("stop", str(self.port))

    @property
    def pid(self) -> int:
        return int(self._script("pid", str(self.port)))

    def pause(self) -> None:
        """It accepts connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9; `restart` brings it back with its data."""
        self._script("kill", str(self.port))

    def restart(self) -> None:
        self._script("restart", str(self.port))

    def _script(self, *args: str) -> str:
        return subprocess.run(
            ["bash", str(HERE / "minio.sh"), *args],
            check=True, capture_output=True, text=True, timeout=900,
        ).stdout.strip()  # fmt: skip

    def make_bucket(self, name: str) -> str:
        """A new bucket; the store URI that names it."""
        self.client().create_bucket(Bucket=name)
        return f"s3://{name}/cluster"

    def delete_bucket(self, name: str) -> None:
        """With everything in it."""
        import botocore.exceptions

        client = self.client()
        while True:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
                for one in page.get("Contents", []):
                    client.delete_object(Bucket=name, Key=one["Key"])
            try:
                client.delete_bucket(Bucket=name)
                return
            except botocore.exceptions.ClientError as error:
                # Somebody writes into it all the time.
                if error.response["Error"]["Code"] != "BucketNotEmpty":
                    raise

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="minioadmin",
            aws_secret_access_key="minioadmin",
            region_name="us-east-1",
        )
