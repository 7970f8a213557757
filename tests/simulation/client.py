"""A client of the wire protocol: one connection, many requests in flight, answers in order.

Requests and answers go through kafka-python's own codec, not through the broker's, so that the
two are checked against each other.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any

from broker.network import Network
from protocol.codec import response_class

_SIZE = struct.Struct(">i")
_HEADER = struct.Struct(">ihhih")


class Disconnected(Exception):
    """The connection is gone: whether the request was carried out, nobody knows."""


class Connection(asyncio.Protocol):
    """Open with `connect`."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id.encode()
        self._transport: Any = None
        self._buffer = bytearray()
        self._waiting: deque[tuple[int, int, int, asyncio.Future[Any]]] = deque()
        self._next_id = 1
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = False

    # What a client asks for.

    async def call(self, request: Any, version: int, timeout_s: float) -> Any:
        """The answer. Raises Disconnected, also after the time is over: then it is closed."""
        return await self.answer(self.send(request, version), timeout_s)

    def send(self, request: Any, version: int) -> asyncio.Future[Any]:
        """Send without waiting, so that requests go out in the order of the calls."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        correlation = self._write(request, version)
        if correlation is None:
            answer.set_exception(Disconnected("closed before the request was sent"))
            answer.exception()
        else:
            self._waiting.append((correlation, request.API_KEY, version, answer))
        return answer

    def send_without_answer(self, request: Any, version: int) -> None:
        self._write(request, version)

    async def answer(self, answer: asyncio.Future[Any], timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            self.close()
            raise Disconnected("no answer in time") from None

    async def writable(self) -> None:
        """Wait while the transport asks its writer to pause."""
        await self._writable.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._fail()

    def _write(self, request: Any, version: int) -> int | None:
        if self.lost:
            return None
        correlation = self._next_id
        self._next_id += 1
        body = request.encode(version=version)
        tags = b"\x00" if request.flexible_version_q(version) else b""
        size = _HEADER.size - 4 + len(self._client_id) + len(tags) + len(body)
        header = _HEADER.pack(size, request.API_KEY, version, correlation, len(self._client_id))
        self._transport.writelines((header, self._client_id, tags, body))
        return correlation

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            (size,) = _SIZE.unpack_from(buffer)
            if len(buffer) < 4 + size:
                return
            frame = memoryview(bytes(buffer[4 : 4 + size]))
            del buffer[: 4 + size]
            self._answered(frame)

    def _answered(self, frame: memoryview) -> None:
        correlation, api_key, version, answer = self._waiting.popleft()
        (told,) = _SIZE.unpack_from(frame)
        assert told == correlation, f"answer {told} where {correlation} was due"
        response = response_class(api_key)
        position = 4
        if api_key != 18 and response.flexible_version_q(version):
            assert frame[4] == 0, "tagged fields in a response header"
            position = 5
        message = response.decode(frame[position:], version=version)
        if not answer.done():
            answer.set_result(message)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail()

    def _fail(self) -> None:
        self.lost = True
        self._writable.set()
        while self._waiting:
            *_, answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(Disconnected("reset by the peer"))
                answer.exception()


async def connect(
    network: Network, address: tuple[str, int], client_id: str, timeout_s: float = 3.0
) -> Connection:
    """Raises Disconnected."""
    try:
        async with asyncio.timeout(timeout_s):
            _, protocol = await network.connect(*address, lambda: Connection(client_id))
    except (OSError, TimeoutError) as error:
        raise Disconnected(str(error)) from error
    assert isinstance(protocol, Connection)
    return protocol
