"""A loop that is stuck goes on being heard, and says how late it is: over a real socket."""

from __future__ import annotations

import asyncio
import threading
import time
from random import Random

from broker.cluster.heartbeat_thread import HeartbeatThread
from broker.cluster.messages import Heartbeat, HeartbeatBack
from broker.cluster.proof import secret_of
from broker.cluster.serving import PeerServer
from broker.connection import Connection, ConnectionLimits
from broker.memory_pool import MemoryPool
from broker.network import TcpNetwork
from broker.outcome import Outcome
from broker.server import ListenAddress, Server
from s3stream.metadata.records import BEFORE_ALL, Endpoint

SECRET = secret_of(bytes(16))


async def secret() -> bytes:
    return SECRET


class Controller:
    """Hears heartbeats on a loop of its own, in a thread of its own."""

    def __init__(self) -> None:
        self.heard: list[Heartbeat] = []
        self.listening = threading.Event()
        self.five_late_ones = threading.Event()
        self.port = 0
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._peers = PeerServer(secret, Random(1))
        self._peers.serve(Heartbeat, self._heartbeat)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _heartbeat(self, heartbeat: Heartbeat) -> HeartbeatBack:
        self.heard.append(heartbeat)
        if sum(one.lag_ms > 0 for one in self.heard) >= 5:
            self.five_late_ones.set()
        return HeartbeatBack(1, 0, True)

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        return await self._peers.handle(connection, frame)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        limits = ConnectionLimits(max_frame_bytes=1 << 20, idle_s=600.0, max_in_flight=10)
        server = Server(TcpNetwork(), self, MemoryPool(1 << 24), limits, 100, 100)
        ports = await server.listen([ListenAddress("PLAINTEXT", "127.0.0.1", 0)])
        self.port = ports["PLAINTEXT"]
        self.listening.set()
        await self._stop.wait()
        await server.abort()

    def stop(self) -> None:
        assert self._loop is not None and self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self.thread.join(10)


def test_a_stuck_loop_is_heard_and_its_lateness_grows() -> None:
    controller = Controller()
    controller.thread.start()
    assert controller.listening.wait(10)
    answers: list[float] = []

    async def main() -> None:
        where = Endpoint("PLAINTEXT", "127.0.0.1", controller.port)
        first = asyncio.Event()

        def heard(sent_at: float, back: HeartbeatBack) -> None:
            answers.append(sent_at)
            first.set()

        sender = HeartbeatThread(
            secret,
            time.monotonic,
            Random(2),
            lambda late_s: (where, Heartbeat(7, BEFORE_ALL)),
            heard,
            0.02,
            5.0,
        )
        sending = asyncio.create_task(sender.run())
        await asyncio.wait_for(first.wait(), 10)
        # The loop does nothing at all until others have heard of it five times.
        assert controller.five_late_ones.wait(20)
        before = len(answers)
        await asyncio.sleep(0.05)
        assert len(answers) > before, "what was answered meanwhile comes when the loop goes on"
        assert answers == sorted(answers)
        assert answers[-1] <= asyncio.get_running_loop().time()
        sending.cancel()
        await asyncio.wait([sending])

    asyncio.run(main())
    controller.stop()
    late = [one.lag_ms for one in controller.heard if one.lag_ms > 0]
    assert late[:5] == sorted(late[:5])
    assert {one.incarnation for one in controller.heard} == {7}
