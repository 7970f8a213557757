"""What a simulated machine has besides its network: a directory on disk, and child processes.

    Directory        the disk cache's files, which outlive a process; now and then a block comes
                     back damaged, or the disk is full
    ChildProcesses   stands in for `asyncio.create_subprocess_exec`: the worker that merges runs
                     under the same loop, as a node of its own, with pipes to its parent

A child dies with a crash of its own, ends when its input does (as a crash of its parent closes
it), and may be paused.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from s3stream.disk_cache import DiskCacheCounters

from .loop import NODE, SimulatedLoop, start_on

PIPE_S = 0.0002


class Directory:
    """One machine's. used_by: the node that holds the lock."""

    def __init__(self, loop: SimulatedLoop, rng: Random) -> None:
        self._loop = loop
        self._rng = rng
        self._values: dict[tuple[str, bytes, int], bytes] = {}
        self._used_by = ""

    def open(self, place: Path, max_bytes: int, cluster: bytes) -> Files:
        """Stands in for `disk_cache._Files.open`."""
        node = NODE.get()
        if self._used_by not in ("", node) and not self._loop.is_crashed(self._used_by):
            raise OSError("another process uses this directory")
        if self._rng.random() < 0.1:
            raise OSError(13, "Permission denied")
        self._used_by = node
        return Files(self, place, self._rng)

    def release(self) -> None:
        self._used_by = ""


class Files:
    """Stands in for `disk_cache._Files`."""

    def __init__(self, directory: Directory, place: Path, rng: Random) -> None:
        self.place = place
        self.counters = DiskCacheCounters()
        self._directory = directory
        self._rng = rng

    def name(self, key: str, write_id: bytes, block: int) -> bytes:
        return b"%s %s %d" % (key.encode(), write_id.hex().encode(), block)

    def get(self, write_id: bytes, wanted: list[tuple[int, bytes]]) -> dict[int, bytes]:
        if self._rng.random() < 0.01:
            raise OSError(5, "Input/output error")
        found: dict[int, bytes] = {}
        for block, name in wanted:
            data = self._directory._values.get(("block", name, block))
            if data is None:
                continue
            if self._rng.random() < 0.05:
                data = data[:-1] + bytes((data[-1] ^ 1,))
            found[block] = data
        return found

    def write(
        self, batch: list[tuple[bytes, bytes, int, memoryview, int]], forgotten: list[bytes]
    ) -> None:
        if self._rng.random() < 0.02:
            raise OSError(28, "No space left on device")
        values = self._directory._values
        for name in forgotten:
            for place in [place for place in values if place[1] == name]:
                del values[place]
        for name, _, block, data, _ in batch:
            values["block", name, block] = bytes(data)

    def close(self) -> None:
        self._directory.release()


class Pipe:
    """One direction. Bytes come to the reader in its own node's steps, in order, in pieces."""

    def __init__(self, loop: SimulatedLoop, reader_node: str) -> None:
        self._loop = loop
        self._context = contextvars.Context()
        self._context.run(NODE.set, reader_node)
        self._protocol: Any = None
        self._waiting: list[bytes | None] = []
        self._ended = False
        self._next_at = 0.0

    def connect(self, protocol: Any) -> None:
        self._protocol = protocol
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self._deliver(data)

    def write(self, data: bytes) -> None:
        if not self._ended:
            start = 0
            for end in (3, 60, *range(500, len(data) + 500, 500)):
                if start < len(data):
                    self._later(data[start:end])
                start = end

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """The reader meets the end; also what the kernel does where the writer is gone."""
        if not self._ended:
            self._ended = True
            self._later(None)

    def _later(self, data: bytes | None) -> None:
        self._next_at = max(self._next_at, self._loop.time()) + PIPE_S
        self._loop.call_at(self._next_at, self._deliver, data, context=self._context)

    def _deliver(self, data: bytes | None) -> None:
        if self._protocol is None:
            self._waiting.append(data)
        elif data is None:
            self._protocol.eof_received()
        else:
            self._protocol.data_received(data)


class _Writer:
    """The parent's end of the child's input."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def write(self, data: bytes) -> None:
        self._child.input.write(data)

    async def drain(self) -> None:
        await asyncio.sleep(PIPE_S)
        if self._child.gone:
            raise BrokenPipeError(32, "Broken pipe")

    def close(self) -> None:
        self._child.input.close()


class Child:
    """A child process, as its parent and the simulation see it."""

    def __init__(self, loop: SimulatedLoop, name: str, parent: str) -> None:
        self.name = name
        self.parent = parent
        self.pid = 1000 + int(name.partition(".c")[2])
        self.returncode: int | None = None
        self.gone = False
        self.input = Pipe(loop, name)
        self.output = Pipe(loop, parent)
        self.stdin = _Writer(self)
        self.stdout = asyncio.StreamReader(loop=loop)
        self.output.connect(asyncio.StreamReaderProtocol(self.stdout, loop=loop))
        self.task: asyncio.Task[None]
        self._loop = loop
        self._left = asyncio.Event()
        self._context = contextvars.Context()
        self._context.run(NODE.set, parent)

    async def wait(self) -> int:
        await self._left.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """By its parent or the simulation."""
        if self.gone:
            raise ProcessLookupError(3, "No such process")
        self._loop.crash(self.name)
        self.end(-9)

    def end(self, returncode: int) -> None:
        if self.gone:
            return
        self.gone = True
        self.output.close()
        self._loop.call_later(PIPE_S, self._reap, returncode, context=self._context)

    def _reap(self, returncode: int) -> None:
        self.returncode = returncode
        self._left.set()


class ChildProcesses:
    """serve: the child's main, given its input and output."""

    def __init__(
        self,
        loop: SimulatedLoop,
        rng: Random,
        serve: Callable[[Pipe, Pipe], Coroutine[Any, Any, None]],
    ) -> None:
        self._loop = loop
        self._rng = rng
        self._serve = serve
        self.children: dict[str, Child] = {}
        self.bugs: list[BaseException] = []

    async def create(self, *_command: Any, **_options: Any) -> Child:
        """Stands in for `asyncio.create_subprocess_exec`. Raises OSError."""
        await asyncio.sleep(self._rng.uniform(0.001, 0.2))
        if self._rng.random() < 0.03:
            raise OSError(11, "Resource temporarily unavailable")
        parent = NODE.get()
        child = Child(self._loop, f"{parent}.c{len(self.children)}", parent)
        self.children[child.name] = child
        child.task = start_on(child.name, self._serve(child.input, child.output))
        child.task.add_done_callback(
            lambda task: self._ended(child, task), context=contextvars.Context()
        )
        return child

    def _ended(self, child: Child, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.bugs.append(error)
        child.end(0 if error is None else 1)

    def parent_died(self, node: str) -> None:
        for child in self.children.values():
            if child.parent == node:
                child.input.close()
