"""`headwater start` as operators and their scripts see it: flags, the ready line, exit statuses."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from kafka import KafkaProducer

from broker.cli import exit_status
from broker.cli.start import store_door
from broker.config.load import load
from broker.storage_config import stream_config
from objectstore.settings import StoreSettings

ROOT = Path(__file__).resolve().parents[2]
READY = re.compile(
    r"headwater is ready: kafka (\S+) http (127\.0\.0\.1:\d+) store (\S+) node (\d+)\n"
)


class Broker:
    def __init__(self, directory: Path, *flags: str, files: tuple[int, int] | None = None) -> None:
        """files: soft and hard limit of open files."""
        self.directory = directory
        self.errors = (directory / "errors.txt").open("ab")
        limited = []
        if files is not None:
            words = 'ulimit -Sn "$1"; ulimit -Hn "$2"; shift 2; exec "$@"'
            limited = ["bash", "-c", words, "bash", str(files[0]), str(files[1])]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")}
        self.process = subprocess.Popen(
            [*limited, sys.executable, "-m", "broker.main", "start", *flags],
            cwd=directory,
            env={**environment, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(directory)},
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def ready(self) -> re.Match[str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = READY.fullmatch(line)
        assert found, (line, self.said())
        return found

    def said(self) -> str:
        return (self.directory / "errors.txt").read_text()

    def end(self) -> int:
        """Exit status; waits for it."""
        return self.process.wait(20)


@contextmanager
def start(directory: Path, *flags: str, files: tuple[int, int] | None = None) -> Iterator[Broker]:
    broker = Broker(directory, *flags, files=files)
    try:
        yield broker
    finally:
        broker.process.kill()
        broker.process.wait()
        assert broker.process.stdout is not None
        broker.process.stdout.close()
        broker.errors.close()


FREE = ("--listener", "127.0.0.1:0", "--http", "127.0.0.1:0")


def status_of(url: str) -> int:
    try:
        with urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_defaults_make_a_store_below_the_current_directory(tmp_path: Path) -> None:
    with start(tmp_path, *FREE) as broker:
        ready = broker.ready()
        assert ready[3] == f"file://{tmp_path}/headwater-data"
        assert ready[4] == "1"
        assert (tmp_path / "headwater-data" / "meta").is_dir()
        for path in ("healthz", "readyz", "metrics"):
            assert status_of(f"http://{ready[2]}/{path}") == 200
        assert status_of(f"http://{ready[2]}/") == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, *FREE, "--store", "memory:") as broker:
        broker.ready()
        broker.process.send_signal(number)
        assert broker.end() == exit_status.OK


def test_a_busy_port_stops_the_start_and_names_the_flag(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        for flags, flag in (
            (("--listener", busy, "--http", "127.0.0.1:0"), "--listener"),
            (("--listener", "127.0.0.1:0", "--http", busy), "--http"),
        ):
            with start(tmp_path, "--store", "memory:", *flags) as broker:
                assert broker.end() == exit_status.USAGE
                last = broker.said().splitlines()[-1]
                assert busy in last and flag in last


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--set", "nosuch.key=1"), "nosuch.key"),
        (("--set", "num.partitions=0"), "num.partitions"),
        (("--store", "ftp://x"), "ftp://x"),
        (("--listener", "0.0.0.0:9092"), "--listener 0.0.0.0:9092@"),
        (("--config", "missing.toml"), "missing.toml"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    with start(tmp_path, *flags) as broker:
        assert broker.end() == exit_status.USAGE
        (line,) = broker.said().splitlines()
        assert words in line
    assert list(tmp_path.iterdir()) == [tmp_path / "errors.txt"]


def test_a_second_process_of_a_node_is_refused_and_take_over_ends_the_first_with_its_own_status(
    tmp_path: Path,
) -> None:
    store = ("--store", f"file://{tmp_path}/data")
    first_home, second_home = tmp_path / "first", tmp_path / "second"
    first_home.mkdir()
    second_home.mkdir()
    with start(first_home, *FREE, *store) as first:
        address = first.ready()[1]
        with start(second_home, *FREE, *store, "--node-id", "1") as second:
            assert second.end() == exit_status.FAILED
            assert f"node 1 of this store is running and answers at {address}" in second.said()
        assert first.process.poll() is None
        with start(second_home, *FREE, *store, "--node-id", "1", "--take-over") as second:
            new_address = second.ready()[1]
            assert first.end() == exit_status.REPLACED
            assert f"node 1 at {new_address} has taken this broker's place" in first.said()


def test_after_a_kill_the_same_node_id_is_ready_again_at_once(tmp_path: Path) -> None:
    with start(tmp_path, *FREE) as broker:
        broker.ready()
        broker.process.kill()
        broker.end()
    with start(tmp_path, *FREE) as broker:
        assert broker.ready()[4] == "1"


@pytest.mark.parametrize(
    ("uri", "endpoint", "door", "puts_per_s"),
    [
        ("s3://bucket/x", None, "s3 obstore aws", 5.0),
        ("s3://bucket/x", "http://127.0.0.1:9000", "s3 obstore http://127.0.0.1:9000", None),
        ("file:///x", None, "file", None),
        ("memory:", None, "memory", None),
    ],
)
def test_small_log_objects_have_a_budget_where_requests_cost_money(
    uri: str,
    endpoint: str | None,
    door: str,
    puts_per_s: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    found, billed = asyncio.run(store_door(uri, StoreSettings(s3_endpoint=endpoint)))
    assert found == door
    config = stream_config(load().config, billed=billed)
    assert config.wal.put_budget_per_s == puts_per_s
    told = stream_config(load(sets=["wal.put.budget.per.second=2"]).config, billed=billed)
    assert told.wal.put_budget_per_s == 2


def test_at_the_limit_of_files_clients_are_refused_and_the_store_and_health_go_on(
    tmp_path: Path,
) -> None:
    flags = (*FREE, "--set", "storage.connections=50")
    with start(tmp_path, *flags, files=(100, 400)) as broker, ExitStack() as opened:
        host, port = (ready := broker.ready())[1].split(":")

        def connect() -> socket.socket:
            client = socket.create_connection((host, int(port)), timeout=10)
            return opened.enter_context(client)

        kept = [connect() for _ in range(400 - 256 - 50)]
        refused = [connect() for _ in range(30)]
        assert all(client.recv(1) == b"" for client in refused)
        for client in kept:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
        # The health address, and a write: both need files of their own.
        assert status_of(f"http://{ready[2]}/readyz") == 200
        # A client speaks over two connections.
        for _ in range(4):
            kept.pop().close()
        producer = KafkaProducer(bootstrap_servers=f"{host}:{port}")
        assert producer.send("t", b"v").get(10).offset == 0
        producer.close()
        assert "Too many open files" not in broker.said()


def test_every_setting_is_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker.main", "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for key in ("num.partitions", "auto.create.topics.enable", "s3.driver", "log.cache.bytes"):
        assert key in done.stdout
