"""A door to an S3 store that a test opens, narrows and shuts while a broker runs.

Every request goes to the store over a connection of its own; which fault meets it is asked anew
each time. Requests keep their `Host`, so that signatures made for the door hold.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Fault:
    """kind: "status" answers with `status` and `code`; "reset" closes the connection by RST;
    "lose" lets the store do it, and closes instead of passing the answer on; "delay" waits
    `delay_s` first; "hang" answers nothing until the fault is taken away.

    methods: HTTP's, () for all. every: only each n-th of those requests.
    """

    kind: str
    status: int = 0
    code: str = ""
    delay_s: float = 0.0
    methods: tuple[str, ...] = ()
    every: int = 1


class StoreProxy:
    """Listens on a port of its own; `fault` may be set at any time."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.fault: Fault | None = None
        self.met: Counter[str] = Counter()
        self._seen = 0
        self._closed = threading.Event()
        threading.Thread(target=self._accept, daemon=True, name="store-proxy").start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(_TIMEOUT_S)
            request = _read_request(client)
            if request is None:
                return
            head, body = request
            method = head.split(b" ", 1)[0].decode()
            fault = self._fault_for(method)
            if fault is not None:
                self.met[fault.kind] += 1
                if fault.kind == "status":
                    client.sendall(_refusal(fault, method))
                    return
                if fault.kind == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if fault.kind == "hang":
                    _wait(lambda: self.fault is not fault or self._closed.is_set(), _TIMEOUT_S)
                    return
                if fault.kind == "delay":
                    time.sleep(fault.delay_s)
            with socket.create_connection(("127.0.0.1", self._target_port), 5) as store:
                store.settimeout(_TIMEOUT_S)
                store.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
                answer = bytearray()
                while chunk := store.recv(1 << 16):
                    if fault is not None and fault.kind == "lose":
                        answer += chunk
                    else:
                        client.sendall(chunk)

    def _fault_for(self, method: str) -> Fault | None:
        fault = self.fault
        if fault is None or (fault.methods and method not in fault.methods):
            return None
        self._seen += 1
        return fault if self._seen % fault.every == 0 else None


def _read_request(client: socket.socket) -> tuple[bytes, bytes] | None:
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        chunk = client.recv(1 << 16)
        if not chunk:
            return None
        received += chunk
    head, body = bytes(received[: end + 4]), received[end + 4 :]
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if fields.get(b"expect", b"").lower() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        lines = head.split(b"\r\n")
        head = b"\r\n".join(one for one in lines if not one.lower().startswith(b"expect:"))
    size = int(fields.get(b"content-length", b"0"))
    while len(body) < size:
        chunk = client.recv(1 << 16)
        if not chunk:
            return None
        body += chunk
    return head, bytes(body)


def _refusal(fault: Fault, method: str) -> bytes:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{fault.code}</Code>'
        f"<Message>made by a test</Message></Error>"
    ).encode()
    head = (
        f"HTTP/1.1 {fault.status} X\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    return head + (b"" if method == "HEAD" else body)


def _wait(until: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not until() and time.monotonic() < deadline:
        time.sleep(0.05)
