"""The network as an interface: what the broker needs of it, and the real one.

Protocol objects are asyncio's (`BufferedProtocol`), so that a simulated network drives the very
same connection code with a transport of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

BACKLOG = 4096
# libuv accepts one connection of a listening socket in each round of the loop. Where a crowd comes
# while rounds are long, the next client would wait behind thousands: so each socket is there
# several times.
ACCEPTS_PER_ROUND = 8

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Listener(ABC):
    """A bound, listening address."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The port bound; differs from the one asked when that was 0."""

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting; connections that are open stay open."""


class Network(ABC):
    """Where connections come from and go to."""

    @abstractmethod
    async def listen(self, host: str, port: int, factory: ProtocolFactory) -> Listener:
        """Accept connections at host:port, one protocol object each. Raises OSError."""

    @abstractmethod
    async def connect(
        self, host: str, port: int, factory: ProtocolFactory
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """Open a connection. Raises OSError."""


class TcpListener(Listener):
    """Servers of the running loop, all of them on one address."""

    def __init__(self, servers: list[asyncio.Server]) -> None:
        self._servers = servers

    @property
    def port(self) -> int:
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def close(self) -> None:
        # Not wait_closed(): from 3.12 on it waits for the connections too.
        for server in self._servers:
            server.close()


class TcpNetwork(Network):
    """TCP by the running loop."""

    async def listen(self, host: str, port: int, factory: ProtocolFactory) -> Listener:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(factory, host or None, port, backlog=BACKLOG)
        servers = [server]
        for bound in server.sockets:
            for _ in range(ACCEPTS_PER_ROUND - 1):
                again = socket.socket(fileno=os.dup(bound.fileno()))
                servers.append(await loop.create_server(factory, sock=again, backlog=BACKLOG))
        return TcpListener(servers)

    async def connect(
        self, host: str, port: int, factory: ProtocolFactory
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        return await asyncio.get_running_loop().create_connection(factory, host, port)
