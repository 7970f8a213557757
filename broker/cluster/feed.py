"""The newest objects of the own term's log, for the brokers that follow it by long poll.

What is not kept any more they read from the bucket, as they do what came before the term.
"""

from __future__ import annotations

import asyncio
from collections import deque

from .messages import LogObject, LogObjects, ReadTheBucket

KEPT_BYTES = 8 << 20
KEPT_OBJECTS = 2000
ANSWER_BYTES = 1 << 20


class LogFeed:
    """Of one term, from its first object on."""

    def __init__(self) -> None:
        self.term = -1  # until it is won
        self._objects: deque[LogObject] = deque()
        self._next_seq = 0
        self._bytes = 0
        self._grew = asyncio.Event()
        self._closed = False

    def add(self, seq: int, records: list[bytes]) -> None:
        """The next durable object of the log."""
        assert seq == self._next_seq, (seq, self._next_seq)
        self._objects.append(LogObject(seq, list(records)))
        self._next_seq = seq + 1
        self._bytes += sum(map(len, records))
        while len(self._objects) > KEPT_OBJECTS or (
            self._bytes > KEPT_BYTES and len(self._objects) > 1
        ):
            self._bytes -= sum(map(len, self._objects.popleft().records))
        self._grew.set()

    def close(self) -> None:
        """The term is over: nobody waits any longer."""
        self._closed = True
        self._grew.set()

    async def after(self, term: int, seq: int, wait_s: float) -> LogObjects | ReadTheBucket:
        """Objects from `seq` on; none after `wait_s`."""
        if term != self.term or seq > self._next_seq or seq < self._next_seq - len(self._objects):
            return ReadTheBucket()
        try:
            async with asyncio.timeout(wait_s):
                while self._next_seq <= seq and not self._closed:
                    self._grew.clear()
                    await self._grew.wait()
        except TimeoutError:
            pass
        objects: list[LogObject] = []
        size_bytes = 0
        for one in self._objects:
            if one.seq >= seq and size_bytes < ANSWER_BYTES:
                objects.append(one)
                size_bytes += sum(map(len, one.records))
        if objects and objects[0].seq != seq:
            return ReadTheBucket()  # they went while we waited
        return LogObjects(objects)
