"""The asking side: a connection to another broker, proved both ways before its first use."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar, cast

from broker.network import Network
from protocol.errors import ErrorCode, KafkaError, MalformedFrame
from s3stream.metadata.records import Endpoint

from .messages import (
    Answer,
    Failed,
    Hello,
    HelloBack,
    NotController,
    Prove,
    Proved,
    Refusal,
    Request,
)
from .proof import NONCE_BYTES, is_proof, proof_of_asked, proof_of_asking
from .wire import decode_answer, encode_request

OPEN_TIMEOUT_S = 1.0
LARGEST_ANSWER_BYTES = 256 << 20

_SIZE = struct.Struct(">i")
A = TypeVar("A", bound=Answer)


class NotProved(OSError):
    """Whoever answers there cannot read this cluster's bucket."""


class Peers:
    """Opens channels. secret: asked once a connection is there, since it has to be read first."""

    def __init__(
        self, network: Network, secret: Callable[[], Awaitable[bytes]], rng: Random
    ) -> None:
        self._network = network
        self._secret = secret
        self._rng = rng

    async def open(self, endpoint: Endpoint, timeout_s: float = OPEN_TIMEOUT_S) -> Channel:
        """Raises OSError or TimeoutError: nobody of this cluster answers there. StoreError: the
        secret cannot be read.
        """
        secret = await self._secret()
        asking = Channel()
        async with asyncio.timeout(timeout_s):
            await self._network.connect(endpoint.host, endpoint.port, lambda: asking.protocol)
            try:
                await self._prove(asking, secret, timeout_s)
            except BaseException:
                asking.close()
                raise
        return asking

    async def _prove(self, channel: Channel, secret: bytes, timeout_s: float) -> None:
        nonce = self._rng.randbytes(NONCE_BYTES)
        back = await channel.call(Hello(nonce), HelloBack, timeout_s)
        if len(back.nonce) != NONCE_BYTES or not is_proof(
            back.proof, proof_of_asked(secret, nonce, back.nonce)
        ):
            raise NotProved("it does not know this cluster's secret")
        await channel.call(Prove(proof_of_asking(secret, nonce, back.nonce)), Proved, timeout_s)


class Channel:
    """One connection; questions may overlap, and are answered in order."""

    def __init__(self) -> None:
        self.protocol = _Protocol()
        self._correlation = 0

    @property
    def is_open(self) -> bool:
        return self.protocol.is_open

    async def call(self, request: Request, expected: type[A], timeout_s: float) -> A:
        """The answer. Raises KafkaError: it refused (NOT_CONTROLLER: nothing was done).
        OSError, TimeoutError: nobody knows whether it was done; the channel is closed then.
        """
        self._correlation = (self._correlation + 1) & 0x7FFFFFFF
        answer = self.protocol.send(self._correlation, encode_request(self._correlation, request))
        try:
            async with asyncio.timeout(timeout_s):
                got = await answer
        except BaseException:
            # Its answer would come before the next one's, or never.
            self.close()
            raise
        if isinstance(got, expected):
            return got
        if isinstance(got, NotController):
            raise KafkaError(ErrorCode.NOT_CONTROLLER)
        if isinstance(got, Failed):
            raise error_of(got.error)
        self.close()
        raise ConnectionError(f"{type(got).__name__} is no answer to {type(request).__name__}")

    def close(self) -> None:
        self.protocol.close()


class _Protocol(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._received = bytearray()
        self._error: Exception | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and self._error is None

    def send(self, correlation: int, frame: bytes) -> asyncio.Future[Answer]:
        if self._transport is None or self._error is not None:
            raise ConnectionResetError("the connection is closed") from self._error
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[correlation] = future
        self._transport.write(frame)
        return future

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # cast(): the transports of uvloop are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._received)
            if not 0 <= size <= LARGEST_ANSWER_BYTES:
                self._fail(MalformedFrame(f"an answer of {size} bytes"))
                return
            if len(self._received) < _SIZE.size + size:
                return
            frame = bytes(self._received[_SIZE.size : _SIZE.size + size])
            del self._received[: _SIZE.size + size]
            try:
                correlation, answer = decode_answer(frame)
            except MalformedFrame as error:
                self._fail(error)
                return
            waiting = self._waiting.pop(correlation, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError("closed by the other broker"))

    def close(self) -> None:
        self._fail(ConnectionAbortedError("closed"))

    def _fail(self, error: Exception) -> None:
        if self._error is not None:
            return
        self._error = error
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                lost = ConnectionResetError(f"the connection to a broker is lost: {error}")
                future.set_exception(lost)
                future.exception()  # who asked may have stopped waiting
        if self._transport is not None:
            self._transport.abort()


def refusal_of(error: KafkaError) -> Refusal:
    return Refusal(int(error.code), error.message, str(error))


def error_of(refusal: Refusal) -> KafkaError:
    try:
        code = ErrorCode(refusal.code)
    except ValueError:
        code = ErrorCode.UNKNOWN_SERVER_ERROR
    return KafkaError(code, refusal.message, detail=refusal.detail)
