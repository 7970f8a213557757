"""OffsetForLeaderEpoch (key 23), served 2-4: where an epoch ended. Source: KIP-101, KIP-320."""

from __future__ import annotations

from typing import Any

from broker.request_context import RequestContext
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import OffsetForLeaderEpochResponse

from .confirmed_leader import ConfirmedLeader

_Topic = OffsetForLeaderEpochResponse.OffsetForLeaderTopicResult


async def handle(ctx: RequestContext, request: Any, version: int) -> Any:
    """One answer for each partition."""
    leader = ConfirmedLeader(ctx)
    topics = []
    for topic in request.topics:
        answers = []
        for wanted in topic.partitions:
            answer = _Topic.EpochEndOffset(
                error_code=0,
                partition=wanted.partition,
                leader_epoch=-1,
                end_offset=-1,
                version=version,
            )
            answers.append(answer)
            try:
                partition = ctx.services.partitions.leading(topic.topic, wanted.partition)
                partition.check_leader_epoch(wanted.current_leader_epoch)
                await leader.confirm()
                end = partition.end_offset_for_epoch(wanted.leader_epoch)
            except KafkaError as error:
                answer.error_code = int(error.code)
                continue
            answer.error_code = int(ErrorCode.NONE)
            answer.leader_epoch, answer.end_offset = end.epoch, end.end_offset
        topics.append(_Topic(topic=topic.topic, partitions=answers, version=version))
    return OffsetForLeaderEpochResponse(topics=topics, version=version)
