"""Who waits, for how long, and in which order."""

from __future__ import annotations

import asyncio

import pytest

from s3stream.back_pressure import BackPressure
from tests.simulation.loop import SimulatedLoop

from .log_rig import run


class Gate(BackPressure):
    """A bound of 100 bytes, 20 of them for the broker's own writes."""

    def __init__(self) -> None:
        self.pinned = 0
        self.late = False
        self.waits = 0
        super().__init__(
            100,
            20,
            pinned_bytes=lambda: self.pinned,
            overdue=lambda: self.late,
            on_wait=self._count_wait,
        )
        self.order: list[str] = []

    def _count_wait(self) -> None:
        self.waits += 1

    def enter(self, loop: SimulatedLoop, name: str, size: int, own: bool = False):  # type: ignore[no-untyped-def]
        async def take() -> None:
            with await self.admit(size, own=own):
                self.order.append(name)
                self.pinned += size

        return loop.create_task(take())


async def settle() -> None:
    await asyncio.sleep(0.001)


def test_the_broker_s_own_writes_go_on_while_clients_wait() -> None:
    async def body(loop: SimulatedLoop) -> None:
        gate = Gate()
        gate.pinned = 75
        waiting = gate.enter(loop, "client", 10)
        await settle()
        assert (gate.order, gate.waiting, gate.waits) == ([], 1, 1)
        await gate.enter(loop, "own", 15, own=True)
        assert gate.try_admit(20, own=True) is None
        gate.pinned = 0
        gate.changed()
        await waiting
        assert gate.order == ["own", "client"]
        assert gate.admitted_bytes == 0

    run(body)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_overtakes_even_with_something_smaller(seed: int) -> None:
    async def body(loop: SimulatedLoop) -> None:
        gate = Gate()
        gate.pinned = 80
        names = [str(n) for n in range(6)]
        tasks = []
        for name in names:
            tasks.append(gate.enter(loop, name, 30 if name == "0" else 1))
            await settle()
        gate.pinned = 60
        gate.changed()
        await settle()
        assert gate.order == []
        gate.pinned = 0
        gate.changed()
        assert gate.try_admit(1) is None
        await asyncio.gather(*tasks)
        assert gate.order == names

    run(body, seed)


def test_one_larger_than_the_bound_goes_when_the_clients_part_is_empty() -> None:
    async def body(loop: SimulatedLoop) -> None:
        gate = Gate()
        gate.pinned = 30
        huge = gate.enter(loop, "huge", 5000)
        await settle()
        assert not huge.done()
        gate.pinned = 20
        gate.changed()
        await huge
        assert gate.order == ["huge"]

    run(body)


def test_a_cancelled_waiter_holds_nothing_and_lets_the_next_in() -> None:
    async def body(loop: SimulatedLoop) -> None:
        gate = Gate()
        gate.pinned = 50
        first, second = gate.enter(loop, "large", 50), gate.enter(loop, "small", 10)
        await settle()
        first.cancel()
        await second
        assert gate.order == ["small"]
        # Cancelled in the very moment of its turn.
        gate.pinned = 80
        third, fourth = gate.enter(loop, "third", 10), gate.enter(loop, "fourth", 10)
        await settle()
        gate.pinned = 60
        gate.changed()
        third.cancel()
        await asyncio.gather(third, fourth, return_exceptions=True)
        assert gate.order == ["small", "fourth"]
        assert (gate.waiting, gate.admitted_bytes) == (0, 0)

    run(body)


def test_too_many_log_objects_hold_clients_back_whatever_their_bytes() -> None:
    async def body(loop: SimulatedLoop) -> None:
        gate = Gate()
        gate.pinned, gate.late = 1, True
        assert gate.try_admit(1) is None
        admission = gate.try_admit(1, own=True)
        assert admission is not None
        gate.pinned = 0
        admission.release()
        admission.release()
        assert gate.admitted_bytes == 0
        assert gate.try_admit(1) is not None

    run(body)


def test_an_admission_that_is_forgotten_gives_its_bytes_back() -> None:
    async def body(loop: SimulatedLoop) -> None:
        gate = Gate()
        await gate.admit(80)
        assert gate.admitted_bytes == 0

    run(body)


def test_the_end_of_the_log_reaches_those_who_wait() -> None:
    async def body(loop: SimulatedLoop) -> None:
        gate = Gate()
        gate.pinned = 100
        waiting = gate.enter(loop, "client", 10)
        await settle()
        gate.fail(RuntimeError("ended"))
        with pytest.raises(RuntimeError, match="ended"):
            await waiting
        with pytest.raises(RuntimeError, match="ended"):
            await gate.admit(1)
        assert gate.try_admit(1) is None

    run(body)
