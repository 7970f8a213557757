"""A client that sends whatever it is told, byte by byte, and waits for the answer."""

from __future__ import annotations

import socket
import struct

from protocol.api_versions import ApiKey

from .schema import Values, decode, encode, message, varint

TIMEOUT_S = 20.0


class Closed(Exception):
    """The peer closed the connection instead of answering."""


def schema_name(api: ApiKey) -> str:
    return "".join(word.capitalize() for word in api.name.split("_"))


def header(api: int, version: int, correlation_id: int, client_id: str, flexible: bool) -> bytes:
    """Request header, version 1, or 2 with its tag section."""
    name = client_id.encode()
    out = struct.pack(">hhih", api, version, correlation_id, len(name)) + name
    return out + varint(0) if flexible else out


class Connection:
    """One blocking connection to 127.0.0.1."""

    def __init__(self, port: int, client_id: str = "probe") -> None:
        self.client_id = client_id
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation = 0
        self._expected: list[tuple[int, ApiKey, int]] = []

    def close(self) -> None:
        self._socket.close()

    def send(self, api: ApiKey, version: int, body: Values | bytes) -> None:
        """body: the values of the message, or bytes to stand where it should be."""
        schema = message(schema_name(api) + "Request")
        if not isinstance(body, bytes):
            body = encode(schema, version, body)
        self._correlation += 1
        flexible = version in schema.flexible
        head = header(api, version, self._correlation, self.client_id, flexible)
        self.send_frame(head + body)
        self._expected.append((self._correlation, api, version))

    def expect_none(self) -> None:
        """The last request has no answer."""
        self._expected.pop()

    def send_frame(self, frame: bytes) -> None:
        self.send_bytes(struct.pack(">i", len(frame)) + frame)

    def send_bytes(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise Closed from error

    def receive(self, as_version: int | None = None) -> Values:
        """The answer to the oldest request without one.

        as_version: of the answer, where it is not the request's.
        Raises Closed; ValueError: an answer that its schema does not describe.
        """
        correlation, api, version = self._expected.pop(0)
        frame = self.receive_frame()
        (told,) = struct.unpack_from(">i", frame)
        if told != correlation:
            raise ValueError(f"correlation id {told} instead of {correlation}")
        schema = message(schema_name(api) + "Response")
        if as_version is not None:
            version = as_version
        at = 4
        if version in schema.flexible and api != ApiKey.API_VERSIONS:
            if frame[4] != 0:
                raise ValueError("tags in a response header")
            at = 5
        return decode(schema, version, frame[at:])

    def receive_frame(self) -> bytes:
        (size,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long, not even the end of the connection."""
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(TIMEOUT_S)
        return False

    def _exactly(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                part = self._socket.recv(min(size, 1 << 20))
            except ConnectionError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
