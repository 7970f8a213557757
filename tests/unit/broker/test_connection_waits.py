"""Answers that wait for storage: in order, together where they can be, never after their time."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import uvloop

from broker.connection import Connection, ConnectionLimits
from broker.memory_pool import MemoryPool
from broker.outcome import Outcome, WhenDone
from wal.durable_future import DurableFuture

from .fake_transport import FakeTransport

Answer = Callable[[memoryview], Outcome]


class Wire(FakeTransport):
    """Counts the calls that wrote something."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.writes += 1
        super().writelines(list_of_data)


class Rig:
    """A connection whose requests are answered by a function of their frame."""

    def __init__(self, answer: Answer) -> None:
        self.wire = Wire()
        self.pool = MemoryPool(64 << 20)
        limits = ConnectionLimits(max_frame_bytes=1 << 20, idle_s=600, max_in_flight=64)
        self._answer = answer
        self.connection = Connection(
            "L", self, self.pool, limits, lambda _: True, lambda _: None, bytearray(8192)
        )
        self.wire.open(self.connection)

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        return self._answer(frame)

    def send(self, *frames: bytes) -> None:
        self.wire.receive(b"".join(struct.pack(">i", len(one)) + one for one in frames))

    async def end(self) -> None:
        self.connection.abort()
        await self.connection.wait_closed()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_requests_that_become_durable_together_are_answered_in_order_by_one_write() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        durable = DurableFuture(loop=loop)

        def answer(frame: memoryview) -> Outcome:
            return WhenDone([durable], loop.time() + 60, lambda: [bytes(frame)])

        rig = Rig(answer)
        rig.send(b"one", b"two", b"three")
        await settle()
        assert rig.wire.writes == 0
        durable.resolve(1)
        await settle()
        assert (bytes(rig.wire.sent), rig.wire.writes) == (b"onetwothree", 1)
        assert rig.pool.used_bytes == 0
        await rig.end()

    run(main())


def test_an_answer_that_is_ready_waits_for_the_one_before_it() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        futures = {b"a": DurableFuture(loop=loop), b"b": DurableFuture(loop=loop)}

        def answer(frame: memoryview) -> Outcome:
            name = bytes(frame)
            if name in futures:
                return WhenDone([futures[name]], loop.time() + 60, lambda: [name])
            return [name]

        rig = Rig(answer)
        rig.send(b"a", b"now", b"b")
        futures[b"b"].resolve(2)
        await settle()
        assert rig.wire.writes == 0
        futures[b"a"].resolve(1)
        await settle()
        assert rig.wire.sent == b"anowb"
        await rig.end()

    run(main())


def test_an_answer_waits_for_all_of_its_futures() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        one, two = DurableFuture(loop=loop), DurableFuture(loop=loop)
        rig = Rig(lambda _: WhenDone([one, two], loop.time() + 60, lambda: [b"both"]))
        rig.send(b"x")
        await settle()
        one.resolve(1)
        await settle()
        assert rig.wire.writes == 0
        two.resolve(2)
        await settle()
        assert rig.wire.sent == b"both"
        await rig.end()

    run(main())


def test_what_is_not_done_at_its_deadline_is_answered_then_and_only_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        durable = DurableFuture(loop=loop)
        asked: list[bool] = []
        called = asyncio.Event()

        def finish() -> list[Any]:
            asked.append(durable.done())
            called.set()
            return [b"late"]

        rig = Rig(lambda _: WhenDone([durable], loop.time() + 0.01, finish))
        rig.send(b"x")
        await called.wait()
        durable.resolve(1)
        await settle()
        assert (asked, bytes(rig.wire.sent)) == ([False], b"late")
        await rig.end()

    run(main())


def test_a_later_request_with_an_earlier_deadline_does_not_wait_for_the_first() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        durable = DurableFuture(loop=loop)
        deadlines = {b"a": 60.0, b"b": 0.01}
        finished: list[bytes] = []
        called = asyncio.Event()

        def answer(frame: memoryview) -> Outcome:
            name = bytes(frame)

            def finish() -> list[Any]:
                finished.append(name)
                called.set()
                return [name]

            return WhenDone([durable], loop.time() + deadlines[name], finish)

        rig = Rig(answer)
        rig.send(b"a", b"b")
        await called.wait()
        await settle()
        assert finished == [b"b"]
        assert rig.wire.writes == 0  # its turn comes behind the first
        durable.resolve(1)
        await settle()
        assert rig.wire.sent == b"ab"
        await rig.end()

    run(main())


def test_a_closed_connection_leaves_nothing_on_the_futures_and_gives_its_memory_back() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        durable = DurableFuture(loop=loop)
        finished: list[int] = []

        def finish() -> list[Any]:
            finished.append(1)
            return [b"x"]

        rig = Rig(lambda _: WhenDone([durable], loop.time() + 60, finish))
        rig.send(b"x", b"y")
        await settle()
        assert rig.pool.used_bytes == 2
        await rig.end()
        assert rig.pool.used_bytes == 0
        assert not durable._callbacks
        durable.resolve(1)
        await settle()
        assert (finished, rig.wire.writes) == ([], 0)

    run(main())


def test_a_failing_finish_closes_the_connection() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        durable = DurableFuture(loop=loop)

        def finish() -> list[Any]:
            raise ValueError("a bug")

        rig = Rig(lambda _: WhenDone([durable], loop.time() + 60, finish))
        rig.send(b"x")
        await settle()
        durable.resolve(1)
        await settle()
        assert rig.wire.aborted
        await rig.end()

    run(main())


def test_deadlines_of_just_now_are_kept_on_the_loop_that_brokers_run_on() -> None:
    """uvloop gives a handle without a time for what is due at once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        never = loop.create_future()
        rig = Rig(lambda frame: WhenDone([never], loop.time(), lambda: [bytes(frame)]))
        rig.send(b"one", b"two", b"three")
        await asyncio.sleep(0.05)
        assert rig.wire.sent == b"onetwothree"
        await rig.end()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
