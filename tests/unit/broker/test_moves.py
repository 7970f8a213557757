"""Planned moves between brokers that share one controller's decisions, whoever dies in the middle.

Each broker here is what `Node` makes of storage, leading and partitions, without its network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

import broker.controller.balance
import broker.controller.moves
from broker.config.load import load
from broker.confirmation import Confirmation
from broker.controller import Controller, NewTopic, Recovered
from broker.coordinator import GroupConfig, GroupCoordinator
from broker.leading import Leading
from broker.partition.partition import Partition
from broker.partition.partitions import Partitions
from broker.verify import verify
from objectstore.store import ObjectStore
from objectstore.wrappers.retry import PATIENT, RetryStore
from protocol import record_batch
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata import records as r
from s3stream.metadata.apply import apply
from s3stream.metadata.features import HEADWATER_VERSION
from s3stream.metadata.image import IncarnationState, MetadataImage
from s3stream.metadata.records import BlobRef, Position
from s3stream.node_log import StreamStorage
from s3stream.takeover import recover, write_recovery_object
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import FAIR, ROUGH, SimulatedStore, Weather
from tests.unit.broker.controller.cluster import identity, new_controller
from tests.unit.broker.node_rig import batch
from tests.unit.s3stream.test_handoff import TINY
from wal.errors import LogError
from wal.keys import parse_data_key
from wal.seal import LogEnd

WINDOW = 4


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Seat:
    """One broker's view of the controller, which may change under it."""

    def __init__(self, cluster: Cluster, incarnation: int) -> None:
        self._cluster = cluster
        self.incarnation = incarnation
        self.subscribers: list[Callable[[MetadataImage, MetadataImage], None]] = []
        self.reports_lost = False

    @property
    def image(self) -> MetadataImage:
        return self._cluster.image

    def subscribe(self, subscriber: Callable[[MetadataImage, MetadataImage], None]) -> None:
        self.subscribers.append(subscriber)

    async def opened(self, streams: Sequence[tuple[int, int]]) -> None:
        if self.reports_lost:
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        await self._cluster.controller.opened(streams, self.incarnation)

    async def handed_over(self, move: int, contents: BlobRef) -> None:
        if self.reports_lost:
            raise KafkaError(ErrorCode.REQUEST_TIMED_OUT)
        await self._cluster.controller.handed_over(move, contents)


class Member:
    """A broker: its log, and what it leads."""

    def __init__(self, cluster: Cluster, incarnation: int) -> None:
        loop, rng = cluster.loop, Random(incarnation)
        self.incarnation = incarnation
        self.seat = Seat(cluster, incarnation)
        self.storage = StreamStorage(
            cluster.store, incarnation, WINDOW, TINY, rng=rng, now_ms=loop.now_ms
        )
        self.partitions = Partitions()
        config = load(sets=["listeners=h1:9092"]).config
        self.leading = Leading(
            self.seat,  # type: ignore[arg-type]
            self.storage,
            Confirmation(self.storage, 3.0),
            self.partitions,
            GroupCoordinator(GroupConfig(), loop.now_ms, rng),
            lambda: config,
            loop.now_ms,
            rng,
        )
        self.tasks: list[asyncio.Task[None]] = [
            loop.create_task(self.storage.run()),
            loop.create_task(self.leading.run()),
        ]

    async def kill(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.storage.abort()


class Cluster:
    """acknowledged: values by partition, in order."""

    def __init__(self, loop: SimulatedLoop, store: ObjectStore, rng: Random) -> None:
        self.loop = loop
        self.store = store
        self.rng = rng
        self.members: dict[int, Member] = {}
        self.controller: Controller
        self.image = MetadataImage()
        self.acknowledged: dict[int, int] = {}
        self._deciding: asyncio.Task[None] | None = None
        self._controllers = 0

    # The controller and its brokers

    async def begin_term(self) -> None:
        """A new process decides, and is one more broker."""
        self._controllers += 1
        self.controller = new_controller(
            self.store, identity(99 + self._controllers), seed=self._controllers
        )
        self.controller.subscribe(self._tell)
        # Whoever is there answers, and so is not fenced by the election.
        self.controller._election._answers = self._answers
        await self.controller.start()
        self._tell(self.image, self.controller.image)
        self._deciding = asyncio.create_task(self.controller.run())
        incarnation = self.controller.incarnation
        self.members[incarnation] = Member(self, incarnation)
        await self.controller.finish_failovers(self._recover)

    async def _answers(self, one: Any, cluster_id: str) -> bool:
        return one.incarnation in self.members

    def _tell(self, old: MetadataImage, new: MetadataImage) -> None:
        if new.position <= self.image.position:
            return
        self.image = new
        for member in self.members.values():
            for subscriber in member.seat.subscribers:
                subscriber(old, new)

    async def end_term(self) -> None:
        """The process that decides dies."""
        incarnation = self.controller.incarnation
        if incarnation in self.members:
            await self.kill(incarnation)
        deciding = self._deciding
        assert deciding is not None
        deciding.cancel()
        await asyncio.gather(deciding, return_exceptions=True)
        await self.controller.abort()

    async def join(self, level: int = 2) -> Member:
        incarnation = self.controller.planned().next_incarnation
        node_id = incarnation + 1
        await self.controller.decide(
            (r.BrokerRegistered(node_id, incarnation, b"%d" % node_id, WINDOW, (), level=level),)
        )
        member = self.members[incarnation] = Member(self, incarnation)
        return member

    async def kill(self, incarnation: int) -> None:
        await self.members.pop(incarnation).kill()

    async def fail_over(self, incarnation: int) -> None:
        await self.controller.decide((r.IncarnationFenced(incarnation),))
        await self.controller.finish_failovers(self._recover)

    async def _recover(self, state: IncarnationState, ended: LogEnd) -> Recovered:
        recovered = await recover(self.store, state.incarnation, ended.end)
        if not recovered.entries:
            return Recovered({}, None)
        maker = self.members[self.controller.incarnation].storage
        blobs = await write_recovery_object(recovered, maker.object_writer)
        made = (parse_data_key(blob.key) for blob in blobs)
        maker.numbers.settle([one[1] for one in made if one is not None])
        opened = {one: Position(*recovered.entries[one].appointment) for one in recovered.entries}
        return Recovered(opened, blobs[0])

    # What tests do

    def leader_of(self, index: int) -> int:
        return self.image.topics["t"].partitions[index].leader

    def partition(self, index: int) -> Partition | None:
        member = self.members.get(self.leader_of(index))
        return None if member is None else member.partitions.get("t", index)

    async def open(self, index: int) -> Partition:
        await until(lambda: self.partition(index) is not None)
        found = self.partition(index)
        assert found is not None
        return found

    async def settled(self) -> None:
        """Nothing moves, and every opening is recorded."""

        def is_settled() -> bool:
            places = self.image.partitions()
            return not self.image.moves and all(
                p.source is None and not p.is_new for _, p in places
            )

        await until(is_settled)
        for index in range(len(self.image.topics["t"].partitions)):
            await self.open(index)

    async def produce(self, index: int, count: int = 1) -> None:
        """Until acknowledged, as an idempotent client does."""
        for _ in range(count):
            sequence = self.acknowledged.get(index, 0)
            while True:
                partition = await self.open(index)
                data = memoryview(batch(1, b"%d" % sequence, producer=(index, 0, sequence)))
                try:
                    header = record_batch.check_produced(data, 9)
                    durable = partition.append_as_leader(data, header).durable
                    if durable is not None:
                        await durable
                    break
                except (KafkaError, LogError):
                    await asyncio.sleep(0.01)
            self.acknowledged[index] = sequence + 1

    async def check(self) -> None:
        await self.settled()
        for index, count in sorted(self.acknowledged.items()):
            partition = await self.open(index)
            found: list[bytes | None] = []
            offset = partition.log_start_offset
            while offset < partition.high_watermark:
                records, offset = await partition.read_records(offset, 1 << 20)
                found += [one.value for one in records]
            assert found == [b"%d" % n for n in range(count)], index
        await verify(self.store)

    async def move(self, target: int, *indexes: int) -> list[int]:
        partitions = self.image.topics["t"].partitions
        return await self.controller.move_leaders(
            {partitions[index].stream_id: target for index in indexes}
        )


def play(
    body: Callable[[Cluster], Awaitable[None]],
    *,
    seed: int = 1,
    weather: Weather = FAIR,
    members: int = 3,
    partitions: int = 4,
) -> None:
    loop = SimulatedLoop(seed)

    async def main() -> None:
        store = RetryStore(SimulatedStore(loop, Random(seed), weather), Random(seed), PATIENT)
        cluster = Cluster(loop, store, Random(f"moves {seed}"))
        await cluster.begin_term()
        for _ in range(members):
            await cluster.join()
        # The controller, which comes first, gets the first partition, so none of the next two.
        for topic in (NewTopic("first", 1), NewTopic("t", partitions)):
            (made,) = await cluster.controller.create_topics([topic])
            assert not isinstance(made, KafkaError), made
        try:
            await cluster.settled()
            await body(cluster)
        finally:
            for incarnation in list(cluster.members):
                await cluster.kill(incarnation)
            await cluster.end_term()

    # Nothing moves but what the test moves.
    with patch.object(broker.controller.balance, "SETTLE_S", 1e6):
        loop.run(main())


def other_than(cluster: Cluster, incarnation: int) -> int:
    """A broker that is neither that one nor the controller."""
    deciding = cluster.controller.incarnation
    return min(one for one in cluster.members if one not in (incarnation, deciding))


def test_a_move_loses_nothing_and_the_old_leader_lets_go() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        target = other_than(cluster, old)
        epoch = cluster.image.topics["t"].partitions[0].leader_epoch
        (number,) = await cluster.move(target, 0)
        assert number in cluster.image.moves
        await cluster.check()
        after = cluster.image.topics["t"].partitions[0]
        assert (after.leader, after.leader_epoch, after.source) == (target, epoch + 1, None)
        assert not cluster.image.handoffs
        await cluster.produce(0, 5)
        await cluster.check()
        assert after.stream_id not in cluster.members[old].storage.registry

    play(body)


def test_the_old_leader_answers_not_leader_from_the_moment_it_knows() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0)
        old = cluster.leader_of(0)
        partition = await cluster.open(0)
        await cluster.move(other_than(cluster, old), 0)
        with pytest.raises(KafkaError, match="NOT_LEADER"):
            cluster.members[old].partitions.leading("t", 0)
        assert partition.closed
        await cluster.check()

    play(body)


def test_many_partitions_move_in_both_directions_at_once() -> None:
    async def body(cluster: Cluster) -> None:
        for index in range(12):
            await cluster.produce(index, 2)
        assignment = {
            p.stream_id: other_than(cluster, p.leader) for _, p in cluster.image.partitions()
        }
        await cluster.controller.move_leaders(assignment)
        await cluster.check()
        for _, partition in cluster.image.partitions():
            assert partition.leader == assignment[partition.stream_id]

    play(body, partitions=12)


def test_a_source_that_dies_before_its_closing_is_failed_over() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        target = other_than(cluster, old)
        member = cluster.members.pop(old)  # hears nothing of the move
        await cluster.move(target, 0)
        await member.kill()
        await cluster.fail_over(old)
        assert not cluster.image.moves
        await cluster.produce(0, 5)
        await cluster.check()

    play(body)


@pytest.mark.parametrize("also_target", [False, True])
def test_a_source_that_dies_after_its_closing_holds_nothing_up(also_target: bool) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        target = other_than(cluster, old)
        receiver = cluster.members[target]
        stream_id = cluster.image.topics["t"].partitions[0].stream_id
        receiver.seat.subscribers.clear()  # does not open yet
        await cluster.move(target, 0)
        await until(lambda: cluster.leader_of(0) == target)
        assert cluster.image.handoffs[stream_id].source == old
        await cluster.kill(old)
        await cluster.fail_over(old)
        assert cluster.image.handoffs[stream_id].source == old
        if also_target:
            await cluster.kill(target)
            await cluster.fail_over(target)
            assert cluster.leader_of(0) not in (old, target)
        else:
            receiver.seat.subscribe(receiver.leading._image_changed)
            receiver.leading._image_changed(MetadataImage(), cluster.image)
        await cluster.produce(0, 5)
        await cluster.check()

    play(body)


@pytest.mark.parametrize("target_opened", [False, True])
def test_a_target_that_dies_before_its_opening_is_recorded_is_failed_over(
    target_opened: bool,
) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        target = other_than(cluster, old)
        receiver = cluster.members[target]
        receiver.seat.reports_lost = True
        if not target_opened:
            receiver.seat.subscribers.clear()
        await cluster.move(target, 0)
        await until(lambda: cluster.leader_of(0) == target)
        if target_opened:
            await cluster.produce(0, 3)
        place = cluster.image.topics["t"].partitions[0]
        assert place.source == old
        await cluster.kill(target)
        await cluster.fail_over(target)
        after = cluster.image.topics["t"].partitions[0]
        assert after.leader_epoch == place.leader_epoch + 1
        await cluster.produce(0, 5)
        await cluster.check()

    play(body)


def test_a_move_whose_source_does_not_answer_is_cancelled_and_the_source_leads_on() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        cluster.members[old].seat.reports_lost = True  # it closes, and nobody hears of it
        (number,) = await cluster.move(other_than(cluster, old), 0)
        await asyncio.sleep(broker.controller.moves.MOVE_TIMEOUT_S + 1)
        assert number not in cluster.image.moves and cluster.leader_of(0) == old
        cluster.members[old].seat.reports_lost = False
        await cluster.produce(0, 5)
        await cluster.check()
        # What it told of the closing counts for nothing now.
        await cluster.controller.handed_over(number, BlobRef("wal/x", bytes(16), 1))
        assert cluster.leader_of(0) == old

    play(body)


def test_a_source_that_dies_after_a_cancelled_move_is_failed_over() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        source = cluster.members[old]
        source.seat.reports_lost = True
        (number,) = await cluster.move(other_than(cluster, old), 0)
        await asyncio.sleep(1)
        source.seat.subscribers.clear()  # never opens it again
        await cluster.controller.cancel_moves([number])
        await cluster.kill(old)
        await cluster.fail_over(old)
        await cluster.produce(0, 5)
        await cluster.check()

    play(body)


def test_a_move_to_a_broker_that_is_fenced_is_cancelled() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        target = other_than(cluster, old)
        cluster.members[old].seat.reports_lost = True
        await cluster.move(target, 0)
        await cluster.kill(target)
        await cluster.fail_over(target)
        cluster.members[old].seat.reports_lost = False
        await cluster.settled()
        assert cluster.leader_of(0) == old
        await cluster.produce(0, 5)
        await cluster.check()

    play(body)


@pytest.mark.parametrize("closed", [False, True])
def test_the_next_controller_finishes_what_is_pending(closed: bool) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        target = other_than(cluster, old)
        source = cluster.members[old]
        source.seat.reports_lost = True
        if not closed:
            source.seat.subscribers.clear()
        (number,) = await cluster.move(target, 0)
        await asyncio.sleep(0.5)
        await cluster.end_term()
        await cluster.begin_term()
        assert number in cluster.image.moves
        source.seat.reports_lost = False
        if not closed:
            source.seat.subscribe(source.leading._image_changed)
            source.leading._image_changed(MetadataImage(), cluster.image)
        await cluster.check()
        assert cluster.leader_of(0) == target

    play(body)


def test_a_move_whose_end_waits_for_the_store_is_not_cancelled_in_a_busy_loop() -> None:
    async def body(cluster: Cluster) -> None:
        watch = cluster.controller._moves
        old = cluster.leader_of(0)
        cluster.members[old].seat.reports_lost = True
        (number,) = await cluster.move(other_than(cluster, old), 0)
        planned = cluster.controller.planned()
        ended = apply(planned, r.MoveCancelled(number), Position(9, 9, 9))
        # As if the record of its end were on its way, and the store away for a minute.
        with patch.object(watch, "_planned", lambda: ended):
            await asyncio.sleep(60)
        assert number in cluster.image.moves
        cluster.members[old].seat.reports_lost = False

    play(body)


def test_a_topic_that_is_deleted_while_it_moves_leaves_nothing() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.produce(0, 5)
        old = cluster.leader_of(0)
        cluster.members[old].seat.reports_lost = True
        await cluster.move(other_than(cluster, old), 0, 1)
        await cluster.controller.delete_topics([cluster.image.topics["t"].topic_id])
        cluster.members[old].seat.reports_lost = False
        await until(lambda: not cluster.image.moves and not cluster.image.handoffs)
        held = [one.storage.registry.entries for one in cluster.members.values()]
        await until(lambda: sum(map(len, held)) == 1)  # that of the other topic

    play(body)


def test_moves_wait_for_the_level_of_the_cluster() -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.controller.set_feature_level(HEADWATER_VERSION, 1)
        with pytest.raises(KafkaError, match="kafka-features"):
            await cluster.move(other_than(cluster, cluster.leader_of(0)), 0)
        await cluster.controller.set_feature_level(HEADWATER_VERSION, 2)

    play(body)


@pytest.mark.parametrize("weather", [FAIR, ROUGH], ids=["fair", "rough"])
@pytest.mark.parametrize("seed", range(10))
def test_moves_deaths_and_controllers_in_any_order_lose_nothing(
    seed: int, weather: Weather
) -> None:
    async def body(cluster: Cluster) -> None:
        rng = cluster.rng
        stop = asyncio.Event()

        async def client(index: int) -> None:
            while not stop.is_set():
                await cluster.produce(index)
                await asyncio.sleep(rng.uniform(0.0, 0.2))

        clients = [asyncio.create_task(client(index)) for index in range(4)]
        for _ in range(25):
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.05, 0.3, 2.0)))
            what = rng.random()
            live = sorted(cluster.members)
            others = [one for one in live if one != cluster.controller.incarnation]
            if what < 0.65:
                target = rng.choice(live)
                await cluster.move(target, *(i for i in range(4) if rng.random() < 0.6))
            elif what < 0.75 and len(others) > 1:
                dead = rng.choice(others)
                await cluster.kill(dead)
                await asyncio.sleep(rng.choice((0.0, 0.1, 1.0)))
                await cluster.fail_over(dead)
            elif what < 0.85 and len(live) < 5:
                await cluster.join()
            elif what < 0.92:
                await cluster.controller.cancel_moves(sorted(cluster.image.moves))
            elif what < 0.97:
                seat = cluster.members[rng.choice(live)].seat
                seat.reports_lost = not seat.reports_lost
            else:
                await cluster.end_term()
                await cluster.begin_term()
        for member in cluster.members.values():
            member.seat.reports_lost = False
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*clients)
        await cluster.check()

    with patch.object(broker.controller.moves, "STREAMS_PER_MOVE", 2):
        play(body, seed=seed, weather=weather)
