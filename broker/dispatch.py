"""From a frame to its handler and back: header, version check, decoding, errors, encoding."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from objectstore.store import Buffer
from protocol import codec
from protocol.api_versions import SERVED, ApiKey, is_served
from protocol.errors import ErrorCode, KafkaError, MalformedFrame
from protocol.fetch import decode_fetch
from protocol.header import RequestHeader, decode_request_header, encode_response_header
from protocol.produce import decode_produce

from .api.errors import error_response
from .connection import Connection
from .outcome import CloseConnection, Deferred, Outcome, WhenDone
from .request_context import Later, LaterDone, Raw, RequestContext
from .services import Services

log = logging.getLogger(__name__)

ApiHandler = Callable[[RequestContext, Any, int], Awaitable[Any]]

_SIZE = struct.Struct(">i")


class Dispatcher:
    """The one place where a request finds its handler."""

    def __init__(self, services: Services, handlers: Mapping[ApiKey, ApiHandler]) -> None:
        missing = sorted(set(SERVED) - set(handlers))
        assert not missing, f"advertised without a handler: {missing}"
        self._services = services
        # By the number itself: an enumeration's member costs more to make than to look up.
        self._handlers: dict[int, ApiHandler] = {int(key): one for key, one in handlers.items()}

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        """See connection.Handler."""
        header = decode_request_header(frame)
        metrics = self._services.metrics
        started = asyncio.get_running_loop().time()
        metrics.request_received(header.api_key, len(frame))
        context = RequestContext(self._services, connection, header)
        request: Any = None
        try:
            if is_served(header.api_key, header.api_version):
                request = _decode(header, frame)
                handler = self._handlers[header.api_key]
                result = await handler(context, request, header.api_version)
            else:
                result = await self._refuse(context)
        except KafkaError as error:
            result = self._error(header, request, error)
        except (MalformedFrame, CloseConnection, asyncio.CancelledError):
            raise
        except Exception:
            log.exception(
                "request %s v%s of %s failed", header.api_key, header.api_version, header.client_id
            )
            unforeseen = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
            result = self._error(header, request, unforeseen)
        if isinstance(result, LaterDone):
            finish = partial(self._finish_now, header, result.finish, started)
            return WhenDone(result.until, result.deadline, finish)
        if isinstance(result, Later):
            return Deferred(self._finish(header, result, started))
        metrics.request_answered(header.api_key, asyncio.get_running_loop().time() - started)
        return self._encode(header, result)

    async def _refuse(self, context: RequestContext) -> Any:
        key, version = context.header.api_key, context.header.api_version
        if key == ApiKey.API_VERSIONS:
            # KIP-511: the answer is version 0 with what is served, the body is not read.
            return await self._handlers[ApiKey.API_VERSIONS](context, None, 0)
        raise MalformedFrame(f"API {key} version {version} is not served")

    def _error(self, header: RequestHeader, request: Any, error: KafkaError) -> Any:
        response = error_response(header.api_key, header.api_version, request, error)
        if response is None:
            raise CloseConnection(
                f"API {header.api_key} has no answer to say {error.code.name} in"
            ) from error
        return response

    async def _finish(
        self, header: RequestHeader, later: Later, started: float
    ) -> list[Buffer] | None:
        result = await later.finish
        self._services.metrics.request_answered(
            header.api_key, asyncio.get_running_loop().time() - started
        )
        return self._encode(header, result)

    def _finish_now(
        self, header: RequestHeader, finish: Callable[[], Raw], started: float
    ) -> list[Buffer] | None:
        result = finish()
        self._services.metrics.request_answered(
            header.api_key, asyncio.get_running_loop().time() - started
        )
        return self._encode(header, result)

    def _encode(self, header: RequestHeader, result: Any) -> list[Buffer] | None:
        if result is None:
            return None
        version = header.api_version
        if header.api_key == ApiKey.API_VERSIONS and not is_served(header.api_key, version):
            version = 0
        buffers: list[Buffer]
        if isinstance(result, Raw):
            buffers = result.buffers
        else:
            buffers = [codec.encode_response(result, version)]
        head = encode_response_header(header.api_key, version, header.correlation_id)
        size = len(head) + sum(len(b) for b in buffers)
        self._services.metrics.bytes_sent(header.api_key, size + 4)
        if len(buffers) == 1 and size < 16 * 1024:
            # One small write is cheaper than two.
            return [_SIZE.pack(size) + head + bytes(buffers[0])]
        return [_SIZE.pack(size) + head, *buffers]


def _decode(header: RequestHeader, frame: memoryview) -> Any:
    key, version = header.api_key, header.api_version
    body = frame[header.body_position :]
    if key == ApiKey.PRODUCE:
        return decode_produce(body, version)
    if key == ApiKey.FETCH:
        return decode_fetch(body, version)
    return codec.decode_request(key, version, body)
