"""Who claims what is newest asks first whether this broker still leads."""

from __future__ import annotations

from broker.request_context import RequestContext
from objectstore.errors import StoreError
from protocol.errors import ErrorCode, KafkaError


class ConfirmedLeader:
    """Of one request: asked when a partition needs it, and then at most once."""

    def __init__(self, ctx: RequestContext) -> None:
        self._ctx = ctx
        self._error: KafkaError | None = None

    async def confirm(self) -> None:
        """Raises KafkaError NOT_LEADER_OR_FOLLOWER: it does not, or nobody knows."""
        if self._error is None:
            try:
                await self._ctx.services.confirmation.confirm()
            except KafkaError as error:
                self._error = error
            except StoreError as error:
                self._error = KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, detail=str(error))
        if self._error is not None:
            raise self._error
