"""InitProducerId (key 22), served 0-6, for idempotence.

Transactions come later: a transactional id is refused at once with an error that ends the
producer, so that nobody waits for a coordinator that does not exist.
"""

from __future__ import annotations

from typing import Any

from broker.request_context import RequestContext
from protocol.errors import ErrorCode
from protocol.messages import InitProducerIdResponse

MAX_EPOCH = 2**15 - 1


async def handle(ctx: RequestContext, request: Any, version: int) -> Any:
    """A producer id nobody had before; its epoch is 0."""
    if request.transactional_id is not None:
        code = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
        if not request.transactional_id:
            code = ErrorCode.INVALID_REQUEST
        return _answer(code, -1, -1, version)
    wanted_id, wanted_epoch = request.producer_id, request.producer_epoch
    if version >= 3 and (wanted_id >= 0) != (wanted_epoch >= 0):
        return _answer(ErrorCode.INVALID_REQUEST, -1, -1, version)
    producer_id = await ctx.services.producer_ids.next()
    return _answer(ErrorCode.NONE, producer_id, 0, version)


def _answer(code: ErrorCode, producer_id: int, epoch: int, version: int) -> Any:
    return InitProducerIdResponse(
        error_code=int(code), producer_id=producer_id, producer_epoch=epoch, version=version
    )
