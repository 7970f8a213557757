"""What an operator types, against real brokers: every command by its exit status and its words."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .load import create_topic, fresh
from .processes import HEADWATER, BrokerProcess

# Far more than anything here takes: a condition is waited for, never a time.
PATIENCE_S = 90.0
_READY = re.compile(r"headwater is ready: kafka (\S+) http (\S+) store (\S+) node (\d+)")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def command(store: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(HEADWATER), *words, "--store", store],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def view(store: str) -> Any:
    """What `headwater cluster --json` tells; it may be of the bucket alone."""
    done = command(store, "cluster", "--json")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def leads(store: str) -> dict[int, int]:
    return {one["node_id"]: one["leads"] for one in view(store)["brokers"]}


@contextmanager
def brokers(directory: Path, count: int) -> Iterator[list[BrokerProcess]]:
    store = f"file://{directory}/data"
    running = [BrokerProcess(store, directory, node_id=number + 1) for number in range(count)]
    try:
        for broker in running:
            broker.start()
        yield running
    finally:
        for broker in running:
            broker.kill()


def test_a_cluster_is_shown_drained_undrained_and_balanced(tmp_path: Path) -> None:
    with brokers(tmp_path, 2) as running:
        store = running[0].store
        topic = fresh("t")
        create_topic(running[1].bootstrap, topic, 8)
        wait_for(lambda: leads(store) == {1: 4, 2: 4}, "each leads its share")

        shown = command(store, "cluster")
        assert shown.returncode == 0, shown.stderr
        assert "controller node 1" in shown.stdout
        for broker in running:
            assert broker.bootstrap in shown.stdout

        drained = command(store, "drain", "2")
        assert drained.returncode == 0, drained.stderr
        assert "node 2 leads nothing" in drained.stdout
        told = view(store)
        assert told["is_live"] and told["without_leader"] == 0
        assert [(one["state"], one["leads"]) for one in told["brokers"]] == [
            ("live", 8),
            ("draining", 0),
        ]

        nowhere = command(store, "drain", "1")
        assert nowhere.returncode == 1
        assert "no other broker is there" in nowhere.stderr
        assert command(store, "undrain", "1").returncode == 0

        assert command(store, "undrain", "2").returncode == 0
        wait_for(lambda: leads(store) == {1: 4, 2: 4}, "it is given its share again")

        planned = command(store, "balance", "--plan")
        assert planned.returncode == 0, planned.stderr
        assert "nothing to move" in planned.stdout


def test_doctor_asks_every_broker_of_the_store(tmp_path: Path) -> None:
    with brokers(tmp_path, 2) as running:
        store = running[0].store
        sound = command(store, "doctor")
        assert sound.returncode == 0, sound.stdout
        for number, broker in enumerate(running, 1):
            assert f"node {number} at {broker.bootstrap} answers" in sound.stdout
        for broker in running:
            broker.kill()
        silent = command(store, "doctor")
        assert silent.returncode == 0, "the store is sound all the same"
        for number, broker in enumerate(running, 1):
            assert f"node {number} at {broker.bootstrap} does not answer here" in silent.stdout
        assert "no controller answers here" in silent.stdout


def test_without_brokers_the_bucket_is_shown(tmp_path: Path) -> None:
    with brokers(tmp_path, 1) as running:
        store = running[0].store
        running[0].kill()
        shown = command(store, "cluster")
        assert shown.returncode == 1
        assert "no controller answers: this is what the bucket says" in shown.stdout
        refused = command(store, "drain", "1")
        assert refused.returncode == 1
        assert f"node 1 at {running[0].bootstrap} does not answer" in refused.stderr


class Workers:
    """`headwater start --workers 2`, with ports that the system gives."""

    def __init__(self, directory: Path) -> None:
        self.store = f"file://{directory}/data"
        self.log = (directory / "workers.log").open("ab")
        self.process = subprocess.Popen(
            [
                str(HEADWATER), "start", "--store", self.store, "--workers", "2",
                "--listener", "127.0.0.1:0", "--http", "127.0.0.1:0",
                "--cache-dir", str(directory / "cache"),
            ],
            stdout=subprocess.PIPE, stderr=self.log, cwd=directory,
        )  # fmt: skip
        self.pending = b""

    def lines_until(self, last: str) -> list[str]:
        """Lines of stdout up to the first that begins so."""
        assert self.process.stdout is not None
        found: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while not found or not found[-1].startswith(last):
            assert time.monotonic() < deadline, found
            if b"\n" in self.pending:
                line, _, self.pending = self.pending.partition(b"\n")
                found.append(line.decode())
            elif select.select([self.process.stdout], [], [], 0.2)[0]:
                more = os.read(self.process.stdout.fileno(), 4096)
                assert more, (found, self.process.wait())
                self.pending += more
        return found

    def children(self) -> list[int]:
        told = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(one) for one in told.split()]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()


@contextmanager
def two_workers(directory: Path) -> Iterator[Workers]:
    workers = Workers(directory)
    try:
        yield workers
    finally:
        workers.end()


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_worker_that_is_killed_comes_back_as_the_same_node(tmp_path: Path) -> None:
    with two_workers(tmp_path) as workers:
        lines = workers.lines_until("try it: ")
        nodes = [int(ready[4]) for line in lines if (ready := _READY.match(line))]
        assert sorted(nodes) == [1, 2]
        assert "2 workers are ready" in lines
        before = workers.children()
        assert len(before) == 2
        os.kill(before[1], signal.SIGKILL)
        again = workers.lines_until("headwater is ready")[-1]
        ready = _READY.match(again)
        assert ready is not None and int(ready[4]) in nodes
        wait_for(
            lambda: [one["state"] for one in view(workers.store)["brokers"]] == ["live", "live"],
            "both are there again, and nobody else",
        )
        workers.process.send_signal(signal.SIGTERM)
        assert workers.process.wait(PATIENCE_S) == 0
        wait_for(lambda: all(is_gone(pid) for pid in before), "no worker outlives it")


def test_workers_end_with_who_keeps_them(tmp_path: Path) -> None:
    with two_workers(tmp_path) as workers:
        workers.lines_until("try it: ")
        children = workers.children()
        assert len(children) == 2
        workers.process.kill()
        workers.process.wait()
        wait_for(lambda: all(is_gone(pid) for pid in children), "they see its end")
