"""`headwater start --workers N`: several brokers of one machine, one process for each core.

a worker dies                    it is started anew, each time a little later
it ends before it was ever ready the whole start has failed, with its exit status
it was replaced (75), or stopped it is left alone: whoever did that meant it
a signal to this process         all stop in good order; it ends with 0
a second signal                  all end at once; 130
this process is gone, however    the workers see the end of their stdin, and stop in good order
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from broker.config import BrokerConfig, ConfigError
from objectstore.open import parse_uri

from . import exit_status
from .complaint import complain
from .derive import clashes, worker_flags

log = logging.getLogger("headwater.workers")

# After a worker's end, doubled each time; one that was ready for so long begins anew.
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
HEALTHY_S = 60.0
# A worker ends by itself in less.
STOP_WITHIN_S = 20.0

_READY = re.compile(rb"headwater is ready: kafka (\S+) .* node (\d+)$")

# Flags of a worker, given its number and the node id that it had: a command, whole.
CommandOf = Callable[[int, int | None], Sequence[str]]


def run(parsed: argparse.Namespace, config: BrokerConfig, paste: Callable[[str], str]) -> int:
    """The exit status. paste: what to try, given a broker's address."""
    count = parsed.workers
    if parse_uri(config.text("store")).scheme == "memory":
        return complain("start", "workers share nothing in memory: name a store", exit_status.USAGE)
    try:
        listeners = []
        for number in range(count):
            flags = worker_flags(parsed, config, number)
            listeners.append([value for flag, value in pairwise(flags) if flag == "--listener"])
        if shared := clashes(listeners):
            raise ConfigError(
                f"two workers would listen on {shared[0]}: leave {count} ports between listeners"
            )
    except ConfigError as error:
        return complain("start", str(error), exit_status.USAGE)

    def command(number: int, node_id: int | None) -> Sequence[str]:
        flags = worker_flags(parsed, config, number, node_id)
        return [sys.executable, "-m", "broker.main", "start", "--worker", *flags]

    return asyncio.run(Supervisor(count, command, paste).run())


@dataclass(slots=True)
class _Worker:
    number: int
    process: asyncio.subprocess.Process | None = None
    node_id: int | None = None
    address: str = ""
    ready_at: float | None = None
    was_ready: bool = False


class Supervisor:
    """command: of a worker, by its number and the node id that it had before (None: none yet)."""

    def __init__(self, count: int, command: CommandOf, paste: Callable[[str], str]) -> None:
        self._command = command
        self._paste = paste
        self._workers = [_Worker(number) for number in range(count)]
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._failed: int | None = None
        self._replaced = False

    async def run(self) -> int:
        """Until a signal, or until no worker is left. The exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        keeping = [asyncio.create_task(self._keep(self._workers[0]), name="worker 1")]
        try:
            # The first one makes the cluster, where there is none, before the others look for it.
            await self._until(lambda: self._workers[0].was_ready or keeping[0].done())
            if self._workers[0].was_ready and not self._stopping.is_set():
                keeping += [
                    asyncio.create_task(self._keep(one), name=f"worker {one.number + 1}")
                    for one in self._workers[1:]
                ]
                keeping.append(asyncio.create_task(self._tell_ready(), name="ready"))
            await asyncio.gather(*keeping)
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
        if self._failed is not None:
            return self._failed
        return exit_status.REPLACED if self._replaced else exit_status.OK

    def _signalled(self) -> None:
        if self._stopping.is_set():
            for worker in self._workers:
                self._send(worker, signal.SIGKILL)
            os._exit(exit_status.ENDED_AT_ONCE)
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._changed.set()
        for worker in self._workers:
            self._send(worker, signal.SIGTERM)
        asyncio.get_running_loop().call_later(STOP_WITHIN_S, self._end_at_once)

    def _end_at_once(self) -> None:
        for worker in self._workers:
            self._send(worker, signal.SIGKILL)

    @staticmethod
    def _send(worker: _Worker, number: signal.Signals) -> None:
        process = worker.process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _tell_ready(self) -> None:
        await self._until(
            lambda: self._stopping.is_set() or all(one.was_ready for one in self._workers)
        )
        if not self._stopping.is_set():
            print(f"{len(self._workers)} workers are ready", flush=True)
            print(self._paste(self._workers[0].address), flush=True)

    # One worker.

    async def _keep(self, worker: _Worker) -> None:
        try:
            await self._keep_running(worker)
        finally:
            self._changed.set()

    async def _keep_running(self, worker: _Worker) -> None:
        loop = asyncio.get_running_loop()
        wait_s = FIRST_WAIT_S
        while not self._stopping.is_set():
            status = await self._run_once(worker)
            if self._stopping.is_set():
                return
            named = f"worker {worker.number + 1}"
            if worker.node_id is not None:
                named += f" (node {worker.node_id})"
            if not worker.was_ready:
                log.error("%s ended with status %d before it was ready", named, status)
                self._failed = status if status > 0 else exit_status.FAILED
                self._stop()
                return
            if status == exit_status.REPLACED:
                self._replaced = True
                log.error("%s was replaced by another process, and is not started anew", named)
                return
            if status == exit_status.OK:
                log.warning("%s was stopped, and is not started anew", named)
                return
            if worker.ready_at is not None and loop.time() - worker.ready_at >= HEALTHY_S:
                wait_s = FIRST_WAIT_S
            log.error("%s died (%s); it is started anew in %g s", named, _words(status), wait_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _run_once(self, worker: _Worker) -> int:
        """The exit status; of a signal, negative."""
        # A session of its own: ctrl-c in a terminal is for this process, which asks the workers.
        process = await asyncio.create_subprocess_exec(
            *self._command(worker.number, worker.node_id),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        worker.process, worker.ready_at = process, None
        if self._stopping.is_set():
            self._send(worker, signal.SIGTERM)  # the signal came while it was made
        try:
            assert process.stdout is not None
            while line := await process.stdout.readline():
                self._read(worker, line.rstrip(b"\n"))
            return await process.wait()
        except asyncio.CancelledError:
            self._send(worker, signal.SIGKILL)
            await process.wait()
            raise

    def _read(self, worker: _Worker, line: bytes) -> None:
        print(line.decode("utf-8", "replace"), flush=True)
        ready = _READY.match(line)
        if ready is not None:
            worker.address = ready[1].decode().partition(",")[0]
            worker.node_id = int(ready[2])
            worker.ready_at = asyncio.get_running_loop().time()
            worker.was_ready = True
            self._changed.set()


def _words(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"status {status}"
