"""How long is each partition silent? `python -m bench.cluster_probe JSON`, until SIGTERM.

One connection and one request under way for each partition that is watched: a batch of one record,
again and again, to whoever leads it; who is told of another leader, or of nobody, asks anew. It
prints a line when it is at work, and at the end the times of all acknowledgements by partition
(seconds of the machine's monotonic clock).
"""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

from .load import ROOT
from .wire import batch_of

_PRODUCE, _METADATA = 0, 3
_ASK_TIMEOUT_S = 2.0
_AGAIN_S = 0.02


class Probe:
    """The process that asks; `acknowledged` ends it."""

    def __init__(
        self, bootstraps: list[str], topic: str, partitions: list[int], pause_s: float = 0.05
    ) -> None:
        options = {
            "bootstraps": bootstraps, "topic": topic, "partitions": partitions, "pause_s": pause_s
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.cluster_probe", json.dumps(options)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the probe did not begin")

    def acknowledged(self) -> dict[int, list[float]]:
        """Ends it; times by partition."""
        self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate(timeout=60)
        found: dict[str, list[float]] = json.loads(out.splitlines()[-1])
        return {int(partition): times for partition, times in found.items()}


def silence_s(times: list[float], began: float, ended: float) -> float:
    """The longest time between two acknowledgements, of those that reach into `began`-`ended`."""
    points = [t for t in times if began <= t <= ended]
    before = [t for t in times if t < began][-1:] or [began]
    after = [t for t in times if t > ended][:1] or [ended]
    points = [*before, *points, *after]
    return max(b - a for a, b in pairwise(points))


class _Watch:
    def __init__(self, options: dict[str, Any]) -> None:
        self._bootstraps: list[str] = options["bootstraps"]
        self._topic: str = options["topic"]
        self._partitions: list[int] = options["partitions"]
        self._pause_s: float = options["pause_s"]
        self._leaders: dict[int, tuple[str, int]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._unheard = set(self._partitions)
        self._all_heard = asyncio.Event()
        self.times: dict[int, list[float]] = {index: [] for index in self._partitions}

    async def run(self) -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        tasks = [asyncio.create_task(self._watch(index)) for index in self._partitions]
        await self._all_heard.wait()
        print("at work", flush=True)
        await stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _watch(self, index: int) -> None:
        frame = _produce(self._topic, index)
        leader: tuple[str, int] | None = None
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while True:
            try:
                if link is None or self._leaders.get(index) != leader:
                    if link is not None:
                        link[1].close()
                        link = None
                    leader = self._leaders[index]
                    async with asyncio.timeout(_ASK_TIMEOUT_S):
                        link = await asyncio.open_connection(*leader)
                async with asyncio.timeout(_ASK_TIMEOUT_S):
                    answer = await _ask(*link, frame)
                position = 8 + 2 + len(self._topic.encode()) + 4 + 4
                (error,) = struct.unpack_from(">h", answer, position)
            except (OSError, EOFError, KeyError, TimeoutError):
                if link is not None:
                    link[1].close()
                    link = None
                error = -1
            if error:
                await self._learn()
                await asyncio.sleep(_AGAIN_S)
            else:
                self.times[index].append(round(time.monotonic(), 4))
                self._unheard.discard(index)
                if not self._unheard:
                    self._all_heard.set()
                await asyncio.sleep(self._pause_s)

    async def _learn(self) -> None:
        """Leaders as of now; shared by all who ask at a time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_leaders())
        await asyncio.shield(self._asking)

    async def _ask_leaders(self) -> None:
        for bootstrap in [*self._bootstraps]:
            host, _, port = bootstrap.rpartition(":")
            try:
                async with asyncio.timeout(1.0):
                    reader, writer = await asyncio.open_connection(host, int(port))
                    try:
                        answer = await _ask(reader, writer, _metadata(self._topic))
                    finally:
                        writer.close()
            except (OSError, EOFError, TimeoutError):
                # The next one is asked first from now on.
                self._bootstraps.remove(bootstrap)
                self._bootstraps.append(bootstrap)
                continue
            self._leaders = _leaders(answer)
            return


def _frame(key: int, version: int, body: bytes) -> bytes:
    frame = struct.pack(">hhih", key, version, 1, -1) + body
    return struct.pack(">i", len(frame)) + frame


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _produce(topic: str, index: int) -> bytes:
    """Produce version 3: one record for one partition, acks=all."""
    batch = batch_of(100, 20)
    body = struct.pack(">hhii", -1, -1, 30_000, 1) + _string(topic)
    return _frame(_PRODUCE, 3, body + struct.pack(">iii", 1, index, len(batch)) + batch)


def _metadata(topic: str) -> bytes:
    return _frame(_METADATA, 1, struct.pack(">i", 1) + _string(topic))


def _leaders(answer: bytes) -> dict[int, tuple[str, int]]:
    """Of a Metadata answer, version 1: the address of each partition's leader, where it has one."""
    position = 4

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal position
        values = struct.unpack_from(">" + layout, answer, position)
        position += struct.calcsize(">" + layout)
        return values

    def text() -> str:
        nonlocal position
        (size,) = take("h")
        begin, position = position, position + max(size, 0)
        return answer[begin:position].decode()

    brokers: dict[int, tuple[str, int]] = {}
    for _ in range(take("i")[0]):
        (node_id,) = take("i")
        host = text()
        (port,) = take("i")
        text()
        brokers[node_id] = host, port
    take("i")
    found: dict[int, tuple[str, int]] = {}
    for _ in range(take("i")[0]):
        take("h")
        text()
        take("b")
        for _ in range(take("i")[0]):
            _error, index, leader = take("hii")
            for _ in range(2):
                take("i" * take("i")[0])
            if leader in brokers:
                found[index] = brokers[leader]
    return found


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frame: bytes) -> bytes:
    writer.write(frame)
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def main() -> None:
    watch = _Watch(json.loads(sys.argv[1]))
    asyncio.run(watch.run())
    print(json.dumps(watch.times))


if __name__ == "__main__":
    main()
