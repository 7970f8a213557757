"""The listening side: accepts connections within limits, and lets them go in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from .connection import Connection, ConnectionLimits
from .memory_pool import MemoryPool
from .network import Listener, Network
from .outcome import Handler
from .turns import Turns

log = logging.getLogger(__name__)

SCRATCH_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """name: the listener's name. port 0 binds a free one."""

    name: str
    host: str
    port: int


class AddressInUse(Exception):
    """A listener's port is taken."""


class Server:
    """All listeners and connections of a broker."""

    def __init__(
        self,
        network: Network,
        handler: Handler,
        pool: MemoryPool,
        limits: ConnectionLimits,
        max_connections: int,
        max_connections_per_ip: int,
    ) -> None:
        self._network = network
        self._handler = handler
        self._pool = pool
        self._limits = limits
        self._max = max_connections
        self._max_per_ip = max_connections_per_ip
        self._listeners: list[Listener] = []
        # A dict and not a set: its order is that of arrival.
        self._connections: dict[Connection, None] = {}
        self._per_ip: dict[str, int] = {}
        # Holds bytes only while one connection takes them: all share it.
        self._scratch = bytearray(SCRATCH_BYTES)
        self._turns = Turns()
        self._closing = False
        self._all_gone = asyncio.Event()
        self.refused = 0
        self.accepted = 0

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    async def listen(self, addresses: Sequence[ListenAddress]) -> dict[str, int]:
        """Bind every address; gives the port bound for each listener name.

        Raises AddressInUse, after letting go of those that were bound.
        """
        ports: dict[str, int] = {}
        for address in addresses:
            name = address.name
            try:
                listener = await self._network.listen(
                    address.host,
                    address.port,
                    lambda name=name: self._new_connection(name),  # type: ignore[misc]
                )
            except OSError as error:
                await self.stop_accepting()
                raise AddressInUse(
                    f"cannot listen on {address.host}:{address.port}: {error.strerror or error}; "
                    f"choose another address with --listener {address.name}=HOST:PORT"
                ) from error
            self._listeners.append(listener)
            ports[address.name] = listener.port
        return ports

    def _new_connection(self, listener: str) -> Connection:
        return Connection(
            listener,
            self._handler,
            self._pool,
            self._limits,
            self._opened,
            self._lost,
            self._scratch,
            self._turns,
        )

    def _opened(self, connection: Connection) -> bool:
        ip = connection.client_host
        if (
            self._closing
            or len(self._connections) >= self._max
            or self._per_ip.get(ip, 0) >= self._max_per_ip
        ):
            self.refused += 1
            return False
        self.accepted += 1
        self._connections[connection] = None
        self._per_ip[ip] = self._per_ip.get(ip, 0) + 1
        return True

    def _lost(self, connection: Connection) -> None:
        if self._connections.pop(connection, 0) is None:
            ip = connection.client_host
            self._per_ip[ip] -= 1
            if not self._per_ip[ip]:
                del self._per_ip[ip]
        if self._closing and not self._connections:
            self._all_gone.set()

    async def stop_accepting(self) -> None:
        """Close the listeners; connections stay."""
        self._closing = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.close()

    async def drain(self, timeout_s: float) -> None:
        """Answer what was received, then close every connection; abort the rest in time."""
        await self.stop_accepting()
        # Or the end of each connection would let another begin a frame that nobody reads.
        self._pool.close()
        for connection in list(self._connections):
            connection.drain()
        if self._connections:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._all_gone.wait()
            except TimeoutError:
                log.warning("%d connections did not end in time", len(self._connections))
        await self.abort()

    async def abort(self) -> None:
        """Close everything at once."""
        await self.stop_accepting()
        self._pool.close()
        connections = list(self._connections)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.wait_closed()
