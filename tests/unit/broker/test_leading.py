"""What a broker opens of what the image gives it."""

from __future__ import annotations

from random import Random

import pytest

from broker.config.load import load
from broker.controller.topics import NewTopic
from broker.environment import Environment
from broker.node import Node
from objectstore.errors import Corrupt
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import SimulatedNetwork
from tests.simulation.store import SimulatedStore


def test_only_what_the_image_calls_new_is_opened_empty() -> None:
    loop = SimulatedLoop(1)
    store = SimulatedStore(loop, Random(7))
    network = SimulatedNetwork(loop, Random(1)).at("h1")

    async def main() -> None:
        config = load(sets=["listeners=h1:9092"]).config
        node = Node(config, Environment(store, "simulated", network, loop.now_ms, Random(1)))
        await node.start()
        await node.controller.create_topics([NewTopic("t", 2)])
        await node.services.settled()
        leading, registry = node._leading, node.storage.registry
        assert leading is not None
        lost, kept = sorted(registry.entries)
        for stream_id in (lost, kept):
            leading._close(stream_id)
        del registry.entries[lost]  # as if our log had let go of it by mistake
        with pytest.raises(Corrupt, match=rf"streams \[{lost}\]"):
            await leading.reconcile()
        assert [one.stream.stream_id for one in node.partitions.all()] == [kept]
        assert lost not in registry
        await node.abort()

    loop.run(main())
