"""The asked side: requests of other brokers, at the listener that clients use too.

A connection that has not proved itself is served the proof and nothing else: any other request
closes it, as an unknown API key does.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from broker.connection import Connection
from broker.outcome import CloseConnection, Deferred, Outcome
from objectstore.errors import StoreError
from objectstore.store import Buffer
from protocol.errors import ErrorCode, KafkaError

from .channel import refusal_of
from .messages import Answer, Failed, Hello, HelloBack, NotController, Prove, Proved, Request
from .proof import NONCE_BYTES, is_proof, proof_of_asked, proof_of_asking
from .wire import decode_request, encode_answer

log = logging.getLogger(__name__)

R = TypeVar("R")
PeerHandler = Callable[[Any], Awaitable[Answer]]


@dataclass(slots=True)
class _State:
    """expected: the proof that the other side owes; None: it has said hello not yet."""

    expected: bytes | None = None
    proved: bool = False


class PeerServer:
    """secret: see `proof`; read when the first broker asks."""

    def __init__(self, secret: Callable[[], Awaitable[bytes]], rng: Random) -> None:
        self._secret = secret
        self._rng = rng
        self._handlers: dict[type[Any], PeerHandler] = {}
        self._states: WeakKeyDictionary[Connection, _State] = WeakKeyDictionary()

    def serve(self, request: type[R], handler: Callable[[R], Awaitable[Answer]]) -> None:
        """handler: raises KafkaError where it refuses."""
        assert request not in self._handlers, request
        self._handlers[request] = handler

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        """See connection.Handler."""
        correlation, request = decode_request(frame)
        state = self._states.setdefault(connection, _State())
        if isinstance(request, Hello):
            return [encode_answer(correlation, await self._hello(state, request))]
        if isinstance(request, Prove):
            return [encode_answer(correlation, self._prove(state, request))]
        if not state.proved:
            raise CloseConnection("a request between brokers without a proof")
        # Later: a connection goes on with its next request while this one waits.
        return Deferred(self._answer(correlation, request))

    async def _hello(self, state: _State, request: Hello) -> HelloBack:
        if len(request.nonce) != NONCE_BYTES or state.expected is not None:
            raise CloseConnection("no proper hello of a broker")
        nonce = self._rng.randbytes(NONCE_BYTES)
        try:
            secret = await self._secret()
        except StoreError as error:
            raise CloseConnection(f"the secret of the brokers cannot be read: {error}") from error
        state.expected = proof_of_asking(secret, request.nonce, nonce)
        return HelloBack(nonce, proof_of_asked(secret, request.nonce, nonce))

    def _prove(self, state: _State, request: Prove) -> Proved:
        expected = state.expected
        if expected is None or not is_proof(request.proof, expected):
            raise CloseConnection("a broker's proof that is none")
        state.proved = True
        return Proved()

    async def _answer(self, correlation: int, request: Request) -> list[Buffer]:
        handler = self._handlers.get(type(request))
        answer: Answer
        try:
            if handler is None:
                raise KafkaError(ErrorCode.NOT_CONTROLLER)
            answer = await handler(request)
        except KafkaError as error:
            if error.code is ErrorCode.NOT_CONTROLLER:
                answer = NotController()
            else:
                answer = Failed(refusal_of(error))
        except Exception:
            log.exception("%s of another broker failed", type(request).__name__)
            answer = Failed(refusal_of(KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)))
        return [encode_answer(correlation, answer)]
