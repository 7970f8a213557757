"""Heartbeats from a thread of their own, for real processes: a loop that is busy for a second does
not make its broker look dead, and how late it is, is said in each of them.

The loop leaves word of itself twice an interval; the thread sends whatever word is there, by a
blocking socket. Nothing else is shared, and answers come back through the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

import msgspec

from objectstore.errors import StoreError
from protocol.errors import MalformedFrame
from s3stream.metadata.records import Endpoint

from .heartbeats import Beat, Heard
from .messages import Answer, Heartbeat, HeartbeatBack, Hello, HelloBack, Prove, Proved, Request
from .proof import NONCE_BYTES, is_proof, proof_of_asked, proof_of_asking
from .wire import decode_answer, encode_request

LARGEST_ANSWER_BYTES = 1 << 20

_SIZE = struct.Struct(">i")


@dataclass(frozen=True, slots=True)
class _Word:
    """What the loop last said. at: when, by the loop's clock."""

    where: Endpoint | None
    heartbeat: Heartbeat
    at: float


class HeartbeatThread:
    """As `heartbeats.Heartbeats`. now_s: the clock of the loop, asked from another thread."""

    def __init__(
        self,
        secret: Callable[[], Awaitable[bytes]],
        now_s: Callable[[], float],
        rng: Random,
        beat: Beat,
        heard: Heard,
        interval_s: float,
        timeout_s: float,
    ) -> None:
        self._secret = secret
        self._now_s = now_s
        self._rng = rng
        self._beat = beat
        self._heard = heard
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._word: _Word | None = None
        self._stop = threading.Event()

    async def run(self) -> None:
        """Owner's task: for ever. The thread ends soon after it is cancelled."""
        loop = asyncio.get_running_loop()
        secret = await self._read_secret()
        sender = threading.Thread(
            target=self._send, args=(loop, secret), name="heartbeats", daemon=True
        )
        try:
            while True:
                where, heartbeat = self._beat(0.0)
                self._word = _Word(where, heartbeat, self._now_s())
                if not sender.ident:
                    sender.start()
                await asyncio.sleep(self._interval_s / 2)
        finally:
            self._stop.set()

    async def _read_secret(self) -> bytes:
        while True:
            try:
                return await self._secret()
            except StoreError:
                await asyncio.sleep(self._interval_s)  # nobody can be told that we are there

    # In the thread.

    def _send(self, loop: asyncio.AbstractEventLoop, secret: bytes) -> None:
        line: _Line | None = None
        try:
            while True:
                word = self._word
                assert word is not None
                if line is not None and line.to != word.where:
                    line.close()
                    line = None
                try:
                    if line is None and word.where is not None:
                        line = _Line(word.where, self._timeout_s)
                        line.prove(secret, self._rng)
                    if line is not None:
                        self._once(loop, line)
                except (OSError, MalformedFrame):
                    if line is not None:
                        line.close()
                        line = None
                if self._stop.wait(self._interval_s):
                    return
        finally:
            if line is not None:
                line.close()

    def _once(self, loop: asyncio.AbstractEventLoop, line: _Line) -> None:
        word = self._word
        assert word is not None
        sent_at = self._now_s()
        late_s = max(sent_at - word.at - self._interval_s / 2, 0.0)
        heartbeat = msgspec.structs.replace(word.heartbeat, lag_ms=round(late_s * 1000))
        back = line.ask(heartbeat)
        # Not the controller any more, or not yet: as good as no answer.
        if isinstance(back, HeartbeatBack):
            with contextlib.suppress(RuntimeError):  # the loop is closed: the broker has ended
                loop.call_soon_threadsafe(self._tell, sent_at, back)

    def _tell(self, sent_at: float, back: HeartbeatBack) -> None:
        if not self._stop.is_set():
            self._heard(sent_at, back)


class _Line:
    """A blocking connection to another broker. Raises OSError and MalformedFrame."""

    def __init__(self, to: Endpoint, timeout_s: float) -> None:
        self.to = to
        self._socket = socket.create_connection((to.host, to.port), timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._correlation = 0

    def prove(self, secret: bytes, rng: Random) -> None:
        nonce = rng.randbytes(NONCE_BYTES)
        back = self.ask(Hello(nonce))
        if (
            not isinstance(back, HelloBack)
            or len(back.nonce) != NONCE_BYTES
            or not is_proof(back.proof, proof_of_asked(secret, nonce, back.nonce))
        ):
            self.close()
            raise ConnectionError("it does not know this cluster's secret")
        if not isinstance(self.ask(Prove(proof_of_asking(secret, nonce, back.nonce))), Proved):
            self.close()
            raise ConnectionError("it does not take our proof")

    def ask(self, request: Request) -> Answer:
        self._correlation += 1
        self._socket.sendall(encode_request(self._correlation, request))
        (size,) = _SIZE.unpack(self._receive(_SIZE.size))
        if not 0 <= size <= LARGEST_ANSWER_BYTES:
            raise MalformedFrame(f"an answer of {size} bytes")
        correlation, answer = decode_answer(self._receive(size))
        if correlation != self._correlation:
            raise MalformedFrame(f"answer {correlation} to question {self._correlation}")
        return answer

    def _receive(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            more = self._socket.recv(count - len(received))
            if not more:
                raise ConnectionResetError("closed by the other broker")
            received += more
        return received

    def close(self) -> None:
        self._socket.close()
