"""Whom a start replaces, and that one which is replaced meanwhile ends as fenced."""

from __future__ import annotations

import asyncio
from random import Random
from unittest.mock import patch

import pytest

import broker.failovers
from broker.config.load import load
from broker.controller import StartRefused
from broker.controller.answering import _request
from broker.controller.topics import NewTopic
from broker.environment import Environment
from broker.node import Node
from broker.outcome import CloseConnection
from objectstore.store import ObjectStore
from s3stream.takeover import RecoveredLog, recover
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import SimulatedNetwork
from tests.simulation.store import SimulatedStore
from wal import Fenced, wal_log

SETTINGS = ("node.id=1", "take.over=true", "auto.create.topics.enable=false", "listeners=h:9092")


def test_what_a_successor_let_be_collected_is_no_hole_to_who_was_replaced() -> None:
    loop = SimulatedLoop(1)
    network = SimulatedNetwork(loop, Random(1))
    store = SimulatedStore(loop, Random(7))

    def node(host: str) -> Node:
        sets = [one.replace("h:", f"{host}:") for one in SETTINGS]
        environment = Environment(store, "simulated", network.at(host), loop.now_ms, Random(host))
        return Node(load(sets=sets).config, environment)

    async def main() -> None:
        first = node("h1")
        await first.start()
        await first.controller.create_topics([NewTopic("t", 1)])
        await first.services.settled()
        (partition,) = first.partitions.all()
        await partition.append_internal([(b"k", b"v")])[1]
        await first.abort()

        held, go_on = asyncio.Event(), asyncio.Event()

        async def slow(store: ObjectStore, incarnation: int, end: int) -> RecoveredLog:
            held.set()
            await go_on.wait()
            return await recover(store, incarnation, end)

        second, third = node("h2"), node("h3")
        with patch.object(broker.failovers, "recover", slow):
            starting = asyncio.create_task(second.start())
            await held.wait()
        await third.start()
        await third.storage.uploader.upload()
        # As rounds of deletion do, once nothing of the old log is needed.
        log = wal_log(first.controller.incarnation)
        await store.inner.delete([log.key(seq) for seq in range(first.storage.wal.durable_seq)])
        go_on.set()
        with pytest.raises(Fenced, match="h3"):
            await starting
        (partition,) = third.partitions.all()
        assert partition.high_watermark == 1
        await third.close()

    loop.run(main())


def test_a_broker_that_answers_at_the_address_that_both_advertise_is_not_replaced_unasked() -> None:
    loop = SimulatedLoop(1)
    network = SimulatedNetwork(loop, Random(1))
    store = SimulatedStore(loop, Random(7))

    def node(host: str, *more: str) -> Node:
        sets = ["node.id=1", f"listeners={host}:9092@h1:9092", *more]
        environment = Environment(store, "simulated", network.at(host), loop.now_ms, Random(host))
        return Node(load(sets=sets).config, environment)

    async def main() -> None:
        first = node("h1")
        await first.start()
        with pytest.raises(StartRefused, match="h1:9092"):
            await node("h2").start()
        await first.abort()
        second = node("h2")
        await second.start()
        await second.close()

    loop.run(main())


def test_a_question_whether_it_answers_is_not_kept_waiting_by_a_broker_that_begins() -> None:
    loop = SimulatedLoop(1)
    network = SimulatedNetwork(loop, Random(1))
    environment = Environment(
        SimulatedStore(loop, Random(7)), "simulated", network.at("h"), loop.now_ms, Random(3)
    )

    async def main() -> None:
        beginning = Node(load(sets=list(SETTINGS)).config, environment)
        connection = beginning.server._new_connection("PLAINTEXT")
        with pytest.raises(CloseConnection):
            await beginning.handle(connection, memoryview(_request()[4:]))

    loop.run(main())
