"""Brokers of one bucket among each other: they join, decide, are missed, succeed and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from broker.api.config_resources import ConfigsApi
from broker.api.configs import _Metadata
from broker.api.loggers import PythonLoggers
from broker.config.load import load
from broker.controller import NewTopic, StartRefused
from broker.node import Node
from objectstore.drivers.memory import MemoryStore
from objectstore.store import Chunks, ObjectInfo
from protocol.errors import KafkaError
from protocol.messages import IncrementalAlterConfigsRequest
from tests.simulation.loop import start_on
from wal.errors import Fenced

from .fleet import SESSION_TIMEOUT_S, Fleet, run


async def three(fleet: Fleet) -> None:
    for number in (1, 2, 3):
        await fleet.start(number)


def test_brokers_join_through_the_controller_and_all_know_all() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        image = fleet.node(1).controller.image
        assert image.term == 0, "a broker that joins ends no term"
        await fleet.until(lambda: all(n.controller.image == image for n in fleet.nodes()), 2)
        assert [b.node_id for b in image.live_brokers()] == [1, 2, 3]
        assert [n.controller.owns_term for n in fleet.nodes()] == [True, False, False]

    run(body)


@pytest.mark.parametrize("seed", range(5))
def test_brokers_that_start_at_the_same_time_make_one_cluster(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await asyncio.gather(*(fleet.start(number) for number in (1, 2, 3)))
        nodes = fleet.nodes()
        assert [n.controller.owns_term for n in nodes].count(True) == 1
        await fleet.until(
            lambda: all(len(n.controller.image.live_brokers()) == 3 for n in nodes), 5
        )
        assert len({n.controller.image.cluster_id for n in nodes}) == 1

    run(body, seed)


@pytest.mark.parametrize("order", [(1, 2, 3), (2, 3, 1), (3, 2)])
def test_after_all_were_killed_those_that_start_again_have_everything(
    order: tuple[int, ...],
) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=1)
        for number in (1, 2, 3):
            await start_on(
                fleet.names[number],
                _append(fleet, number, fleet.node(number).partitions.all()[0].index),
            )
        for number in (1, 2, 3):
            fleet.crash(number)
        await asyncio.gather(*(fleet.start(number) for number in order))
        live = set(order)
        await fleet.until(lambda: set(fleet.leaders(order[0])) <= live and fleet.is_open("t"), 20)
        marks = [p.high_watermark for n in fleet.nodes() for p in n.partitions.all()]
        assert sorted(marks) == [0, 0, 0, 1, 1, 1]
        assert not fleet.ended

    run(body)


def test_a_topic_made_through_any_broker_is_led_by_all_of_them() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        topic = await fleet.topic(through=3)
        known = fleet.node(3).controller.image.topics["t"]
        assert known.topic_id == topic.topic_id, "who asked knows it at once"
        assert sorted(fleet.leaders(3)) == [1, 1, 2, 2, 3, 3]
        await fleet.until(lambda: all(len(n.partitions.all()) == 2 for n in fleet.nodes()), 5)
        await fleet.until(
            lambda: not any(p.is_new for _, p in fleet.node(1).controller.image.partitions()), 5
        )

    run(body)


def test_what_the_controller_refuses_is_refused_to_who_asked_elsewhere() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=1)
        asked = fleet.node(2).controller.create_topics([NewTopic("t"), NewTopic("bad/name")])
        there, bad = await start_on(fleet.names[2], asked)
        assert isinstance(there, KafkaError) and there.code.name == "TOPIC_ALREADY_EXISTS"
        assert isinstance(bad, KafkaError) and bad.code.name == "INVALID_TOPIC_EXCEPTION"
        firsts = [
            await start_on(fleet.names[n], fleet.node(n).controller.allocate_producer_ids())
            for n in (1, 2, 3, 2)
        ]
        assert len({first for first, _ in firsts}) == 4, "no block is given out twice"

    run(body)


def test_two_brokers_that_append_to_one_list_at_once_both_do() -> None:
    async def append(fleet: Fleet, number: int, word: str) -> None:
        services = fleet.node(number).services
        view = _Metadata(services)
        api = ConfigsApi(view, view, PythonLoggers(), asyncio.Lock())
        entry = IncrementalAlterConfigsRequest.AlterConfigsResource.AlterableConfig(
            name="leader.replication.throttled.replicas", config_operation=2, value=word
        )
        resource = IncrementalAlterConfigsRequest.AlterConfigsResource(
            resource_type=2, resource_name="t", configs=[entry]
        )
        request = IncrementalAlterConfigsRequest(resources=[resource], validate_only=False)
        answer = await api.incremental_alter(request, 1)
        assert [r.error_code for r in answer.responses] == [0]

    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=1)
        words = {f"{n}:{m}" for n in (1, 2, 3) for m in range(4)}
        for m in range(4):
            both = [start_on(fleet.names[n], append(fleet, n, f"{n}:{m}")) for n in (1, 2, 3)]
            await asyncio.gather(*both)
        configs = fleet.node(1).controller.image.topics["t"].configs
        kept = configs["leader.replication.throttled.replicas"]
        assert set(kept.split(",")) == words

    run(body)


def test_a_dead_broker_is_missed_and_what_it_led_goes_to_all_others() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=1)
        partition = next(p for p in fleet.node(3).partitions.all())
        appended = start_on(fleet.names[3], _append(fleet, 3, partition.index))
        await appended
        fleet.crash(3)
        took = await fleet.until(lambda: set(fleet.leaders(1)) == {1, 2}, 10)
        assert took < SESSION_TIMEOUT_S + 1
        leaders = fleet.leaders(1)
        assert leaders.count(1) == leaders.count(2) == 3
        successor = leaders[partition.index]
        node = fleet.node(successor)
        await fleet.until(lambda: node.partitions.get("t", partition.index) is not None, 5)
        taken = node.partitions.get("t", partition.index)
        assert taken is not None and taken.high_watermark == 1 and taken.leader_epoch == 1

    run(body)


async def _append(fleet: Fleet, number: int, index: int) -> None:
    partition = fleet.node(number).partitions.get("t", index)
    assert partition is not None
    await partition.append_internal([(b"k", b"v")])[1]


@pytest.mark.parametrize("seed", range(5))
def test_a_dead_controller_is_succeeded_and_its_partitions_are_led_on(seed: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=2)
        await start_on(fleet.names[1], _append(fleet, 1, fleet.leaders(1).index(1)))
        fleet.crash(1)
        took = await fleet.until(lambda: any(n.controller.owns_term for n in fleet.nodes()), 10)
        assert took < SESSION_TIMEOUT_S + 2, "at work within 2 s after suspicion"
        await fleet.until(lambda: set(fleet.leaders(2)) == {2, 3} == set(fleet.leaders(3)), 5)
        assert [n.controller.owns_term for n in fleet.nodes()].count(True) == 1
        images = [node.controller.image for node in fleet.nodes()]
        assert [b.node_id for b in images[0].live_brokers()] == [2, 3], "only the silent is fenced"
        await fleet.topic(through=3, name="after")
        await fleet.topic(through=2, name="after-that")

    run(body, seed)


@pytest.mark.parametrize("sleeper", [1, 3])
def test_a_broker_that_slept_joins_anew_and_serves_nothing_as_what_it_was(sleeper: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=1)
        old = fleet.node(sleeper)
        incarnation = old.controller.incarnation
        fleet.loop.pause(fleet.names[sleeper])
        other = 2
        await fleet.until(lambda: sleeper not in fleet.leaders(other), 15)
        fleet.loop.resume(fleet.names[sleeper])
        await fleet.until(lambda: fleet.lives[sleeper].rejoined == 1, 15)
        await fleet.until(lambda: fleet.node(sleeper).is_ready, 15)
        assert fleet.node(sleeper) is not old
        assert fleet.node(sleeper).controller.incarnation > incarnation
        assert fleet.node(sleeper).controller.node_id == sleeper
        assert old.partitions.all() == []
        image = fleet.node(other).controller.image
        await fleet.until(lambda: len(fleet.node(other).controller.image.live_brokers()) == 3, 5)
        assert image.incarnations[incarnation].fenced
        assert not fleet.ended

    run(body)


def test_a_process_that_was_replaced_by_its_own_node_id_ends() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        sleeper = fleet.names[3]
        fleet.loop.pause(sleeper)
        await asyncio.sleep(0.5)
        fleet.network.kill(sleeper)  # its port is free for the next one
        old = fleet.lives.pop(3)
        newer = await fleet.start(3)
        fleet.loop.resume(sleeper)
        await fleet.until(lambda: 3 in fleet.ended, 10)
        assert isinstance(fleet.ended[3], Fenced)
        assert old.rejoined == 0
        assert newer.is_ready

    run(body)


def test_a_second_process_of_a_running_node_is_refused_by_the_controller() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        with pytest.raises(StartRefused, match=r"node 3 .* h3:9092.*--take-over"):
            await fleet.start(3, listeners="PLAINTEXT://h9:9092")
        assert fleet.node(3).is_ready

    run(body)


@pytest.mark.parametrize(
    "listeners", ["A://h1:9092", "A://h1:9092@nowhere:1", "A://h1:9092@h1b:9093,B://h1b:9093"]
)
def test_a_broker_alone_that_comes_back_at_its_address_waits_for_nobody(listeners: str) -> None:
    async def body(fleet: Fleet) -> None:
        settings = {"listeners": listeners}
        first = await fleet.start(1, **settings)
        fleet.crash(1)
        began = fleet.loop.time()
        environment = replace(first.environment, network=fleet.network.at("h1"))
        sets = [f"{key}={value}" for key, value in settings.items()]
        node = Node(load(sets=sets).config, environment)
        await start_on("again", node.start())
        assert node.controller.node_id == 1
        assert fleet.loop.time() - began < SESSION_TIMEOUT_S
        await start_on("again", node.abort())

    run(body)


def test_brokers_find_each_other_at_the_listener_that_is_for_that() -> None:
    async def body(fleet: Fleet) -> None:
        for number in (1, 2):
            await fleet.start(
                number,
                listeners=f"PLAINTEXT://h{number}:9092@elsewhere:1,INNER://h{number}:9093",
                inter_broker_listener_name="INNER",
            )
        await fleet.topic(through=2)
        assert sorted(fleet.leaders(2)) == [1, 1, 1, 2, 2, 2]
        with pytest.raises(StartRefused, match="there is no listener OUTER"):
            await fleet.start(3, inter_broker_listener_name="OUTER")

    run(body)


def test_a_controller_that_is_not_reached_is_named_and_the_bucket_tells_meanwhile(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        fleet.network.kill(fleet.names[1])  # its ports and connections, and nothing else
        await start_on(fleet.names[1], fleet.node(1).controller.create_topics([NewTopic("t", 6)]))
        known = lambda: "t" in fleet.node(3).controller.image.topics  # noqa: E731
        assert await fleet.until(known, 5) < SESSION_TIMEOUT_S

    run(body)
    assert "node 1, which decides, is not reached at h1:9092" in caplog.text


def test_without_a_node_id_the_lowest_free_one_is_given() -> None:
    async def body(fleet: Fleet) -> None:
        await fleet.start(1)
        await fleet.start(3)
        environment = replace(fleet.node(1).environment, network=fleet.network.at("h7"))
        node = Node(load(sets=["listeners=PLAINTEXT://h7:9092"]).config, environment)
        await start_on("n7", node.start())
        assert node.controller.node_id == 2
        await start_on("n7", node.abort())

    run(body)


@pytest.mark.parametrize("leaver", [1, 2])
def test_who_stops_in_good_order_need_not_be_missed(leaver: int) -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=1)
        await fleet.stop(leaver)
        rest = {1, 2, 3} - {leaver}
        took = await fleet.until(
            lambda: all(set(fleet.leaders(number)) == rest for number in rest), 10
        )
        assert took < SESSION_TIMEOUT_S

    run(body)


class CountingStore(MemoryStore):
    requests = 0

    async def create(self, key: str, chunks: Chunks) -> None:
        self.requests += 1
        await super().create(key, chunks)

    async def get(self, key: str) -> bytes:
        self.requests += 1
        return await super().get(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.requests += 1
        return await super().get_ranges(key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.requests += 1
        async for info in super().list(prefix, start_after):
            yield info


def test_a_cluster_at_rest_asks_the_store_nothing() -> None:
    async def body(fleet: Fleet) -> None:
        await three(fleet)
        await fleet.topic(through=2)
        await asyncio.sleep(2400)  # the housekeeping of what was done
        assert isinstance(fleet.store, CountingStore)
        before = fleet.store.requests
        await asyncio.sleep(1200)
        assert fleet.store.requests == before
        assert len(fleet.node(1).controller.image.live_brokers()) == 3

    run(body, store=lambda loop: CountingStore(loop.now_ms))
