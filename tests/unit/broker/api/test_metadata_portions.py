"""A Metadata answer that was encoded in portions is byte by byte the one encoded at once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from broker.api.metadata_portions import (
    MOST_PARTITIONS,
    MOST_TOPICS,
    encoded_in_portions,
    in_portions,
)
from protocol import codec
from protocol.messages import MetadataResponse

Topic = MetadataResponse.MetadataResponseTopic
Partition = Topic.MetadataResponsePartition


def topic(number: int, version: int) -> Any:
    return Topic(
        error_code=0,
        name=f"topic-{number:05d}",
        topic_id=UUID(int=number + 1),
        is_internal=False,
        partitions=[
            Partition(
                error_code=0, partition_index=index, leader_id=number, leader_epoch=7,
                replica_nodes=[1, 2], isr_nodes=[1], offline_replicas=[], version=version,
            )
            for index in range(number % 4)
        ],
        version=version,
    )  # fmt: skip


def response(topics: list[Any], version: int) -> Any:
    brokers = [
        MetadataResponse.MetadataResponseBroker(
            node_id=1, host="h1", port=9092, rack="r", version=version
        )
    ]
    return MetadataResponse(
        brokers=brokers, cluster_id="the cluster", controller_id=1, topics=topics, version=version
    )


@pytest.mark.parametrize("version", range(14))
@pytest.mark.parametrize("count", [1, 126, 127, 250])
def test_portions_make_the_same_bytes(version: int, count: int) -> None:
    topics = [topic(number, version) for number in range(count)]
    portions = [topics[begin : begin + 60] for begin in range(0, count, 60)]
    raw = asyncio.run(
        encoded_in_portions((response(one, version) for one in [*portions, []]), count, version)
    )
    assert b"".join(raw.buffers) == codec.encode_response(response(topics, version), version)


def test_portions_keep_the_order_and_divide_no_topic() -> None:
    names = [f"t{number}" for number in range(1000)]
    sizes = {name: number % 90 for number, name in enumerate(names)}
    portions = list(in_portions(names, sizes.__getitem__))
    assert [name for portion in portions for name in portion] == names
    for portion in portions:
        assert 0 < len(portion) <= MOST_TOPICS
        assert sum(sizes[name] for name in portion[:-1]) < MOST_PARTITIONS
    assert list(in_portions(["large"], lambda _: 10_000)) == [["large"]]
    assert list(in_portions([], lambda _: 1)) == []


def test_others_go_on_between_two_portions() -> None:
    async def main() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        going_on = asyncio.create_task(other())
        portions = [[topic(number, 12)] for number in range(5)]
        await encoded_in_portions((response(one, 12) for one in [*portions, []]), 5, 12)
        going_on.cancel()
        assert turns >= 5

    asyncio.run(main())
