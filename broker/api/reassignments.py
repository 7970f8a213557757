"""AlterPartitionReassignments (45, served 0-1), ListPartitionReassignments (46, 0).

v1 lets a request forbid another number of replicas. What an assignment means here: see
`controller.reassignment`.
"""

from __future__ import annotations

from typing import Any

from broker.controller.reassignment import Reassignment, Wish, carry_out, under_way
from broker.leadership import leader_node
from broker.request_context import RequestContext
from protocol.errors import KafkaError
from protocol.messages import (
    AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsResponse,
)
from s3stream.metadata.image import MetadataImage, PartitionImage


async def alter(ctx: RequestContext, request: Any, version: int) -> Any:
    """Begin moves, or cancel them; each partition has its own answer."""
    may_change_factor = version < 1 or request.allow_replication_factor_change
    wishes = [
        Wish(topic.name, partition.partition_index, partition.replicas)
        for topic in request.topics
        for partition in topic.partitions
    ]

    def shown(image: MetadataImage, partition: PartitionImage) -> int:
        racks = ctx.services.racks.racks
        return len(racks.replicas(partition.stream_id, leader_node(image, partition)))

    change = Reassignment(wishes, None if may_change_factor else shown)
    await carry_out(ctx.services.controller, change, request.timeout_ms / 1000)
    answers = iter(range(len(wishes)))
    told = AlterPartitionReassignmentsResponse.ReassignableTopicResponse
    response = AlterPartitionReassignmentsResponse(
        error_code=0,
        # Kafka's message is empty, not null, where nothing was asked.
        error_message=None if request.topics else "",
        responses=[
            told(
                name=topic.name,
                partitions=[
                    _answer(partition.partition_index, change.answers[next(answers)], version)
                    for partition in topic.partitions
                ],
                version=version,
            )
            for topic in request.topics
        ],
        version=version,
    )
    if version >= 1:
        response.allow_replication_factor_change = may_change_factor
    return response


def _answer(index: int, error: KafkaError | None, version: int) -> Any:
    told = AlterPartitionReassignmentsResponse.ReassignableTopicResponse
    return told.ReassignablePartitionResponse(
        partition_index=index,
        error_code=0 if error is None else int(error.code),
        error_message=None if error is None else error.message,
        version=version,
    )


async def list_ongoing(ctx: RequestContext, request: Any, version: int) -> Any:
    """Partitions that move, whoever asked for it; all of them, or those named that do."""
    asked = None
    if request.topics is not None:
        asked = {(topic.name, i) for topic in request.topics for i in topic.partition_indexes}
    ongoing = ListPartitionReassignmentsResponse.OngoingTopicReassignment
    topics: dict[str, Any] = {}
    for one in under_way(ctx.services.image):
        if asked is not None and (one.topic, one.index) not in asked:
            continue
        topic = topics.get(one.topic)
        if topic is None:
            topic = topics[one.topic] = ongoing(name=one.topic, partitions=[], version=version)
        topic.partitions.append(
            ongoing.OngoingPartitionReassignment(
                partition_index=one.index,
                replicas=[one.target, one.source],
                adding_replicas=[one.target],
                removing_replicas=[one.source],
                version=version,
            )
        )
    return ListPartitionReassignmentsResponse(
        error_code=0, error_message=None, topics=list(topics.values()), version=version
    )
