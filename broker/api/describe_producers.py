"""DescribeProducers (key 61), served 0: who writes to a partition. Source: KIP-664."""

from __future__ import annotations

from typing import Any

from broker.controller.topics import check_name
from broker.request_context import RequestContext
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import DescribeProducersResponse

_UNKNOWN_TOPIC = "This server does not host this topic-partition."

_Topic = DescribeProducersResponse.TopicResponse
_Partition = _Topic.PartitionResponse


async def handle(ctx: RequestContext, request: Any, version: int) -> Any:
    """The producers of each partition, with their last sequence and time."""
    topics = []
    for topic in request.topics:
        answers = []
        for index in topic.partition_indexes:
            answer = _Partition(
                partition_index=index, error_code=0, active_producers=[], version=version
            )
            answers.append(answer)
            try:
                check_name(topic.name)
                if topic.name not in ctx.services.image.topics:
                    raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, _UNKNOWN_TOPIC)
                partition = ctx.services.partitions.leading(topic.name, index)
            except KafkaError as error:
                answer.error_code = int(error.code)
                answer.error_message = error.message
                continue
            partition.producers.expire(ctx.services.now_ms())
            answer.error_code = int(ErrorCode.NONE)
            answer.active_producers = [
                _Partition.ProducerState(
                    producer_id=entry.producer_id,
                    producer_epoch=entry.epoch,
                    last_sequence=entry.last_sequence,
                    last_timestamp=entry.last_timestamp_ms,
                    coordinator_epoch=entry.coordinator_epoch,
                    current_txn_start_offset=entry.txn_first_offset,
                    version=version,
                )
                for entry in partition.producers.entries()
            ]
        topics.append(_Topic(name=topic.name, partitions=answers, version=version))
    return DescribeProducersResponse(topics=topics, version=version)
