"""How a broker starts, refuses to start, is replaced, stops, and comes back elsewhere."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conftest import StartBroker
from .load import NumberedLoad, create_topic, fresh
from .processes import HEADWATER, BrokerProcess, Minio, free_port

pytestmark = [pytest.mark.peer, pytest.mark.timeout(120)]


def start_refused(
    directory: Path, *args: str, env: dict[str, str] | None = None, timeout_s: float = 30.0
) -> tuple[int, str]:
    """Exit status and the one line that it said."""
    done = subprocess.run(
        [
            str(HEADWATER), "start", "--listener", f"127.0.0.1:{free_port()}",
            "--http", f"127.0.0.1:{free_port()}", "--cache-dir", str(directory / "cache"), *args,
        ],
        capture_output=True, text=True, timeout=timeout_s, cwd=directory, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert not done.stdout, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("headwater: ")
    return done.returncode, done.stderr


# Starts that are refused


def test_a_missing_bucket_stops_the_start_and_create_bucket_makes_it(
    minio: Minio, tmp_path: Path
) -> None:
    uri = f"s3://{fresh('missing')}/cluster"
    status, line = start_refused(tmp_path, "--store", uri, env=minio.env)
    assert status == 1
    assert "there is no bucket" in line
    assert "create it" in line
    broker = BrokerProcess(uri, tmp_path, env=minio.env)
    try:
        broker.start(extra=["--create-bucket"])
        assert broker.stop() == 0
    finally:
        broker.kill()


@pytest.mark.parametrize("driver", ["obstore", "aiobotocore"])
def test_wrong_credentials_stop_the_start_and_say_which(
    minio: Minio, tmp_path: Path, driver: str
) -> None:
    uri = minio.make_bucket(fresh("denied"))
    args = ("--store", uri, "--set", f"s3.driver={driver}")
    status, line = start_refused(
        tmp_path, *args, env={**minio.env, "AWS_SECRET_ACCESS_KEY": "wrong"}
    )
    assert (status, "check AWS_SECRET_ACCESS_KEY" in line) == (1, True), line
    status, line = start_refused(tmp_path, *args, env={**minio.env, "AWS_ACCESS_KEY_ID": "nobody"})
    assert (status, "check AWS_ACCESS_KEY_ID" in line) == (1, True), line


class ForgetfulS3(BaseHTTPRequestHandler):
    """A store that takes every PUT for good, whatever its `If-None-Match` says."""

    objects: dict[str, bytes]
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        self.server.objects[self.path.split("?")[0]] = self.rfile.read(size)  # type: ignore[attr-defined]
        self._answer(200)

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            self._answer(
                200,
                b'<?xml version="1.0"?><ListBucketResult><Name>b</Name><Prefix></Prefix>'
                b"<KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"
                b"<IsTruncated>false</IsTruncated></ListBucketResult>",
                Content_Type="application/xml",
            )
            return
        found = self.server.objects.get(self.path.split("?")[0])  # type: ignore[attr-defined]
        if found is None:
            self._answer(
                404,
                b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>",
                Content_Type="application/xml",
            )
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, found)
            return
        first, last = int(asked[1]), min(int(asked[2]), len(found) - 1)
        self._answer(
            206, found[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(found)}"
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer(200, b"<DeleteResult></DeleteResult>", Content_Type="application/xml")

    def do_DELETE(self) -> None:
        self._answer(204)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def forgetful_store() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ForgetfulS3)
    server.objects = {}  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_store_that_ignores_the_condition_is_refused(
    forgetful_store: str, tmp_path: Path
) -> None:
    env = {
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_ENDPOINT_URL": forgetful_store,
    }
    status, line = start_refused(tmp_path, "--store", "s3://bucket/x", env=env)
    assert status == 1
    assert "If-None-Match" in line


def test_busy_ports_name_the_flag(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, line = start_refused(
            tmp_path, "--store", f"file://{tmp_path}/data", "--http", f"127.0.0.1:{port}"
        )
        assert (status, "--http" in line, str(port) in line) == (2, True, True), line
        done = subprocess.run(
            [
                str(HEADWATER), "start", "--store", f"file://{tmp_path}/data",
                "--listener", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{free_port()}",
            ],
            capture_output=True, text=True, timeout=30, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "--listener" in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--set", "num.partitionz=3"), "num.partitionz"),
        (("--set", "num.partitions=many"), "num.partitions"),
        (("--node-id", "minus one"), "node.id"),
        (("--store", "ftp://x"), "ftp://x"),
    ],
)
def test_an_unknown_key_or_an_impossible_value_is_named(
    tmp_path: Path, args: Sequence[str], said: str
) -> None:
    status, line = start_refused(tmp_path, *args)
    assert (status, said in line) == (2, True), line


def test_a_wildcard_without_an_advertised_address_gives_the_line_to_type(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(HEADWATER), "start", "--listener", "0.0.0.0:19092"],
        capture_output=True, text=True, timeout=30, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--advertised" in done.stderr or "@" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_start_waits_for_an_endpoint_that_is_down_and_says_so_once(
    minio: Minio, tmp_path: Path
) -> None:
    env = {**minio.env, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    broker = BrokerProcess("s3://bucket/x", tmp_path, env=env)
    with broker.log_path.open("ab") as log:
        process = subprocess.Popen(
            broker.command(), stdout=subprocess.PIPE, stderr=log, env=broker.env, cwd=tmp_path
        )
    try:
        wait_until(lambda: "the store does not answer" in broker.log_text)
        time.sleep(3.0)
        assert process.poll() is None
        assert broker.http("/readyz")[0] == 503
        assert broker.log_text.count("\n") == 1, broker.log_text
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "Traceback" not in broker.log_text
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_until(true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


# Node ids


def test_a_node_id_that_answers_is_refused_and_taken_over_only_when_asked(tmp_path: Path) -> None:
    first_dir, second_dir = tmp_path / "first", tmp_path / "second"
    first_dir.mkdir()
    second_dir.mkdir()
    store = f"file://{tmp_path}/data"
    first = BrokerProcess(store, first_dir).start()
    second = BrokerProcess(store, second_dir)
    load = NumberedLoad(f"{first.bootstrap},{second.bootstrap}", fresh("numbers"))
    try:
        create_topic(first.bootstrap, load.topic)
        load.start()
        load.wait_for_more(50)
        status, line = start_refused(tmp_path, "--store", store, "--node-id", "1")
        assert status == 1
        assert first.bootstrap in line
        assert "--take-over" in line
        load.wait_for_more(20)
        second.start(extra=["--take-over"])
        assert second.ready_line.endswith("node 1")
        assert first.wait_end(20) == 75
        last = first.log_text.rstrip().splitlines()[-1]
        assert second.bootstrap in last, last
        assert "Traceback" not in first.log_text
        load.wait_for_more(20)
        load.finish()
        load.assert_kept(second.bootstrap)
    finally:
        load.abandon()
        first.kill()
        second.kill()


def test_without_a_node_id_each_broker_gets_one_and_a_dead_one_comes_back(tmp_path: Path) -> None:
    broker = BrokerProcess(f"file://{tmp_path}/data", tmp_path, node_id=None).start()
    try:
        assert broker.ready_line.endswith("node 1")
        broker.kill()
        assert broker.start().ready_line.endswith("node 1")
        # Paused, so it does not answer: the other takes its id, and it finds out when it wakes.
        assert broker.process is not None
        other_dir = tmp_path / "other"
        other_dir.mkdir()
        other = BrokerProcess(broker.store, other_dir, node_id=None)
        broker.process.send_signal(signal.SIGSTOP)
        try:
            assert other.start().ready_line.endswith("node 1")
            broker.process.send_signal(signal.SIGCONT)
            refused = NumberedLoad(broker.bootstrap, fresh("late"), **{"message.timeout.ms": 4000})
            refused.start()
            assert broker.wait_end(20) == 75
            refused.abandon()
        finally:
            broker.process.send_signal(signal.SIGCONT)
            other.kill()
    finally:
        broker.kill()


def test_each_of_several_listeners_without_names_tells_its_clients_of_itself(
    tmp_path: Path,
) -> None:
    from confluent_kafka.admin import AdminClient

    broker = BrokerProcess(f"file://{tmp_path}/data", tmp_path)
    other = f"127.0.0.1:{free_port()}"
    try:
        broker.start(extra=["--listener", other])
        assert f"kafka {broker.bootstrap},{other} http" in broker.ready_line
        for address in (broker.bootstrap, other):
            found = AdminClient({"bootstrap.servers": address}).list_topics(timeout=20).brokers
            assert [f"{one.host}:{one.port}" for one in found.values()] == [address]
    finally:
        broker.kill()


# Ends


def test_a_stop_under_load_keeps_everything_and_leaves_nothing_to_recover(
    start_broker: StartBroker,
) -> None:
    broker = start_broker()
    load = NumberedLoad(broker.bootstrap, fresh("numbers"), pause_s=0.0005)
    create_topic(broker.bootstrap, load.topic)
    load.start()
    for _ in range(2):
        load.wait_for_more(300)
        assert broker.stop(timeout_s=9.5) == 0
        broker.start()
    load.wait_for_more(20)
    load.finish()
    load.assert_kept(broker.bootstrap)
    assert "WARNING" not in broker.log_text, broker.log_text


def test_a_second_signal_ends_at_once(minio: Minio, tmp_path: Path) -> None:
    from .store_proxy import Fault, StoreProxy

    proxy = StoreProxy(minio.port)
    env = {**minio.env, "AWS_ENDPOINT_URL": proxy.endpoint}
    broker = BrokerProcess(minio.make_bucket(fresh("twice")), tmp_path, env=env).start()
    load = NumberedLoad(broker.bootstrap, fresh("numbers"))
    try:
        create_topic(broker.bootstrap, load.topic)
        load.start()
        load.wait_for_more(20)
        # It cannot end by itself before the time for it is over.
        proxy.fault = Fault("hang")
        time.sleep(0.5)
        assert broker.process is not None
        broker.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert broker.process.poll() is None
        broker.process.send_signal(signal.SIGTERM)
        assert broker.wait_end(5) == 130
    finally:
        load.abandon()
        broker.kill()
        proxy.close()


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_merging_process_ends_with_its_broker(start_broker: StartBroker, end: str) -> None:
    # Every eighth log object an upload, and every eighth upload a merge.
    broker = start_broker(settings={"upload.trigger.objects": "8"})
    assert broker.process is not None
    pid = broker.process.pid
    load = NumberedLoad(broker.bootstrap, fresh("numbers"), pause_s=0.002)
    create_topic(broker.bootstrap, load.topic)
    load.start()
    try:
        wait_until(lambda: bool(children(pid)), 40)
        merging = children(pid)
        if end == "kill":
            broker.kill()
        else:
            assert broker.stop(timeout_s=9.5) == 0
        wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in merging))
    finally:
        load.abandon()
