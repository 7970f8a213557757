"""A network of protocol objects wired to each other, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from broker.network import Listener, Network, ProtocolFactory


class _Pipe(asyncio.Transport):
    """What is written here is received by `peer`, a step later."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol | None = None
        self.peer: _Pipe | None = None
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        peer = self.peer
        assert peer is not None
        asyncio.get_running_loop().call_soon(peer._receive, bytes(data))

    def _receive(self, data: bytes) -> None:
        if not self.closed and self.protocol is not None:
            self.protocol.data_received(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self._end()
        if self.peer is not None:
            # After what was written before.
            asyncio.get_running_loop().call_soon(self.peer._end)

    abort = close

    def _end(self) -> None:
        if not self.closed:
            self.closed = True
            if self.protocol is not None:
                self.protocol.connection_lost(None)


class _DoubleListener(Listener):
    def __init__(self, port: int, on_close: Callable[[], None]) -> None:
        self._port = port
        self._on_close = on_close

    @property
    def port(self) -> int:
        return self._port

    async def close(self) -> None:
        self._on_close()


class NetworkDouble(Network):
    def __init__(self) -> None:
        self._factories: dict[int, ProtocolFactory] = {}

    async def listen(self, host: str, port: int, factory: ProtocolFactory) -> Listener:
        if port in self._factories:
            raise OSError("in use")
        self._factories[port] = factory
        return _DoubleListener(port, lambda: self._factories.pop(port, None) and None)

    async def connect(
        self, host: str, port: int, factory: ProtocolFactory
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        if port not in self._factories:
            raise ConnectionRefusedError(f"{host}:{port}")
        here, there = _Pipe(), _Pipe()
        here.peer, there.peer = there, here
        there.protocol = cast(asyncio.Protocol, self._factories[port]())
        here.protocol = cast(asyncio.Protocol, factory())
        there.protocol.connection_made(there)
        here.protocol.connection_made(here)
        return here, here.protocol
