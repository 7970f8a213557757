"""Requests as a client builds them, by kafka-python's own structs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from protocol.messages import FetchRequest, ProduceRequest

PRODUCE, FETCH = 0, 1


def produce(
    records: Sequence[tuple[str, int, bytes | bytearray | None]],
    *,
    acks: int = -1,
    timeout_ms: int = 30_000,
    transactional_id: str | None = None,
) -> Any:
    """records: (topic, partition, record set)."""
    topic_type = ProduceRequest.TopicProduceData
    topics = [
        topic_type(
            name=name,
            partition_data=[
                topic_type.PartitionProduceData(
                    index=index, records=None if data is None else bytes(data)
                )
            ],
        )
        for name, index, data in records
    ]
    return ProduceRequest(
        transactional_id=transactional_id, acks=acks, timeout_ms=timeout_ms, topic_data=topics
    )


def fetch(
    wanted: Sequence[tuple[str | UUID, int, int]],
    *,
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 50 << 20,
    partition_max_bytes: int = 1 << 20,
    session: tuple[int, int] = (0, -1),
    last_fetched_epoch: int = -1,
    current_leader_epoch: int = -1,
) -> Any:
    """wanted: (topic, partition, offset). session: id and epoch."""
    topic_type = FetchRequest.FetchTopic
    topics = []
    for topic, index, offset in wanted:
        partition = topic_type.FetchPartition(
            partition=index,
            current_leader_epoch=current_leader_epoch,
            fetch_offset=offset,
            last_fetched_epoch=last_fetched_epoch,
            log_start_offset=-1,
            partition_max_bytes=partition_max_bytes,
        )
        named: dict[str, Any] = {"topic_id": topic} if isinstance(topic, UUID) else {"topic": topic}
        topics.append(topic_type(partitions=[partition], **named))
    return FetchRequest(
        replica_id=-1,
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=0,
        session_id=session[0],
        session_epoch=session[1],
        topics=topics,
        forgotten_topics_data=[],
        rack_id="",
    )
