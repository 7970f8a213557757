"""A connection with a transport of our own: order, memory, patience, endings."""

from __future__ import annotations

import asyncio
import struct
import weakref
from collections.abc import Awaitable, Callable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.connection import Connection, ConnectionLimits
from broker.memory_pool import MemoryPool, request_memory
from broker.outcome import CloseConnection, Deferred, Outcome
from broker.response_memory import ResponseMemory
from objectstore.store import Buffer
from protocol.errors import MalformedFrame
from tests.simulation.loop import SimulatedLoop

from .fake_transport import FakeTransport

KIB = 1024
LIMITS = ConnectionLimits(max_frame_bytes=1 << 20, idle_s=600.0, max_in_flight=4)


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


class Broker:
    """Answers `x...` with itself; `d...` later, when the test says; others as named below."""

    def __init__(self, loop: SimulatedLoop, limits: ConnectionLimits = LIMITS) -> None:
        self.loop = loop
        self.limits = limits
        self.pool = MemoryPool(4 << 20, 4 * KIB)
        self.responses = ResponseMemory(4 << 20)
        self.scratch = bytearray(8 * KIB)
        self.started: list[bytes] = []
        self.pieces: list[weakref.ref[Piece]] = []
        self.later: dict[bytes, asyncio.Future[list[Buffer] | None]] = {}
        self.blocked = asyncio.Event()
        self.open: list[Connection] = []
        self.accepting = True

    def connect(self, host: str = "10.0.0.1") -> tuple[Connection, FakeTransport]:
        connection = Connection(
            "L", self, self.pool, self.limits, self._opened, self.open.remove, self.scratch
        )
        transport = FakeTransport(host)
        transport.open(connection)
        return connection, transport

    def _opened(self, connection: Connection) -> bool:
        if self.accepting:
            self.open.append(connection)
        return self.accepting

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        body = bytes(frame)
        self.started.append(body[:8])
        match body[:1]:
            case b"d":
                future = self.loop.create_future()
                self.later[body] = future
                return Deferred(self._wait(future))
            case b"n":
                return None
            case b"c":
                raise CloseConnection("asked for")
            case b"m":
                raise MalformedFrame("as asked")
            case b"e":
                raise RuntimeError("a bug")
            case b"p":
                piece = Piece(b"piece")
                self.pieces.append(weakref.ref(piece))
                return [piece]
            case b"w":
                await self.blocked.wait()
            case b"g":
                grant = self.responses.grant()
                connection.hold(grant)
                got = await grant.room(1 << 20, 0, self.loop.time() + 60)
                if got is None:
                    return [b"nothing"]
                assert grant.settle(1 << 20)
                return [bytes(1 << 20)]
            case _:
                pass
        return [body]

    async def _wait(self, future: asyncio.Future[list[Buffer] | None]) -> list[Buffer] | None:
        return await future

    def nothing_is_held(self) -> None:
        assert self.pool.used_bytes == 0
        assert self.pool.waiting == 0
        assert self.responses.used_bytes == 0
        assert not self.open


def run(body: Callable[[Broker], Awaitable[None]], limits: ConnectionLimits = LIMITS) -> None:
    loop = SimulatedLoop(1)

    async def main() -> None:
        await body(Broker(loop, limits))

    loop.run(main())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_answers_leave_in_the_order_of_the_requests() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        transport.receive(framed(b"d1") + framed(b"x2") + framed(b"d3") + framed(b"x4"))
        await settle()
        assert broker.started == [b"d1", b"x2", b"d3", b"x4"], "all are started"
        assert transport.sent == b""
        broker.later[b"d3"].set_result([b"D3"])
        await settle()
        assert transport.sent == b""
        broker.later[b"d1"].set_result([b"D", b"1"])
        await settle()
        assert transport.sent == b"D1x2D3x4"
        connection.close()
        await connection.wait_closed()
        await settle()
        broker.nothing_is_held()

    run(body)


def test_a_handler_that_waits_holds_back_the_start_of_the_next() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        transport.receive(framed(b"w1") + framed(b"x2"))
        await settle()
        assert broker.started == [b"w1"]
        broker.blocked.set()
        await settle()
        assert broker.started == [b"w1", b"x2"]
        assert transport.sent == b"w1x2"
        connection.abort()

    run(body)


def test_a_request_without_answer_leaves_no_gap() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        transport.receive(framed(b"x1") + framed(b"n2") + framed(b"d3") + framed(b"x4"))
        await settle()
        broker.later[b"d3"].set_result(None)
        await settle()
        assert transport.sent == b"x1x4"
        connection.abort()
        await settle()
        broker.nothing_is_held()

    run(body)


def test_reading_stops_while_too_many_requests_are_unanswered() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        data = b"".join(framed(b"d%02d" % n) for n in range(40))
        taken = 0
        while transport.reading:
            taken += transport.receive(data[taken:], piece_bytes=7)
            await settle()
        assert len(broker.started) == 4
        assert taken < len(data) // 2
        done = 0
        while done < 40:
            for future in list(broker.later.values()):
                if not future.done():
                    future.set_result([b"."])
                    done += 1
            await settle()
            taken += transport.receive(data[taken:], piece_bytes=7)
            assert sum(not f.done() for f in broker.later.values()) <= 4
            await settle()
        assert transport.sent == b"." * 40
        connection.abort()

    run(body)


def test_a_closing_request_lets_earlier_answers_leave_and_starts_none_after_it() -> None:
    async def body(broker: Broker) -> None:
        for last in (b"c", b"m"):
            broker.started.clear()
            _, transport = broker.connect()
            transport.receive(framed(b"d1") + framed(last) + framed(b"x3"))
            await settle()
            assert not transport.closing
            broker.later.pop(b"d1").set_result([b"owed"])
            await settle()
            assert transport.sent == b"owed"
            assert transport.lost and not transport.aborted
            assert broker.started == [b"d1", last]
        broker.nothing_is_held()

    run(body)


def test_an_unforeseen_error_closes_only_its_connection() -> None:
    async def body(broker: Broker) -> None:
        other, other_transport = broker.connect()
        _, transport = broker.connect()
        transport.receive(framed(b"e"))
        await settle()
        assert transport.aborted
        other_transport.receive(framed(b"x"))
        await settle()
        assert other_transport.sent == b"x"
        other.close()
        await settle()
        broker.nothing_is_held()

    run(body)


def test_lengths_out_of_bounds_close_at_once() -> None:
    async def body(broker: Broker) -> None:
        for length in (-1, -(2**31), (1 << 20) + 1, 2**31 - 1):
            _, transport = broker.connect()
            transport.receive(struct.pack(">i", length))
            await settle()
            assert transport.aborted
        broker.nothing_is_held()

    run(body)


def test_a_frame_without_memory_waits_and_is_read_when_there_is_some() -> None:
    async def body(broker: Broker) -> None:
        assert broker.pool.try_reserve("10.0.0.1", broker.pool.share_bytes)
        connection, transport = broker.connect()
        data = framed(b"x" * (64 * KIB))
        taken = transport.receive(data)
        assert taken <= len(broker.scratch) and not transport.reading
        broker.pool.release("10.0.0.1", broker.pool.share_bytes)
        assert transport.reading
        transport.receive(data[taken:])
        await settle()
        assert transport.sent == b"x" * (64 * KIB)
        connection.close()
        await settle()
        broker.nothing_is_held()

    run(body)


def test_who_is_gone_does_not_wait_for_memory_any_more() -> None:
    async def body(broker: Broker) -> None:
        assert broker.pool.try_reserve("10.0.0.1", broker.pool.share_bytes)
        connection, transport = broker.connect()
        transport.receive(framed(b"x" * (64 * KIB)))
        assert broker.pool.waiting == 1
        connection.abort()
        await settle()
        assert broker.pool.waiting == 0
        broker.pool.release("10.0.0.1", broker.pool.share_bytes)
        broker.nothing_is_held()

    run(body)


def test_an_announced_frame_that_never_comes_loses_its_memory() -> None:
    async def body(broker: Broker) -> None:
        for size in (100, 1 << 20):
            _, transport = broker.connect()
            transport.receive(struct.pack(">i", size) + b"a")
            assert broker.pool.used_bytes == size
            await asyncio.sleep(LIMITS.frame_grace_s + 2)
            assert transport.aborted
        broker.nothing_is_held()

    run(body)


class Piece(bytearray):
    """Of an answer; one can look whether it is still kept."""


def test_nothing_is_kept_of_an_answer_that_has_left() -> None:
    async def body(broker: Broker) -> None:
        _, transport = broker.connect()
        transport.receive(framed(b"p"))
        await settle()
        assert transport.sent == b"piece"
        # At once, not when the collector of cycles comes by.
        assert [piece() for piece in broker.pieces] == [None]
        transport.abort()
        await settle()

    run(body)


def test_nothing_is_kept_of_a_frame_whose_connection_was_closed() -> None:
    async def body(broker: Broker) -> None:
        for end in ("lost", "garbage"):
            connection, transport = broker.connect()
            if end == "lost":
                transport.receive(struct.pack(">i", 1 << 19) + bytes(5000))
                assert connection._reader.pending_bytes
                transport.abort()
            else:
                transport.receive(framed(b"x") + struct.pack(">i", -5) + bytes(5000))
            await settle()
            assert transport.lost
            assert not connection._reader.pending_bytes
        broker.nothing_is_held()

    run(body)


def fill_for(pool: MemoryPool, owner: str) -> None:
    """Alone, an address gets half of the bound, which is four shares."""
    assert [pool.try_reserve(owner, pool.share_bytes) for _ in range(5)] == [True] * 4 + [False]


def empty_for(pool: MemoryPool, owner: str) -> None:
    for _ in range(4):
        pool.release(owner, pool.share_bytes)


def test_a_stranger_receives_into_a_part_of_its_own_and_then_waits_like_all_others() -> None:
    async def body(broker: Broker) -> None:
        broker.pool = pool = request_memory(4 << 20)
        assert pool.strangers is not None
        _, transport = broker.connect()
        data = framed(b"x" * (64 * KIB))
        taken = transport.receive(data[:1000])
        assert (pool.used_bytes, pool.strangers.used_bytes) == (0, 64 * KIB)
        # All that this address may have is taken when the frame is whole.
        fill_for(pool, "10.0.0.1")
        transport.receive(data[taken:])
        await settle()
        assert not broker.started and not transport.reading
        assert (pool.waiting, pool.strangers.used_bytes) == (1, 64 * KIB)
        empty_for(pool, "10.0.0.1")
        await settle()
        assert transport.sent == b"x" * (64 * KIB)
        assert (pool.used_bytes, pool.strangers.used_bytes) == (0, 0)
        assert transport.reading
        # It is known now.
        transport.receive(data[:100])
        assert (pool.used_bytes, pool.strangers.used_bytes) == (64 * KIB, 0)
        transport.abort()
        await settle()
        broker.nothing_is_held()

    run(body)


def test_a_stranger_that_leaves_while_its_frame_waits_holds_nothing() -> None:
    async def body(broker: Broker) -> None:
        broker.pool = pool = request_memory(4 << 20)
        assert pool.strangers is not None
        for whole in (False, True):
            fill_for(pool, "10.0.0.1")
            _, transport = broker.connect()
            data = framed(b"x" * (64 * KIB))
            transport.receive(data if whole else data[:100])
            assert pool.strangers.used_bytes == 64 * KIB
            transport.abort()
            await settle()
            assert pool.strangers.used_bytes == 0
            empty_for(pool, "10.0.0.1")
        assert not broker.started
        broker.nothing_is_held()

    run(body)


def test_the_first_frame_must_come_sooner_than_later_ones() -> None:
    async def body(broker: Broker) -> None:
        for known in (False, True):
            _, transport = broker.connect()
            if known:
                transport.receive(framed(b"x"))
                await settle()
            transport.receive(struct.pack(">i", 1000))
            await asyncio.sleep(LIMITS.first_grace_s + 2)
            assert transport.aborted is not known

    run(body)


def test_a_frame_that_keeps_the_least_rate_is_waited_for() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        data = framed(b"x" * (1 << 20))
        step = LIMITS.least_rate + 1000
        for position in range(0, len(data), step):
            assert not transport.closing
            transport.receive(data[position : position + step])
            await asyncio.sleep(1)
        assert len(transport.sent) == 1 << 20
        connection.abort()

    run(body)


def test_a_trickle_is_cut_off_however_long_it_goes_on() -> None:
    async def body(broker: Broker) -> None:
        _, transport = broker.connect()
        transport.receive(struct.pack(">i", 1 << 20))
        for _ in range(80):
            transport.receive(b"a")
            await asyncio.sleep(1)
        assert transport.aborted
        broker.nothing_is_held()

    run(body)


def test_an_idle_connection_is_closed_and_one_that_waits_for_an_answer_is_not() -> None:
    async def body(broker: Broker) -> None:
        _, idle = broker.connect()
        _, waiting = broker.connect()
        idle.receive(framed(b"x"))
        waiting.receive(framed(b"d"))
        await asyncio.sleep(LIMITS.idle_s + 5)
        assert idle.closing and not waiting.closing
        broker.later[b"d"].set_result([b"at last"])
        await settle()
        assert waiting.sent == b"at last"
        await asyncio.sleep(2 * LIMITS.idle_s + 5)
        assert waiting.closing
        await settle()
        broker.nothing_is_held()

    run(body)


def test_a_client_that_takes_no_answers_gets_no_more_requests_started() -> None:
    async def body(broker: Broker) -> None:
        _, transport = broker.connect()
        transport.slow = True
        transport.receive(framed(b"x1"))
        await settle()
        for n in range(20):
            transport.receive(framed(b"x%d" % n))
            await settle()
        assert broker.started == [b"x1"]
        assert not transport.reading
        transport.slow = False
        transport.take()
        await settle()
        assert len(broker.started) > 4
        transport.slow = True
        transport.receive(framed(b"x"))
        await settle()
        assert transport.unsent
        await asyncio.sleep(2 * LIMITS.idle_s + 5)
        assert transport.aborted, "it does not read its answers"
        broker.nothing_is_held()

    run(body)


def test_finished_answers_behind_a_slow_one_do_not_pile_up() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        transport.receive(framed(b"d"))
        await settle()
        transport.receive(framed(b"x" * 900) + framed(b"x" * 900) + framed(b"y"))
        await settle()
        assert broker.started == [b"d", b"x" * 8, b"x" * 8]
        broker.later[b"d"].set_result([b"D"])
        await settle()
        assert transport.sent == b"D" + b"x" * 1800 + b"y"
        connection.abort()

    run(body, ConnectionLimits(1 << 20, 600.0, 10, unsent_bytes=1000))


def test_response_memory_goes_back_when_the_response_has_left() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        transport.slow = True
        transport.receive(framed(b"g"))
        await settle()
        assert broker.responses.used_bytes == 1 << 20
        transport.take(1000)
        await settle()
        assert broker.responses.used_bytes == 1 << 20
        transport.slow = False
        transport.take()
        assert broker.responses.used_bytes == 0
        connection.close()
        await settle()
        broker.nothing_is_held()

    run(body)


def test_who_does_not_read_is_given_up_when_others_wait_for_the_memory() -> None:
    async def body(broker: Broker) -> None:
        stalled = [broker.connect(f"10.0.1.{n}")[1] for n in range(4)]
        for transport in stalled:
            transport.slow = True
            transport.receive(framed(b"g"))
        await settle()
        await asyncio.sleep(300)
        assert not any(t.closing for t in stalled), "nobody needs it"
        connection, reader = broker.connect("10.0.2.1")
        reader.receive(framed(b"g"))
        await settle()
        assert len(reader.sent) == 1 << 20
        assert sum(t.aborted for t in stalled) == 1
        connection.close()
        for transport in stalled:
            transport.abort()
        await settle()
        broker.nothing_is_held()

    run(body)


def test_a_slow_reader_keeps_its_response_while_it_keeps_the_least_rate() -> None:
    async def body(broker: Broker) -> None:
        slow = [broker.connect(f"10.0.1.{n}")[1] for n in range(4)]
        for transport in slow:
            transport.slow = True
            transport.receive(framed(b"g"))
        await settle()
        connection, reader = broker.connect("10.0.2.1")
        reader.receive(framed(b"g"))
        for _ in range(40):
            for transport in slow:
                transport.take(20 * KIB)
            await asyncio.sleep(1)
        assert not any(t.closing for t in slow)
        assert reader.sent == b""
        for transport in slow:
            transport.take()
        await settle()
        assert len(reader.sent) == 1 << 20
        for one in list(broker.open):
            one.abort()
        await settle()
        broker.nothing_is_held()
        del connection

    run(body)


def test_a_closed_side_that_is_not_read_is_cut_after_a_while() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        transport.slow = True
        transport.receive(framed(b"x"))
        await settle()
        connection.close()
        connection.close()
        await settle()
        assert not transport.lost, "what was written may still leave"
        await asyncio.sleep(LIMITS.linger_s + 1)
        assert transport.aborted and transport.lost
        broker.nothing_is_held()

    run(body)


def test_draining_answers_what_was_received_and_nothing_else() -> None:
    async def body(broker: Broker) -> None:
        connection, transport = broker.connect()
        transport.receive(framed(b"d1") + framed(b"x2") + framed(b"half")[:6])
        await settle()
        connection.drain()
        await settle()
        assert not transport.closing
        broker.later[b"d1"].set_result([b"D1"])
        await settle()
        assert transport.sent == b"D1x2"
        assert transport.lost and not transport.aborted
        broker.nothing_is_held()

    run(body)


def test_draining_an_idle_connection_or_one_that_waits_for_memory_closes_it() -> None:
    async def body(broker: Broker) -> None:
        idle, idle_transport = broker.connect()
        assert broker.pool.try_reserve("10.0.0.2", broker.pool.share_bytes)
        waiting, waiting_transport = broker.connect("10.0.0.2")
        waiting_transport.receive(framed(b"x" * (64 * KIB)))
        assert broker.pool.waiting == 1
        idle.drain()
        waiting.drain()
        await settle()
        assert idle_transport.lost and waiting_transport.lost
        broker.pool.release("10.0.0.2", broker.pool.share_bytes)
        broker.nothing_is_held()

    run(body)


def test_a_refused_connection_is_closed_and_never_counted() -> None:
    async def body(broker: Broker) -> None:
        broker.accepting = False
        _, transport = broker.connect()
        await settle()
        assert transport.lost
        assert not broker.open

    run(body)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_memory_comes_back_and_answers_stay_in_order(seed: int) -> None:
    rng = Random(seed)

    async def body(broker: Broker) -> None:
        data: dict[FakeTransport, bytes] = {}
        told: dict[FakeTransport, list[bytes]] = {}
        connections = []
        for n in range(5):
            connection, transport = broker.connect(f"10.0.0.{n % 2}")
            connections.append(connection)
            bodies = [
                rng.choice([b"x", b"d", b"n", b"w"])
                + b"%02d" % i
                + bytes(rng.choice([0, 9, 20_000]))
                for i in range(rng.randrange(12))
            ]
            told[transport] = [b for b in bodies if b[:1] != b"n"]
            data[transport] = b"".join(map(framed, bodies))
        for _ in range(150):
            transport = rng.choice(list(data))
            what = rng.random()
            if what < 0.5:
                size = transport.receive(data[transport][: rng.choice([1, 50, 5000, 50_000])])
                data[transport] = data[transport][size:]
            elif what < 0.7 and broker.later:
                body = rng.choice(list(broker.later))
                future = broker.later.pop(body)
                if not future.done():
                    future.set_result([body])
            elif what < 0.8:
                transport.slow = not transport.slow
            elif what < 0.9 and not transport.lost:
                transport.take(rng.choice([None, 0, 1]) if transport.unsent else 0)
            elif what < 0.92:
                rng.choice([connections[0].abort, connections[1].close, connections[2].drain])()
            else:
                broker.blocked.set()
                await asyncio.sleep(rng.choice([0, 0, 1, 40]))
        for transport, wanted in told.items():
            got = bytes(transport.sent + transport.unsent)
            if not transport.aborted:
                assert b"".join(wanted).startswith(got)
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        await settle()
        broker.nothing_is_held()

    run(body)
