"""Connections under the simulated loop: asyncio's protocols, made-up transports.

    latency       drawn for each write; bytes of one direction never overtake each other
    fragments     what was written at once arrives in pieces, cut anywhere
    back-pressure the writer is told to pause while the reader has not taken what was sent
    cut           both ends meet a reset; what was under way arrives or does not
    blocked       nothing goes from one host to another, either way or one way; what is sent waits,
                  as TCP repeats it, and comes when the way is free again
    lossy         what goes from one host to another is late now and then: sent twice
    a dead node   resets its connections; a paused one accepts them, and says nothing

Everything that happens at an end runs in the context of the node that owns it: so a crash drops
it, and a pause holds it back, as with the node's own steps.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter, deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from broker.network import Listener, Network, ProtocolFactory

from .loop import NODE, SimulatedLoop

HIGH_BYTES = 64 * 1024
LOW_BYTES = 16 * 1024


class SimulatedNetwork:
    """All hosts and connections. fired: faults that happened, by kind."""

    def __init__(
        self, loop: SimulatedLoop, rng: Random, latency_s: tuple[float, float] = (0.0001, 0.003)
    ) -> None:
        self.loop = loop
        self.latency_s = latency_s
        self.fired: Counter[str] = Counter()
        self._rng = rng
        self._listening: dict[tuple[str, int], _Listening] = {}
        self._ends: dict[_End, None] = {}
        self._next_port = 40_000
        self._blocked: Counter[tuple[str, str]] = Counter()
        self._freed = asyncio.Event()
        self._lossy: dict[tuple[str, str], float] = {}

    def at(self, host: str) -> Network:
        """The network as a process on `host` sees it."""
        return _HostNetwork(self, host)

    # Faults.

    def kill(self, node: str) -> None:
        """The process is gone: its ports are free, its connections are reset."""
        for address in [a for a, one in self._listening.items() if one.node == node]:
            del self._listening[address]
        for end in [end for end in self._ends if end.node == node]:
            end.reset()

    def cut_one(self) -> bool:
        """Reset a connection drawn from all; False where there is none."""
        ends = list(self._ends)
        if not ends:
            return False
        self._fire("cut")
        self._rng.choice(ends).reset()
        return True

    def cut_all(self) -> None:
        if self._ends:
            self._fire("cut_all")
        for end in list(self._ends):
            end.reset()

    def block(self, source: str, target: str, for_s: float) -> None:
        """Nothing goes from host to host for so long, not even the news of a reset."""
        way = (source, target)
        self._blocked[way] += 1
        self.loop.record(f"network blocked from {source} to {target}")
        self.loop.call_later(for_s, self._free, way, context=contextvars.Context())

    def _free(self, way: tuple[str, str]) -> None:
        if way not in self._blocked:
            return
        self._blocked[way] -= 1
        if self._blocked[way] > 0:
            return
        del self._blocked[way]
        self._freed.set()
        self._freed = asyncio.Event()
        for end in list(self._ends):
            if end.way == way:
                end.flow_on()

    def is_blocked(self, source: str, target: str) -> bool:
        return bool(self._blocked) and (source, target) in self._blocked

    def lose(self, source: str, target: str, chance: float) -> None:
        """From now on so many of the writes have to be repeated; 0: none."""
        self._lossy[source, target] = chance

    def heal(self) -> None:
        """All ways are free again."""
        self._lossy.clear()
        for way in list(self._blocked):
            self._blocked[way] = 1
            self._free(way)

    def _fire(self, kind: str) -> None:
        self.fired[kind] += 1
        self.loop.record(f"network {kind}")

    # The interface, with the host that asks.

    def listen(self, host: str, port: int, factory: ProtocolFactory) -> _Listening:
        if port == 0:
            self._next_port += 1
            port = self._next_port
        if (host, port) in self._listening:
            raise OSError(98, "Address already in use")
        one = _Listening(self, (host, port), factory, contextvars.copy_context())
        self._listening[host, port] = one
        return one

    async def connect(
        self, source: str, host: str, port: int, factory: ProtocolFactory
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        await asyncio.sleep(self.draw_latency_s())
        while self._blocked and (self.is_blocked(source, host) or self.is_blocked(host, source)):
            await self._freed.wait()
        listening = self._listening.get((host, port))
        if listening is None:
            raise ConnectionRefusedError(111, f"nobody listens on {host}:{port}")
        self._next_port += 1
        near = (source, self._next_port)
        client = _End(self, contextvars.copy_context(), near, listening.address)
        server = _End(self, listening.context.copy(), listening.address, near)
        client.other, server.other = server, client
        self._ends[client] = self._ends[server] = None
        self.loop.call_soon(server.begin, listening.factory, context=server.context)
        protocol = factory()
        client.protocol = protocol
        protocol.connection_made(client)
        return client, protocol

    def draw_latency_s(self, way: tuple[str, str] | None = None) -> float:
        latency_s = self._rng.uniform(*self.latency_s)
        if self._lossy and way in self._lossy and self._rng.random() < self._lossy[way]:
            latency_s += self._rng.uniform(0.2, 1.0)
        return latency_s

    def cut_anywhere(self, data: bytes) -> tuple[bytes, bytes]:
        """What arrives at once, and what right after it; mostly all of it at once."""
        if len(data) > 1 and self._rng.random() < 0.1:
            at = self._rng.randrange(1, len(data))
            return data[:at], data[at:]
        return data, b""

    def forget(self, end: _End) -> None:
        self._ends.pop(end, None)

    def close_listening(self, listening: _Listening) -> None:
        if self._listening.get(listening.address) is listening:
            del self._listening[listening.address]


class _HostNetwork(Network):
    def __init__(self, network: SimulatedNetwork, host: str) -> None:
        self._network = network
        self._host = host

    async def listen(self, host: str, port: int, factory: ProtocolFactory) -> Listener:
        return self._network.listen(host, port, factory)

    async def connect(
        self, host: str, port: int, factory: ProtocolFactory
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        return await self._network.connect(self._host, host, port, factory)


class _Listening(Listener):
    def __init__(
        self,
        network: SimulatedNetwork,
        address: tuple[str, int],
        factory: ProtocolFactory,
        context: contextvars.Context,
    ) -> None:
        self._network = network
        self.address = address
        self.factory = factory
        self.context = context
        self.node = context.get(NODE, "")

    @property
    def port(self) -> int:
        return self.address[1]

    async def close(self) -> None:
        self._network.close_listening(self)


class _End(asyncio.Transport):
    """One end of a connection. `other` is the far end; data is copied when it is written."""

    other: _End

    def __init__(
        self,
        network: SimulatedNetwork,
        context: contextvars.Context,
        near: tuple[str, int],
        far: tuple[str, int],
    ) -> None:
        super().__init__({"peername": far, "sockname": near})
        self.context = context
        self.node = context.get(NODE, "")
        self.protocol: Any = None
        self._network = network
        self._loop = network.loop
        self._arriving: deque[bytes | None] = deque()  # under way to here; None: the far end's FIN
        self._inbox: deque[bytes | None] = deque()
        self._unread_bytes = 0  # of the two
        self._last_arrival = 0.0
        self._reading = True
        self._feeding = False
        self._closing = False
        self._lost = False
        self._told_to_pause = False
        self.way = (far[0], near[0])  # from the far host to this one
        self._withheld: deque[bytes | None] = deque()
        self._reset_withheld = False

    def begin(self, factory: ProtocolFactory) -> None:
        """The server's side of accepting."""
        if self._lost:
            return
        self.protocol = factory()
        self.protocol.connection_made(self)
        self._feed()

    # What the owner calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        data = b"".join(list_of_data)
        if self._closing or self._lost or not data:
            return
        self.other._send_here(data)
        if self.other._unread_bytes > HIGH_BYTES and not self._told_to_pause:
            self._told_to_pause = True
            self._network.fired["back_pressure"] += 1
            self.protocol.pause_writing()

    def close(self) -> None:
        if self._closing or self._lost:
            return
        self._closing = True
        self.other._send_here(None)
        self._call_soon(self._lose, None)

    def abort(self) -> None:
        if self._lost:
            return
        self._closing = True
        self.other._meet_reset()
        self._call_soon(self._lose, None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._call_soon(self._feed)

    def get_write_buffer_size(self) -> int:
        return self.other._unread_bytes

    # What the network does.

    def reset(self) -> None:
        """Both ends meet a reset; this one at once, if its node lives."""
        self._call_soon(self._lose, ConnectionResetError("simulated reset"))
        self.other._meet_reset()

    def _meet_reset(self) -> None:
        if self._network.is_blocked(*self.way):
            self._reset_withheld = True
            return
        error = ConnectionResetError("simulated reset")
        self._call_later(self._network.draw_latency_s(), self._lose, error)

    def flow_on(self) -> None:
        """The way to here is free again."""
        withheld, self._withheld = self._withheld, deque()
        for data in withheld:
            self._unread_bytes -= len(data or b"")
            self._send_here(data)
        if self._reset_withheld:
            self._meet_reset()

    def _send_here(self, data: bytes | None) -> None:
        self._unread_bytes += len(data or b"")
        if self._network.is_blocked(*self.way):
            self._withheld.append(data)
            return
        self._arriving.append(data)
        latency_s = self._network.draw_latency_s(self.way)
        due = max(self._last_arrival, self._loop.time() + latency_s)
        self._last_arrival = due
        self._loop.call_at(due, self._arrive, context=self.context)

    def _arrive(self) -> None:
        if self._lost or not self._arriving:
            return
        self._inbox.append(self._arriving.popleft())
        self._feed()

    def _feed(self) -> None:
        if self._feeding or self.protocol is None:
            return
        self._feeding = True
        try:
            while self._inbox and self._reading and not self._lost:
                data = self._inbox.popleft()
                if data is None:
                    self._far_end_closed()
                    return
                first, rest = self._network.cut_anywhere(data)
                if rest:
                    self._inbox.appendleft(rest)
                self._give(first)
        finally:
            self._feeding = False

    def _give(self, data: bytes) -> None:
        view = memoryview(data)
        if not isinstance(self.protocol, asyncio.BufferedProtocol):
            self.protocol.data_received(data)
            self._taken(len(data))
            return
        while view and not self._lost:
            if not self._reading:
                self._inbox.appendleft(bytes(view))
                return
            room = memoryview(self.protocol.get_buffer(len(view)))
            size = min(len(room), len(view))
            room[:size] = view[:size]
            self.protocol.buffer_updated(size)
            self._taken(size)
            view = view[size:]

    def _taken(self, size: int) -> None:
        self._unread_bytes -= size
        other = self.other
        if other._told_to_pause and self._unread_bytes <= LOW_BYTES:
            other._told_to_pause = False
            other._call_later(self._network.draw_latency_s(), other._resume_writing)

    def _resume_writing(self) -> None:
        if not self._lost and not self._told_to_pause:
            self.protocol.resume_writing()

    def _far_end_closed(self) -> None:
        keep_open = self.protocol.eof_received()
        if not keep_open:
            self.close()

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._inbox.clear()
        self._arriving.clear()
        self._network.forget(self)
        if self.protocol is not None:
            self.protocol.connection_lost(error)

    def _call_soon(self, act: Callable[..., None], *args: Any) -> None:
        self._loop.call_soon(act, *args, context=self.context)

    def _call_later(self, delay_s: float, act: Callable[..., None], *args: Any) -> None:
        self._loop.call_later(delay_s, act, *args, context=self.context)
