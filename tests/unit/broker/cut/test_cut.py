"""A bucket that lacks objects, after a cut: what was before the first fault is there, no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from broker.cut import Plan, cut, plan
from broker.verify import verify
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import StoreUnavailable
from objectstore.store import Chunks
from objectstore.wrappers.passing import PassingStore
from s3stream.control import Checkpoint, decode_control
from wal.format import Kind, decode_header, parse_object
from wal.keys import LogName, meta_log, parse_log, wal_log

from .brokers import Brokers, busy_cluster, deaths, lively, run


def objects_of(store: MemoryStore) -> list[tuple[str, bytes]]:
    """By the time at which they came to be, the oldest first."""
    found = sorted(store._objects.items(), key=lambda one: (one[1][1], one[0]))
    return [(key, data) for key, (data, _) in found]


def test_a_cut_of_a_whole_bucket_loses_nothing() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        await brokers.kill_all()
        kept = await cut(brokers.store, brokers.rng, brokers.loop.now_ms)
        assert (kept.losses, kept.log_faults, kept.metadata.fault) == ([], [], None)
        assert (await verify(brokers.store)).unsealed == ()
        await brokers.start(2)
        for place, values in brokers.acknowledged.items():
            assert await brokers.contents(*place) == values
        for group, offsets in brokers.committed.items():
            assert await brokers.offsets_of(group) == offsets
        await brokers.produce("u", 0, 3)
        await verify(brokers.store)

    run(body)


# The same examples each time, and no search for a smaller one: each is a cluster's life.
FEW = settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])


def is_home(key: str, value: bytes) -> bool:
    """Of what was told or held by older objects, which rounds of deletion may have removed."""
    if log_of(key) is None:
        return key.startswith("data/")
    if decode_header(value, key).kind is not Kind.LOG:
        return False
    controls = parse_object(value, key).index.controls
    return any(isinstance(decode_control(one, key), Checkpoint) for one in controls)


def log_of(key: str) -> LogName | None:
    log = parse_log(key)
    return log if log is not None and log.family == "wal" else None


class Written:
    """A dead cluster's bucket, and what it had acknowledged. life: after `busy_cluster`."""

    def __init__(self, life: Callable[[Brokers], Awaitable[None]]) -> None:
        self.objects: list[tuple[str, bytes]] = []
        self.written_ms: dict[str, int] = {}
        self.collected = 0
        self.only_homes: set[str] = set()
        self.cluster: Brokers

        async def body(brokers: Brokers) -> None:
            await busy_cluster(brokers, settings={"collector.round.interval.ms": "1000"})
            await life(brokers)
            self.objects = objects_of(brokers.store)
            self.collected = brokers.deleted
            self.only_homes = {key for key, value in self.objects if is_home(key, value)}
            self.written_ms = {key: at for key, (_, at) in brokers.store._objects.items()}
            self.cluster = brokers

        run(body)


@cache
def written() -> Written:
    return Written(deaths)


@cache
def written_by_many() -> Written:
    return Written(lively)


def offsets(one: Plan) -> list[tuple[str, int, int, int | None]]:
    """Without the reasons: where something was missing there is a seal by then."""
    return [(at.topic, at.partition, at.from_offset, at.end_offset) for at in one.losses]


def flipped(value: bytes, position: int | None) -> bytes:
    if position is None:
        return value
    position %= len(value)
    return value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]


def starts_after_a_cut(
    missing: set[str], damaged: dict[str, int] | None = None, before: Written | None = None
) -> None:
    """Without these objects: nothing wrong is served, and nothing older than they is lost.

    damaged: byte that is flipped in an object, from its beginning or end.
    """
    before = before or written()
    damaged = damaged or {}
    hit = {*missing, *damaged}
    first_ms = min((before.written_ms[key] for key in hit), default=2**62)
    if before.collected and any(key in before.only_homes for key in hit):
        first_ms = 0  # what was put into it is nowhere else any more

    async def body(brokers: Brokers) -> None:
        for key, value in before.objects:
            if key not in missing:
                brokers.store.put_now(key, [flipped(value, damaged.get(key))])
        planned = await plan(brokers.store)
        kept = await cut(brokers.store, brokers.rng, brokers.loop.now_ms)
        assert offsets(kept) == offsets(planned)
        assert (await verify(brokers.store)).unsealed == ()
        await brokers.start(5)
        lost = {(one.topic, one.partition) for one in kept.losses}
        for place, values in before.cluster.acknowledged.items():
            if not any(place[0] == topic.name for topic in kept.image.topics.values()):
                assert first_ms <= before.cluster.acknowledged_ms[place][0]
                continue
            start, served = await brokers.served(*place)
            end = start + len(served)
            assert served == values[start:end], place
            least = sum(at < first_ms for at in before.cluster.acknowledged_ms[place])
            assert end >= least, place
            assert hit or (place not in lost and end == len(values))
            brokers.acknowledged[place] = values[:end]
            await brokers.produce(*place)
            assert len(await brokers.contents(*place)) == len(served) + 1
        for group in ("g0", "g1"):
            for (topic, index), offset in (await brokers.offsets_of(group)).items():
                assert offset in before.cluster.ever_committed[group, topic, index]
        await verify(brokers.store)

    run(body)


def test_nothing_is_lost_where_nothing_is_missing() -> None:
    starts_after_a_cut(set())


@FEW
@given(st.data())
def test_whatever_newest_objects_are_missing_a_broker_starts_on_the_rest(
    data: st.DataObject,
) -> None:
    newest = [key for key, _ in written().objects][-60:]
    starts_after_a_cut(data.draw(st.sets(st.sampled_from(newest))))


@FEW
@given(st.data())
def test_whatever_is_missing_but_the_beginning_a_broker_starts_on_the_rest(
    data: st.DataObject,
) -> None:
    keys = [key for key, _ in written().objects][1:]
    starts_after_a_cut(data.draw(st.sets(st.sampled_from(keys), max_size=40)))


@FEW
@given(st.data())
def test_damaged_objects_are_no_better_than_missing_ones(data: st.DataObject) -> None:
    keys = [key for key, _ in written().objects][1:]
    places = st.integers(-60, 400)
    damaged = data.draw(st.dictionaries(st.sampled_from(keys), places, min_size=1, max_size=12))
    missing = data.draw(st.sets(st.sampled_from(keys), max_size=6))
    starts_after_a_cut(missing - damaged.keys(), damaged)


@FEW
@given(st.data())
def test_after_moves_trims_and_rounds_of_deletion_too(data: st.DataObject) -> None:
    before = written_by_many()
    assert before.collected > 100
    keys = [key for key, _ in before.objects if key != meta_log(0).key(0)]
    if data.draw(st.booleans()):
        keys = keys[-80:]
    starts_after_a_cut(data.draw(st.sets(st.sampled_from(keys), max_size=30)), before=before)


class Interrupted(Exception):
    """Not an error of a store: those are waited out."""


class StopsAfter(PassingStore):
    """So many creates happen; then the process dies."""

    def __init__(self, inner: MemoryStore, creates: int) -> None:
        super().__init__(inner)
        self.left = creates

    async def create(self, key: str, chunks: Chunks) -> None:
        if self.left == 0:
            raise Interrupted
        self.left -= 1
        await self.inner.create(key, chunks)


HOLES = (
    set[str](),
    {meta_log(0).key(12), wal_log(0).key(24), wal_log(1).key(22), wal_log(2).key(12)},
    {meta_log(1).key(1), wal_log(2).key(22)},
)


@pytest.mark.parametrize("missing", HOLES, ids=["whole", "with holes", "in what nobody ended"])
def test_a_cut_that_dies_after_any_write_is_made_again_with_the_same_result(
    missing: set[str],
) -> None:
    before = written()

    async def body(brokers: Brokers) -> None:
        def bucket() -> MemoryStore:
            store = MemoryStore(brokers.loop.now_ms)
            for key, value in before.objects:
                if key not in missing:
                    store.put_now(key, [value])
            return store

        whole = await cut(bucket(), brokers.rng, brokers.loop.now_ms)
        for creates in range(1000):
            store = bucket()
            try:
                await cut(StopsAfter(store, creates), brokers.rng, brokers.loop.now_ms)
            except Interrupted:
                kept = await cut(store, brokers.rng, brokers.loop.now_ms)
                assert (await verify(store)).unsealed == ()
                ends = {i: entry.next_offset for i, entry in kept.entries.items()}
                assert ends == {i: entry.next_offset for i, entry in whole.entries.items()}
            else:
                break
        assert creates > 12

    run(body)


def test_a_cluster_that_began_with_a_cut_is_cut_again() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers, count=3)
        for generation in range(3):
            await brokers.kill_all()
            await cut(brokers.store, brokers.rng, brokers.loop.now_ms)
            for node_id in (1, 2):
                await brokers.start(node_id)
            for place, values in list(brokers.acknowledged.items()):
                await brokers.produce(*place, 2)
                assert await brokers.contents(*place) == values
            await brokers.topic(f"made-{generation}", 2)
            await brokers.produce(f"made-{generation}", 1, 2)
        await brokers.kill_all()
        # The newest object of each log of the two is not there.
        image = (await plan(brokers.store)).image
        for broker in image.live_brokers():
            log = wal_log(broker.incarnation)
            keys = sorted(key for key in brokers.store._objects if log.seq_of(key) is not None)
            await brokers.store.delete(keys[-1:])
        await cut(brokers.store, brokers.rng, brokers.loop.now_ms)
        await verify(brokers.store)
        await brokers.start(3)
        for place, values in brokers.acknowledged.items():
            served = await brokers.contents(*place)
            assert served == values[: len(served)] and len(served) >= len(values) - 2

    run(body)


class Rough(PassingStore):
    """Every few requests fail, before or after they happened."""

    def __init__(self, inner: MemoryStore, rng: Random) -> None:
        super().__init__(inner)
        self._rng = rng

    async def create(self, key: str, chunks: Chunks) -> None:
        luck = self._rng.random()
        if luck < 0.1:
            raise StoreUnavailable(f"{key}: before")
        await self.inner.create(key, chunks)
        if luck < 0.2:
            raise StoreUnavailable(f"{key}: after")


def test_lost_replies_do_not_disturb_a_cut() -> None:
    async def body(brokers: Brokers) -> None:
        await busy_cluster(brokers)
        await brokers.kill_all()
        await cut(Rough(brokers.store, Random(3)), brokers.rng, brokers.loop.now_ms)
        assert (await verify(brokers.store)).unsealed == ()
        await brokers.start(4)
        for place, values in brokers.acknowledged.items():
            assert await brokers.contents(*place) == values

    run(body)
