"""A controller over a store in memory, with everything around it under the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random

from broker.controller import Controller, Identity, Recovered, TopicDefaults
from objectstore.drivers.memory import MemoryStore
from objectstore.store import ObjectStore
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import BrokerRegistration, IncarnationState
from s3stream.metadata.records import Endpoint
from wal.seal import LogEnd

STORE_NAME = "memory"


class Rules:
    """Refuses the key `bad`, as the real rules refuse what they do not know."""

    def check_topic(self, name: str, configs: Mapping[str, str]) -> None:
        if "bad" in configs:
            raise KafkaError(ErrorCode.INVALID_CONFIG, "Unknown topic config name: bad")

    def check_broker(self, name: str, configs: Mapping[str, str]) -> None:
        self.check_topic(name, configs)


class Neighbours:
    """Which node ids answer when they are asked, and who was asked."""

    def __init__(self, *answering: int) -> None:
        self.answering = set(answering)
        self.asked: list[int] = []

    async def __call__(self, broker: BrokerRegistration, cluster_id: str) -> bool:
        self.asked.append(broker.node_id)
        return broker.node_id in self.answering


class StoreCheck:
    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1


def identity(
    node_id: int | None = None,
    *,
    port: int = 9092,
    take_over: bool = False,
    store: str = STORE_NAME,
) -> Identity:
    return Identity(
        node_id=node_id,
        take_over=take_over,
        listeners=(Endpoint("PLAINTEXT", "127.0.0.1", port),),
        store=store,
        wal_window=4,
    )


def new_store() -> MemoryStore:
    return MemoryStore(lambda: 1_700_000_000_000)


def new_controller(
    store: ObjectStore,
    who: Identity | None = None,
    *,
    seed: int = 1,
    neighbours: Neighbours | None = None,
    check_store: StoreCheck | None = None,
    snapshot_records: int = 1000,
) -> Controller:
    return Controller(
        store,
        who or identity(),
        rules=Rules(),
        defaults=lambda: TopicDefaults(partitions=2, replication_factor=1),
        answers=neighbours or Neighbours(),
        check_store=check_store or StoreCheck(),
        now_ms=lambda: 1_700_000_000_000,
        rng=Random(seed),
        snapshot_records=snapshot_records,
    )


@asynccontextmanager
async def started(controller: Controller) -> AsyncIterator[Controller]:
    await controller.start()
    try:
        yield controller
    finally:
        await asyncio.wait_for(controller.close(), 5)


async def nothing_recovered(state: IncarnationState, ended: LogEnd) -> Recovered:
    return Recovered({}, None)
