"""Who keeps the workers: what it does about each way in which one ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.cli import exit_status
from broker.cli.workers import Supervisor

# Stands for a broker. It notes each of its starts; the first `failures` of them end with `status`
# once it was told so by a file, all others wait for SIGTERM, or for the end of stdin.
WORKER = """
import os, pathlib, select, signal, sys, time
directory, number, failures, status, ready = sys.argv[1:6]
starts = pathlib.Path(directory, "starts" + number)
node = sys.argv[6]
with starts.open("a") as file:
    file.write(node + " ")
count = len(starts.read_text().split())
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if ready == "yes":
    port, node_id = 9092 + int(number), 7 + int(number)
    print(f"headwater is ready: kafka h:{port} http h:1 store s node {node_id}", flush=True)
if count <= int(failures):
    go = pathlib.Path(directory, "go")
    while ready == "yes" and not go.exists():
        time.sleep(0.01)
    if int(status) < 0:
        os.kill(os.getpid(), -int(status))
    os._exit(int(status))
os.read(0, 1)
pathlib.Path(directory, "eof" + number).touch()
"""


class Kept:
    def __init__(
        self,
        directory: Path,
        *,
        count: int = 2,
        failures: int = 0,
        status: int = 1,
        ready: str = "yes",
    ) -> None:
        """failures, status, ready: of the second worker (of the first, where there is one)."""
        self.directory = directory
        bad = count - 1

        def command(number: int, node_id: int | None) -> list[str]:
            return [
                sys.executable, "-c", WORKER, str(directory), str(number),
                str(failures if number == bad else 0), str(status),
                ready if number == bad else "yes", str(-1 if node_id is None else node_id),
            ]  # fmt: skip

        self.supervisor = Supervisor(count, command, lambda address: f"paste {address}")

    def starts(self, number: int) -> list[int]:
        """The node ids that a worker was started with, -1 for none."""
        path = self.directory / f"starts{number}"
        return [int(one) for one in path.read_text().split()] if path.exists() else []

    async def until(self, condition: Callable[[], bool]) -> None:
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)

    def run(self, then: Callable[[], bool]) -> int:
        """Stopped, as by a signal, when `then` holds; the exit status."""

        async def run() -> int:
            running = asyncio.create_task(self.supervisor.run())
            asked = asyncio.create_task(self.until(then))
            await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if not running.done():
                self.supervisor._signalled()
            return await running

        return asyncio.run(run())


def test_all_are_ready_and_all_stop(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = Kept(tmp_path, count=3)
    told: list[str] = []

    def all_ready() -> bool:
        told.append(capfd.readouterr().out)
        return "paste h:9092" in "".join(told)

    assert kept.run(all_ready) == exit_status.OK
    said = "".join(told)
    assert said.count("headwater is ready") == 3, "each ready line goes on"
    assert said.index("3 workers are ready") < said.index("paste")
    assert [kept.starts(number) for number in range(3)] == [[-1]] * 3


def test_one_that_dies_is_started_anew_as_the_node_that_it_was(tmp_path: Path) -> None:
    kept = Kept(tmp_path, failures=2, status=-9)
    (tmp_path / "go").touch()
    assert kept.run(lambda: len(kept.starts(1)) == 3) == exit_status.OK
    assert kept.starts(1) == [-1, 8, 8]
    assert kept.starts(0) == [-1], "the others go on"


def test_one_that_was_replaced_stays_away(tmp_path: Path) -> None:
    kept = Kept(tmp_path, failures=9, status=exit_status.REPLACED)
    (tmp_path / "go").touch()
    assert kept.run(lambda: kept.supervisor._replaced) == exit_status.REPLACED
    assert kept.starts(1) == [-1]


@pytest.mark.parametrize("status", [exit_status.USAGE, exit_status.FAILED])
@pytest.mark.parametrize("count", [1, 2])
def test_one_that_cannot_start_at_all_ends_the_whole_start(
    status: int, count: int, tmp_path: Path
) -> None:
    kept = Kept(tmp_path, count=count, failures=9, status=status, ready="no")
    assert kept.run(lambda: False) == status
    assert kept.starts(count - 1) == [-1]


def test_workers_end_when_nobody_keeps_them_any_more(tmp_path: Path) -> None:
    """As `kill -9` of the supervisor: the other end of their stdin is gone."""

    async def run() -> None:
        kept = Kept(tmp_path)
        running = asyncio.create_task(kept.supervisor.run())
        await kept.until(lambda: all(one.was_ready for one in kept.supervisor._workers))
        for worker in kept.supervisor._workers:
            assert worker.process is not None and worker.process.stdin is not None
            worker.process.stdin.close()
        await kept.until(lambda: all((tmp_path / f"eof{n}").exists() for n in (0, 1)))
        assert await running == exit_status.OK, "who ended in good order is not started anew"

    asyncio.run(run())
