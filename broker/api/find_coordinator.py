"""FindCoordinator (key 10), served 0-6: which broker coordinates a group.

1 adds the key type, 4 asks for several keys at once, 6 knows share groups.
Key type 0 is a group. Type 1, a transaction, is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED
while this broker has no transactions: the one code that every client takes for final, where others
retry for ever. Type 2, a share group, and unknown types: INVALID_REQUEST, as Kafka answers without
share groups. Source: KIP-699, KIP-932.
"""

from __future__ import annotations

from typing import Any

from broker.api.group_context import Endpoint, GroupContext
from protocol.errors import ErrorCode
from protocol.messages import FindCoordinatorResponse

GROUP = 0
TRANSACTION = 1
SHARE = 2

_BATCHED_FROM = 4
_NOWHERE = Endpoint(-1, "", -1)
_MESSAGES = {
    ErrorCode.NONE: "NONE",
    ErrorCode.COORDINATOR_NOT_AVAILABLE: "The coordinator is not available.",
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "This broker has no transactions yet.",
    ErrorCode.INVALID_REQUEST: (
        "This most likely occurs because of a request being malformed by the client library or "
        "the message was sent to an incompatible broker. See the broker logs for more details."
    ),
}


async def handle(ctx: GroupContext, request: Any, version: int) -> Any:
    key_type = request.key_type if version >= 1 else GROUP
    if version < _BATCHED_FROM:
        error, endpoint = await _find(ctx, key_type, request.key)
        return FindCoordinatorResponse(
            error_code=error,
            error_message=_MESSAGES[error],
            node_id=endpoint.node_id,
            host=endpoint.host,
            port=endpoint.port,
        )
    coordinators = []
    for key in request.coordinator_keys:
        error, endpoint = await _find(ctx, key_type, key)
        # Kafka sends a word only with what it has no rule for.
        speaks = error == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED or (
            error == ErrorCode.INVALID_REQUEST and key_type != SHARE
        )
        coordinators.append(
            FindCoordinatorResponse.Coordinator(
                key=key,
                node_id=endpoint.node_id,
                host=endpoint.host,
                port=endpoint.port,
                error_code=error,
                error_message=_MESSAGES[error] if speaks else "",
            )
        )
    return FindCoordinatorResponse(coordinators=coordinators)


async def _find(ctx: GroupContext, key_type: int, key: str) -> tuple[ErrorCode, Endpoint]:
    if key_type == TRANSACTION:
        return ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, _NOWHERE
    if key_type != GROUP:
        return ErrorCode.INVALID_REQUEST, _NOWHERE
    endpoint = await ctx.group_coordinator(ctx.groups.partition_for(key))
    if endpoint is None:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE, _NOWHERE
    return ErrorCode.NONE, endpoint
