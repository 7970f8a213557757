"""Consumers of another rack than the leader's are served by a broker of theirs."""

from __future__ import annotations

import asyncio

import pytest

from broker.racks.asking import UNREAD_S
from broker.racks.followed import STALE_AFTER_S
from objectstore.errors import StoreUnavailable
from objectstore.store import ObjectStore
from tests.simulation.loop import start_on
from tests.unit.broker.cluster.fleet import Fleet

from .reader import RackReader, append, code, in_racks

LEADER_ONLY = "org.apache.kafka.common.replica.LeaderSelector"


async def sent_to(fleet: Fleet, index: int, rack: str = "b", node: int = 2) -> RackReader:
    reader = RackReader(fleet, rack, index=index)
    await reader.until(lambda: reader.served_by[-1:] == [node])
    return reader


@pytest.mark.parametrize("seed", range(3))
def test_a_consumer_is_sent_to_its_rack_and_reads_everything_there(seed: int) -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 5, index=index)
        reader = await sent_to(fleet, index)
        await append(fleet, 1, 5, index=index)
        await reader.until(lambda: reader.position == 10)
        assert reader.read == list(range(10))
        assert reader.served_by[-1] == 2
        served = fleet.node(2).services.racks
        assert served.bytes_by_rack["same"] > 0 and served.bytes_by_rack["other"] == 0
        text = fleet.node(2).metrics.render().decode()
        assert f'{{rack="same"}} {served.bytes_by_rack["same"]}\n' in text

    in_racks("a", "b", "c", body=body, seed=seed)


def test_the_answer_that_sends_away_comes_at_once_without_records_and_in_a_session() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, index=index)
        reader = await sent_to(fleet, index)
        began = fleet.loop.time()
        told = await reader.fetch(1, 1, max_wait_ms=30_000, session=(0, 0))
        assert fleet.loop.time() - began < 1
        assert (told.preferred_read_replica, told.records or b"") == (2, b"")
        assert code(told) == "NONE" and (told.high_watermark, told.log_start_offset) == (1, 0)
        # Nothing changed since, and still it is told.
        told = await reader.fetch(1, 1, max_wait_ms=30_000, session=(reader.session_id, 1))
        assert told is not None and told.preferred_read_replica == 2
        # What the other broker was not told yet, or nobody has, is answered here.
        told = await reader.fetch(1, 9)
        assert code(told) == "OFFSET_OUT_OF_RANGE" and told.preferred_read_replica == -1

    in_racks("a", "b", body=body)


@pytest.mark.parametrize("rack", ["a", "", "nowhere"])
def test_who_is_in_the_leaders_rack_or_in_none_reads_from_the_leader(rack: str) -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 3, index=index)
        reader = RackReader(fleet, rack, index=index)
        await reader.until(lambda: reader.position == 3)
        for _ in range(20):
            await reader.poll()
        assert set(reader.served_by) == {1}
        kind = {"a": "same", "": "unknown", "nowhere": "other"}[rack]
        assert fleet.node(1).services.racks.bytes_by_rack[kind] > 0

    in_racks("a", "b", body=body)


def test_without_racks_or_by_the_leader_selector_nobody_is_sent_anywhere() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        reader = RackReader(fleet, "b", index=index)
        await append(fleet, 1, 3, index=index)
        for _ in range(30):
            await reader.poll()
        assert set(reader.served_by) == {1} and reader.position == 3

    async def plain(fleet: Fleet, index: int) -> None:
        await body(fleet, index)
        told = await RackReader(fleet, "b", index=index).metadata()
        assert told.replica_nodes == told.isr_nodes == [1]
        assert code(await RackReader(fleet, "b", index=index).fetch(2)) == "NOT_LEADER_OR_FOLLOWER"

    in_racks(None, None, body=plain)
    in_racks("a", "b", body=body, replica_selector_class=LEADER_ONLY)


def test_metadata_names_the_serving_brokers_as_replicas_and_their_racks() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        told = await RackReader(fleet, "", index=index).metadata()
        assert told.leader_id == 1
        assert told.replica_nodes == told.isr_nodes == [1, 3, 4]
        assert list(told.offline_replicas) == []

    in_racks("a", "a", "b", "c", body=body)


def test_what_comes_while_a_consumer_waits_wakes_it() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        reader = await sent_to(fleet, index)
        waiting = asyncio.create_task(reader.fetch(2, max_wait_ms=9_000))
        await asyncio.sleep(5)
        assert not waiting.done()
        began = fleet.loop.time()
        await append(fleet, 1, index=index)
        told = await waiting
        assert told.records and fleet.loop.time() - began < 0.2
        assert code(told) == "NONE" and told.high_watermark == told.last_stable_offset == 1

    in_racks("a", "b", body=body)


def test_a_serving_broker_answers_as_a_follower_does() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 3, index=index)
        reader = await sent_to(fleet, index)
        assert code(await reader.fetch(2, 4)) == "OFFSET_NOT_AVAILABLE"
        assert code(await reader.fetch(2, 0, epoch=0)) == "NONE"
        assert code(await reader.fetch(2, 0, epoch=1)) == "UNKNOWN_LEADER_EPOCH"
        assert code(await reader.fetch(2, -5)) == "OFFSET_OUT_OF_RANGE"
        partition = fleet.node(1).partitions.get("t", index)
        assert partition is not None
        await start_on(fleet.names[1], partition.delete_records(2))
        await fleet.until(lambda: partition.log_start_offset == 2, 5)
        while code(told := await reader.fetch(2, 0)) == "NONE":
            pass  # until it has heard of it
        assert code(told) == "OFFSET_OUT_OF_RANGE"
        assert code(told := await reader.fetch(2, 2)) == "NONE" and told.log_start_offset == 2

    in_racks("a", "b", body=body)


def test_who_is_neither_leader_nor_chosen_in_the_rack_does_not_serve() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, index=index)
        reader = RackReader(fleet, "b", index=index)
        _, chosen = (await reader.metadata()).replica_nodes
        assert code(await reader.fetch(chosen, 0)) == "NONE"
        for other in {2, 3, 4} - {chosen}:
            assert code(await reader.fetch(other, 0)) == "NOT_LEADER_OR_FOLLOWER"
        # Who knows of no racks, or is in another, takes it for the leader.
        for rack in ("", "a", "c"):
            lost = RackReader(fleet, rack, index=index)
            assert code(await lost.fetch(chosen, 0)) == "NOT_LEADER_OR_FOLLOWER"

    in_racks("a", "b", "b", None, body=body)


def test_who_comes_to_a_serving_broker_that_knows_nothing_is_answered_once_it_has_asked() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 3, index=index)
        reader = RackReader(fleet, "b", index=index)
        told = await reader.fetch(2, 1)
        assert code(told) == "NONE" and told.records and told.high_watermark == 3

    in_racks("a", "b", body=body)


def test_while_nobody_reads_no_broker_asks_another() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        asked: list[float] = []
        telling = fleet.node(1).services.racks._telling
        follow = telling.follow

        async def counted(request: object) -> object:
            asked.append(fleet.loop.time())
            return await follow(request)  # type: ignore[arg-type]

        for handlers in [fleet.node(1)._peers._handlers]:  # type: ignore[union-attr]
            for kind in [k for k in handlers if k.__name__ == "FollowReads"]:
                handlers[kind] = counted  # type: ignore[assignment]
        await asyncio.sleep(60)
        assert not asked
        await append(fleet, 1, 3, index=index)
        reader = await sent_to(fleet, index)
        await reader.until(lambda: reader.position == 3)
        assert asked
        left = fleet.loop.time()
        await asyncio.sleep(60)
        assert fleet.node(2).services.racks.followed == 0
        assert max(asked) < left + UNREAD_S + 2

    in_racks("a", "b", body=body)


def test_cut_off_from_the_leader_the_end_is_not_claimed_and_what_is_known_is_served() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 3, index=index)
        reader = await sent_to(fleet, index)
        await reader.until(lambda: reader.position == 3)
        fleet.network.block("h2", "h1", 600)
        fleet.network.block("h1", "h2", 600)
        await append(fleet, 1, 2, index=index)
        await asyncio.sleep(STALE_AFTER_S + 0.1)
        assert code(await reader.fetch(2, 3)) == "NOT_LEADER_OR_FOLLOWER"
        told = await reader.fetch(2, 1)
        assert code(told) == "NONE" and told.records and told.high_watermark == 3
        # Nobody is sent to who cannot ask.
        await asyncio.sleep(STALE_AFTER_S)
        told = await reader.fetch(1, 3)
        assert told.preferred_read_replica == -1 and told.records

    in_racks("a", "b", body=body, broker_session_timeout_ms="60000")


@pytest.mark.parametrize("then", ["gone", "another's"])
def test_objects_that_the_leader_let_go_of_are_found_where_their_records_lie_now(then: str) -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 20, index=index)
        reader = RackReader(fleet, "b", index=index)
        await reader.fetch(1, 20)
        # Told of log objects, and nothing was read.
        await fleet.until(lambda: fleet.node(2).services.racks.followed == 1, 5)
        followed = fleet.node(2).services.racks.find("b", "t", index)
        assert followed is not None
        await fleet.until(lambda: followed.high_watermark == 20, 5)
        assert followed.told._entry is not None
        told = {one.object.key for one in followed.told._entry.ranges}
        assert len(told) == 20
        leader = fleet.node(1)
        await start_on(fleet.names[1], leader.storage.uploader.upload())
        stream = leader.partitions.leading("t", index).stream
        now = {one.object.key for one in stream.entry.ranges}
        assert not told & now
        await fleet.store.delete(sorted(told))
        if then == "another's":
            for key in told:
                await fleet.store.create(key, [b"HW" * 500])
        reader.served_by.append(2)
        reader.position = 0
        await reader.until(lambda: reader.position == 20, polls=5)
        assert reader.read == list(range(20)) and set(reader.served_by) == {2}

    in_racks("a", "b", body=body)


def test_what_the_store_lost_sends_the_consumer_to_the_leader() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 3, index=index)
        stream = fleet.node(1).partitions.leading("t", index).stream
        await fleet.store.delete(sorted(one.object.key for one in stream.entry.ranges))
        reader = RackReader(fleet, "b", index=index)
        assert code(await reader.fetch(2, 0)) == "NOT_LEADER_OR_FOLLOWER"
        assert code(await reader.fetch(1, 0)) == "NONE", "the leader has them in memory"

    in_racks("a", "b", body=body)


def test_a_reader_goes_on_where_leadership_moves() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 5, index=index)
        reader = await sent_to(fleet, index)
        image = fleet.node(1).controller.image
        stream_id = image.topics["t"].partitions[index].stream_id
        target = fleet.node(3).controller.incarnation
        moving = fleet.node(1).controller.move_leaders({stream_id: target})
        await start_on(fleet.names[1], moving)
        await fleet.until(lambda: fleet.node(3).partitions.get("t", index) is not None, 10)
        await append(fleet, 3, 5, index=index)
        await reader.until(lambda: reader.position == 10)
        assert reader.read == list(range(10))
        told = await reader.fetch(2, 3)
        assert code(told) == "NONE" and told.records
        assert code(await reader.fetch(2, 3, epoch=0)) == "FENCED_LEADER_EPOCH"
        assert code(await reader.fetch(2, 3, epoch=1)) == "NONE"

    in_racks("a", "b", "c", body=body)


def test_while_the_leader_is_away_what_is_known_is_served_and_then_what_comes_after() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 5, index=index)
        reader = await sent_to(fleet, index)
        await reader.until(lambda: reader.position == 5)
        fleet.crash(1)
        for _ in range(10):
            told = await reader.fetch(2, 2)
            assert code(told) == "NONE" and told.records and told.high_watermark == 5
            await asyncio.sleep(0.5)
        await fleet.until(lambda: fleet.leaders(2)[index] in (2, 3), 20)
        successor = fleet.leaders(2)[index]
        await fleet.until(lambda: fleet.node(successor).partitions.get("t", index) is not None, 10)
        await append(fleet, successor, 5, index=index)
        await reader.until(lambda: reader.position == 10)
        assert reader.read == list(range(10))

    in_racks("a", "b", "c", body=body)


def test_another_broker_of_the_rack_takes_its_share_over_without_a_gap() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 5, index=index)
        reader = await sent_to(fleet, index)
        await fleet.start(3, broker_rack="b")
        await fleet.stop(2)
        await append(fleet, 1, 5, index=index)
        await reader.until(lambda: reader.position == 10 and reader.served_by[-1] == 3)
        assert reader.read == list(range(10))

    in_racks("a", "b", body=body)


class Failing:
    """A store that gives nothing: at once, or never."""

    def __init__(self, inner: ObjectStore, *, hangs: bool) -> None:
        self._inner = inner
        self._hangs = hangs

    async def get(self, *args: object) -> bytes:
        if self._hangs:
            await asyncio.sleep(3600)
        raise StoreUnavailable("cut off")

    get_range = get_ranges = get


@pytest.mark.parametrize("hangs", [False, True])
def test_a_serving_broker_that_cannot_read_sends_to_the_leader_which_keeps_them(
    hangs: bool,
) -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 5, index=index)
        reader = await sent_to(fleet, index)
        await reader.until(lambda: reader.position == 5)
        storage = fleet.node(2).storage
        well = storage.reader._store
        cut: ObjectStore = Failing(well, hangs=hangs)  # type: ignore[assignment]
        storage.reader._store = storage.reader._indexes._store = cut
        await append(fleet, 1, 5, index=index)
        await reader.until(lambda: reader.position == 10)
        assert reader.served_by[-1] == 1
        for _ in range(10):
            await reader.poll()
        assert reader.served_by[-10:] == [1] * 10
        storage.reader._store = storage.reader._indexes._store = well
        await append(fleet, 1, 5, index=index)
        await reader.until(lambda: reader.served_by[-1] == 2 and reader.position == 15)
        assert reader.read == list(range(15))

    in_racks("a", "b", body=body)
