"""All brokers and all local disks are gone, the bucket is left: one broker brings it all back."""

from __future__ import annotations

import asyncio

from broker.verify import Acknowledged, verify

from .brokers import Brokers, busy_cluster, run


async def everything_is_there(brokers: Brokers) -> None:
    for (topic, index), values in brokers.acknowledged.items():
        assert await brokers.contents(topic, index) == values, (topic, index)
    for group, offsets in brokers.committed.items():
        assert await brokers.offsets_of(group) == offsets, group


def test_one_broker_on_the_bucket_serves_all_that_three_had_acknowledged() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        led_by = {
            partition.leader
            for _, partition in next(iter(brokers.nodes.values())).controller.image.partitions()
        }
        assert len(led_by) == 3, "each of the three had something to lose"
        acknowledged = [
            Acknowledged(topic, index, len(values) - 1)
            for (topic, index), values in brokers.acknowledged.items()
        ]
        await asyncio.gather(*(brokers.kill(one) for one in list(brokers.nodes)))
        await verify(brokers.store, against=acknowledged)
        await brokers.start(7)
        await everything_is_there(brokers)
        await brokers.produce("t", 1, 3)
        await verify(brokers.store, against=acknowledged)

    run(body)
