from __future__ import annotations

import asyncio

import pytest

from broker.admin_http import CONNECTIONS, REQUEST_BYTES, AdminHttp, Health

from .controller.network_double import NetworkDouble

READY = Health(True)


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()


def ask(*pieces: bytes, health: Health = READY, metrics: bytes | None = b"m 1\n") -> bytes:
    async def main() -> bytes:
        network = NetworkDouble()
        server = AdminHttp(network, lambda: health, lambda: metrics)
        await server.listen("h", 1)
        client = Client()
        transport, _ = await network.connect("h", 1, lambda: client)
        assert isinstance(transport, asyncio.Transport)
        for piece in pieces:
            transport.write(piece)
        await asyncio.wait_for(client.ended.wait(), 5)
        await server.close()
        return client.received

    return asyncio.run(main())


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def test_health_is_the_process_and_readiness_the_writes() -> None:
    sick = Health(False, ("the log cannot be written",))
    assert ask(get("/healthz"), health=sick).startswith(b"HTTP/1.1 200 ")
    answer = ask(get("/readyz"), health=sick)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"the log cannot be written\n")
    assert ask(get("/readyz?verbose")).startswith(b"HTTP/1.1 200 ")


def test_metrics_are_prometheus_text_of_the_length_that_is_told() -> None:
    head, _, body = ask(get("/metrics"), metrics=b"a 1\nb 2\n").partition(b"\r\n\r\n")
    assert b"text/plain; version=0.0.4" in head
    assert b"Content-Length: 8" in head
    assert body == b"a 1\nb 2\n"


def test_a_head_request_has_no_body() -> None:
    answer = ask(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 3" in answer and answer.endswith(b"\r\n\r\n")


def test_a_request_in_pieces_is_one_request() -> None:
    assert ask(b"GET /hea", b"lthz HTTP/1.1\r", b"\n\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/"), 404),
        (get("/healthz/../secret"), 404),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET  HTTP/1.1\r\n\r\n", 400),
        (b"GET /healthz SPDY/9\r\n\r\n", 400),
        (b"x" * (REQUEST_BYTES + 1), 431),
        (get("/" + "x" * REQUEST_BYTES), 431),
    ],
)
def test_anything_else_gets_its_status_and_the_connection_ends(
    request_bytes: bytes, status: int
) -> None:
    assert ask(request_bytes).startswith(f"HTTP/1.1 {status} ".encode())


def test_more_connections_than_the_bound_are_closed_and_the_others_served() -> None:
    async def main() -> None:
        network = NetworkDouble()
        server = AdminHttp(network, lambda: Health(True), lambda: b"")
        await server.listen("h", 1)
        clients = [Client() for _ in range(CONNECTIONS + 1)]
        transports = []
        for client in clients:
            transport, _ = await network.connect("h", 1, lambda c=client: c)  # type: ignore[misc]
            transports.append(transport)
        await asyncio.sleep(0.01)
        assert [client.ended.is_set() for client in clients] == [False] * CONNECTIONS + [True]
        transports[0].write(get("/healthz"))  # type: ignore[attr-defined]
        await asyncio.wait_for(clients[0].ended.wait(), 5)
        assert clients[0].received.startswith(b"HTTP/1.1 200 ")
        await server.close()
        await asyncio.wait_for(clients[1].ended.wait(), 5)

    asyncio.run(main())
