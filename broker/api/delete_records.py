"""DeleteRecords (key 21), served 0-2: moves a log start. Source: KIP-107.

Answered when the new log start is durable.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from broker.request_context import RequestContext
from objectstore.errors import StoreError
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DeleteRecordsResponse

log = logging.getLogger(__name__)

_Topic = DeleteRecordsResponse.DeleteRecordsTopicResult


async def handle(ctx: RequestContext, request: Any, version: int) -> Any:
    """All partitions at once; each has its own error."""
    wanted = [(t.name, p.partition_index, p.offset) for t in request.topics for p in t.partitions]
    deadline = asyncio.get_running_loop().time() + max(request.timeout_ms, 0) / 1000
    results = await asyncio.gather(
        *(_delete(ctx, name, index, offset, deadline) for name, index, offset in wanted)
    )
    topics: dict[str, Any] = {}
    for (name, index, _), (low_watermark, code) in zip(wanted, results, strict=True):
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = _Topic(name=name, partitions=[], version=version)
        topic.partitions.append(
            _Topic.DeleteRecordsPartitionResult(
                partition_index=index,
                low_watermark=low_watermark,
                error_code=int(code),
                version=version,
            )
        )
    return DeleteRecordsResponse(topics=list(topics.values()), version=version)


async def _delete(
    ctx: RequestContext, topic: str, index: int, offset: int, deadline: float
) -> tuple[int, ErrorCode]:
    try:
        partition = ctx.services.partitions.leading(topic, index)
        if partition.internal:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
        if not partition.config.deletes:
            raise KafkaError(ErrorCode.POLICY_VIOLATION)
        async with asyncio.timeout_at(deadline):
            if offset > partition.high_watermark:
                # A leader that was replaced knows an old end only.
                await ctx.services.confirmation.confirm_anew()
            return await partition.delete_records(offset), ErrorCode.NONE
    except KafkaError as error:
        return -1, error.code
    except (StoreError, TimeoutError):
        return -1, ErrorCode.REQUEST_TIMED_OUT
