"""Memory goes back to the system after a burst, and an idle broker has no timer for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from broker.heap import QUIET_REQUESTS, QUIET_S, WORTH_BYTES, QuietHeap
from tests.simulation.loop import SimulatedLoop


class AtOnce(Executor):
    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


class Memory:
    def __init__(self) -> None:
        self.resident = 100 << 20
        self.given_back = 0

    def give_back(self) -> None:
        self.given_back += 1
        self.resident = 100 << 20

    def heap(self) -> QuietHeap:
        return QuietHeap(AtOnce(), resident=lambda: self.resident, give_back=self.give_back)


def test_memory_is_kept_while_there_is_traffic_and_given_back_after_it() -> None:
    memory = Memory()

    async def main() -> None:
        heap = memory.heap()
        for _ in range(5):
            for _ in range(QUIET_REQUESTS + 1):
                heap.touched()
            await asyncio.sleep(QUIET_S)
        assert memory.given_back == 0
        await asyncio.sleep(2 * QUIET_S)
        assert memory.given_back == 1

    SimulatedLoop(1).run(main())


def test_one_large_request_is_reason_enough_and_a_small_one_is_not() -> None:
    memory = Memory()

    async def main() -> None:
        heap = memory.heap()
        heap.touched()
        await asyncio.sleep(2 * QUIET_S)
        assert memory.given_back == 0
        memory.resident += 2 * WORTH_BYTES
        heap.touched()
        await asyncio.sleep(2 * QUIET_S)
        assert memory.given_back == 1

    SimulatedLoop(1).run(main())


def test_freed_buffers_are_kept_and_then_given_back_to_the_system() -> None:
    told = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True
    ).stdout.split()
    if told == ["unsupported"]:
        pytest.skip("the C library is not glibc, which alone takes these settings")
    kept, given_back = map(int, told)
    assert kept > 100 << 20
    assert given_back < 60 << 20


PROBE = """
import sys
from broker.heap import give_back, keep_freed_buffers, resident_bytes
if not keep_freed_buffers():
    print("unsupported")
    sys.exit()
buffers = [bytes(bytearray(8 << 20)) for _ in range(16)]
del buffers
kept = resident_bytes()
give_back()
print(kept, resident_bytes())
"""
