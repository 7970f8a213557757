"""The operators' HTTP address: `/healthz`, `/readyz`, `/metrics`, and nothing else.

Written by hand over the network interface: three answers need no framework, and a simulated
network serves them too. One request a connection; a request has 8 KiB and 10 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from .network import Listener, Network

REQUEST_BYTES = 8 << 10
REQUEST_TIMEOUT_S = 10.0
CONNECTIONS = 64
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Health:
    """ready: serves clients, and can acknowledge a write as far as is known. reasons: why not."""

    ready: bool
    reasons: tuple[str, ...] = ()


class AdminHttp:
    """health: asked at each `/readyz`. metrics: the text format of Prometheus, or None while
    there is nothing to tell yet."""

    def __init__(
        self,
        network: Network,
        health: Callable[[], Health],
        metrics: Callable[[], bytes | None],
    ) -> None:
        self._network = network
        self._health = health
        self._metrics = metrics
        self._listener: Listener | None = None
        self._connections: dict[_Connection, None] = {}

    async def listen(self, host: str, port: int) -> int:
        """The port bound. Raises OSError."""
        self._listener = await self._network.listen(host, port, lambda: _Connection(self))
        return self._listener.port

    async def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        for connection in list(self._connections):
            connection.abort()

    def opened(self, connection: _Connection) -> bool:
        if len(self._connections) >= CONNECTIONS:
            return False
        self._connections[connection] = None
        return True

    def lost(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)

    def answer(self, head: bytes) -> bytes:
        """The whole response to a request's head."""
        words = head.split(b"\r\n", 1)[0].split(b"\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, b"not an HTTP/1 request\n")
        method, target = words[0], words[1].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response(405, b"only GET and HEAD\n", extra="Allow: GET, HEAD\r\n")
        status, body, kind = self._page(target)
        return _response(status, body, kind, with_body=method == b"GET")

    def _page(self, target: bytes) -> tuple[int, bytes, str]:
        plain = "text/plain; charset=utf-8"
        match target:
            case b"/healthz":
                return 200, b"ok\n", plain
            case b"/readyz":
                health = self._health()
                if health.ready:
                    return 200, b"ready\n", plain
                reasons = health.reasons or ("starting",)
                return 503, "".join(f"{reason}\n" for reason in reasons).encode(), plain
            case b"/metrics":
                text = self._metrics()
                return (503, b"starting\n", plain) if text is None else (200, text, METRICS_TYPE)
        return 404, b"there are /healthz, /readyz and /metrics\n", plain


class _Connection(asyncio.Protocol):
    def __init__(self, server: AdminHttp) -> None:
        self._server = server
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # cast(): the transports of uvloop are no subclasses of asyncio's.
        opened = cast(asyncio.Transport, transport)
        if not self._server.opened(self):
            opened.abort()
            return
        self._transport = opened
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(REQUEST_TIMEOUT_S, opened.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 and len(self._received) <= REQUEST_BYTES:
            return
        if end < 0 or end > REQUEST_BYTES:
            response = _response(431, b"the request is too long\n")
        else:
            response = self._server.answer(bytes(self._received[:end]))
        # The deadline stays: it bounds a peer that does not read its answer, too.
        self._transport.write(response)
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._server.lost(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _response(
    status: int,
    body: bytes,
    kind: str = "text/plain; charset=utf-8",
    *,
    with_body: bool = True,
    extra: str = "",
) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"Connection: close\r\n{extra}\r\n"
    )
    return head.encode() + (body if with_body else b"")
