"""Which requests of a node go by which priority, and what metrics tell of caches and merging."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from broker.config.load import load
from broker.controller.topics import NewTopic
from broker.environment import Environment
from broker.node import Node
from objectstore.layers import LayeredStore
from objectstore.store import Chunks, ObjectStore
from objectstore.wrappers.passing import PassingStore
from objectstore.wrappers.priority import Priority
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import SimulatedNetwork
from tests.simulation.store import SimulatedStore

SETTINGS = {"auto.create.topics.enable": "false", "upload.trigger.age.ms": "1000"}


class Noting(PassingStore):
    """Notes the folder of each key that is written or read by one class."""

    def __init__(self, inner: ObjectStore, priority: Priority, seen: set[tuple[str, str]]) -> None:
        super().__init__(inner)
        self.name = priority.name
        self.seen = seen

    async def create(self, key: str, chunks: Chunks) -> None:
        self.seen.add((self.name, f"write {key.partition('/')[0]}"))
        await self.inner.create(key, chunks)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.seen.add((self.name, f"read {key.partition('/')[0]}"))
        return await self.inner.get_ranges(key, ranges)


def environment(loop: SimulatedLoop, store: LayeredStore, host: str) -> Environment:
    return Environment(
        store=store,
        store_name="simulated",
        network=SimulatedNetwork(loop, Random(1)).at(host),
        now_ms=loop.now_ms,
        rng=Random(host),
    )


def test_the_log_goes_first_uploads_and_merges_last() -> None:
    loop = SimulatedLoop(1)
    seen: set[tuple[str, str]] = set()
    store = LayeredStore(SimulatedStore(loop, Random(7)), Random(2))
    for priority in Priority:
        store._classes[priority] = Noting(store.at(priority), priority, seen)

    async def main() -> None:
        node = Node(load(flags={}, sets=[f"{k}={v}" for k, v in SETTINGS.items()]).config,
                    environment(loop, store, "h1"))  # fmt: skip
        await node.start()
        await node.controller.create_topics([NewTopic("t", 1)])
        await node.services.settled()
        (partition,) = node.partitions.all()
        for _ in range(8):
            _, durable = partition.append_internal([(b"k", bytes(500))])
            await durable
            await node.storage.uploader.upload()
        compactor = node.upkeep.compactor
        assert compactor is not None
        while compactor.merges == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        node.storage.cache.shrink(0)
        await partition.read_records(0, 1 << 20)
        text = node.metrics.render().decode()
        assert "headwater_block_cache_store_requests_total 1" in text
        assert "headwater_space_amplification 1" in text
        assert "headwater_collector_deleted_objects_total 0" in text
        count = store.meter.snapshot().operations["create"].requests
        assert f'headwater_store_requests_total{{operation="create"}} {count}' in text
        await node.close()

    loop.run(main())
    writes = {one for one in seen if one[1].startswith("write")}
    assert writes == {("WAL", "write meta"), ("WAL", "write wal"), ("READ", "write probe"),
                      ("UPLOAD", "write data"), ("COMPACTION", "write data")}  # fmt: skip
    assert ("READ", "read data") in seen
