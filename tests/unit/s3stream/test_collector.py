"""Whole rounds over a store in memory, with real logs, reports and recovery objects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from unittest.mock import patch
from uuid import UUID

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.store import Chunks
from s3stream.collector import Collector, RoundResult
from s3stream.compaction import CompactionConfig
from s3stream.compaction.compactor import Compactor
from s3stream.compaction.worker import InProcessRunner
from s3stream.config import S3StreamConfig
from s3stream.garbage import Candidate, EndedMaker, LiveMaker, garbage
from s3stream.metadata.image import (
    EMPTY_IMAGE,
    End,
    IncarnationState,
    MetadataImage,
    PartitionImage,
    Rounds,
    TopicImage,
    changed,
)
from s3stream.metadata.records import BEFORE_ALL, BlobRef
from s3stream.node_log import StreamStorage
from s3stream.references import ObjectNumbers
from s3stream.report import INLINE_KEYS, Reporter
from s3stream.stream import Stream
from s3stream.takeover import SourceRef, recover, write_recovery_object
from wal.format import BatchEntry, Kind, compose_blob
from wal.keys import data_key, wal_log
from wal.seal import end_log

from .log_rig import make_entry
from .stored_objects import batch, entry, put_object

WINDOW = 8


# The decision


def test_garbage_is_what_nothing_names_and_its_maker_settled() -> None:
    keys = [
        data_key(1, 4), data_key(1, 5), data_key(2, 9), data_key(3, 0),
        wal_log(1).key(3), wal_log(1).key(4), wal_log(2).key(7), wal_log(4).key(7),
        wal_log(2).end_key, "meta/00000000000000000000/00000000000000000000", "probe/x", "data/x",
    ]  # fmt: skip
    makers = {1: LiveMaker(5, 4), 2: EndedMaker(True), 4: EndedMaker(False)}
    found = garbage([Candidate(key, 9999) for key in keys], makers, {data_key(9, 9)})
    assert [one.key for one in found] == [
        data_key(1, 4), data_key(2, 9), wal_log(1).key(3), wal_log(2).key(7)
    ]  # fmt: skip
    assert garbage([Candidate(data_key(1, 4), 1)], makers, {data_key(1, 4)}) == []


# The rounds


class Cluster:
    """Live incarnations, a metadata log that is an image, and a collector."""

    def __init__(self) -> None:
        self.store = MemoryStore(lambda: 1_000_000)
        self.rng = Random(7)
        self.image: MetadataImage = changed(EMPTY_IMAGE, cluster_id="x")
        self.nodes: dict[int, StreamStorage] = {}
        self.reporters: dict[int, Reporter] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.silent: set[int] = set()
        self.on_begin: Callable[[], Awaitable[None]] | None = None
        self.answers: list[asyncio.Task[None]] = []
        self.collector = Collector(self.store, self, rng=self.rng)
        topic = TopicImage("t", UUID(int=1), False, 1, {}, ())
        self.image = changed(self.image, topics=self.image.topics.set("t", topic))

    # RoundLog

    async def begin_round(self) -> int:
        number = self.image.rounds.next_number
        self.image = changed(self.image, rounds=Rounds(number + 1, number, BEFORE_ALL))
        if self.on_begin is not None:
            await self.on_begin()
        for incarnation, reporter in self.reporters.items():
            if incarnation not in self.silent:
                self.answers.append(asyncio.create_task(reporter.answer(number)))
        return number

    async def end_round(self, number: int, *, abandoned: bool) -> None:
        assert self.image.rounds.open == number
        self.image = changed(self.image, rounds=Rounds(number + 1))

    # What happens in the cluster

    def state(self, incarnation: int, **fields: object) -> None:
        old = self.image.incarnations.get(incarnation)
        base = old or IncarnationState(incarnation, incarnation, WINDOW, False, None, None)
        values = {name: getattr(base, name) for name in base.__struct_fields__} | fields
        new = IncarnationState(**values)
        self.image = changed(self.image, incarnations=self.image.incarnations.set(incarnation, new))

    async def start(self, incarnation: int) -> StreamStorage:
        self.state(incarnation)
        node = StreamStorage(
            self.store, incarnation, WINDOW, S3StreamConfig(), rng=self.rng, now_ms=lambda: 5000
        )
        self.nodes[incarnation] = node
        self.tasks[incarnation] = asyncio.create_task(node.run())
        self.reporters[incarnation] = Reporter(
            node.registry,
            node.reader,
            node.object_writer,
            append=node.append_control,
            next_seq=lambda: node.wal.next_seq,
        )
        return node

    def partition(self, stream: int, leader: int, source: int | None = None) -> None:
        topic = self.image.topics["t"]
        others = [p for p in topic.partitions if p.stream_id != stream]
        one = PartitionImage(stream, stream, leader, 0, BEFORE_ALL, source, False)
        partitions = tuple(sorted([*others, one], key=lambda p: p.stream_id))
        new = TopicImage("t", topic.topic_id, False, 1, {}, partitions)
        self.image = changed(self.image, topics=self.image.topics.set("t", new))

    async def produce(self, incarnation: int, stream_id: int, count: int) -> None:
        stream = self.nodes[incarnation].stream(stream_id)
        assert stream is not None
        for _ in range(count):
            await stream.append(entry(stream_id, batch(stream.next_offset, epoch=stream.epoch)))

    async def kill(self, incarnation: int) -> None:
        await self.nodes[incarnation].abort()
        await asyncio.gather(self.tasks.pop(incarnation), return_exceptions=True)
        del self.reporters[incarnation]
        self.state(incarnation, fenced=True)

    async def take_over(self, dead: int, by: int) -> SourceRef:
        end = await end_log(self.store, wal_log(dead), WINDOW, b"m", self.rng)
        recovered = await recover(self.store, dead, end.end)
        writer = self.nodes[by].object_writer
        before = writer.numbers.lowest_unsettled
        blobs = await write_recovery_object(recovered, writer)
        ended = End(end.end, b"m")
        self.state(dead, fenced=True, ended=ended, recovery=BlobRef(*blobs[0]))
        writer.numbers.settle(range(before, before + 100))
        return SourceRef(dead, BlobRef(*blobs[0]))

    async def stop(self) -> None:
        await asyncio.gather(*self.answers, return_exceptions=True)
        for incarnation in list(self.tasks):
            await self.nodes[incarnation].abort()
            await asyncio.gather(self.tasks[incarnation], return_exceptions=True)

    async def keys(self, prefix: str) -> list[str]:
        return [info.key async for info in self.store.list(prefix)]

    async def read(self, incarnation: int, stream_id: int) -> bytes:
        """From objects alone."""
        node = self.nodes[incarnation]
        of = node.registry.entry(stream_id)
        node.block_cache = node.reader.block_cache
        views = await node.reader.read_stream(
            stream_id, of.ranges, of.start_offset, of.next_offset, 1 << 30
        )
        return b"".join(views)


def in_cluster(scenario: Callable[[Cluster], Awaitable[None]]) -> None:
    async def run() -> None:
        cluster = Cluster()
        try:
            await scenario(cluster)
        finally:
            await cluster.stop()

    asyncio.run(run())


async def upload_now(node: StreamStorage) -> None:
    await node.uploader.upload()


def test_uploaded_log_objects_go_and_the_newest_one_stays() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        await node.open_streams([(1, 0, (0, 0, 0))])
        cluster.partition(1, 0)
        await cluster.produce(0, 1, 20)
        await upload_now(node)
        await cluster.produce(0, 1, 1)
        before = await cluster.keys("wal/")
        # What was held since the last report is named once more.
        assert (await cluster.collector.run_round()).deleted <= 1
        result = await cluster.collector.run_round()
        after = await cluster.keys("wal/")
        assert result.deleted > 15 and not result.abandoned
        assert len(after) < len(before) and after[-1] == wal_log(0).key(node.wal.durable_seq - 1)
        assert await cluster.read(0, 1) == b"".join(batch(i) for i in range(21))

    in_cluster(scenario)


def test_adopted_log_objects_stay_below_the_trim_until_nothing_names_them() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        (stream,) = await node.open_streams([(1, 0, (0, 0, 0))])
        cluster.partition(1, 0)
        await cluster.produce(0, 1, 20)
        for size in (1_100_000, 20, 1_200_000):
            await stream.append(make_entry(stream, value=bytes(size)))
        await upload_now(node)
        await cluster.produce(0, 1, 1)
        homes = [one.object.key for one in stream.entry.ranges if one.object.key[:4] == "wal/"]
        assert node.uploader.adopted_objects == 2 and len(homes) == 3
        written = await cluster.read(0, 1)
        for _ in range(3):
            assert not (await cluster.collector.run_round()).abandoned
        assert set(homes) < set(await cluster.keys("wal/"))
        assert len(await cluster.keys("wal/")) < 12
        assert await cluster.read(0, 1) == written
        # The log has ended, and another leads: named by its report now.
        heir = await cluster.start(1)
        await cluster.kill(0)
        source = await cluster.take_over(0, by=1)
        await heir.open_streams([(1, 1, (0, 1, 0))], source)
        cluster.partition(1, 1)
        await upload_now(heir)
        for _ in range(3):
            assert not (await cluster.collector.run_round()).abandoned
        assert (await cluster.keys(wal_log(0).prefix))[:2] == homes[:2]
        assert await cluster.read(1, 1) == written
        await heir.trim_streams([(1, 23)])
        for _ in range(2):
            await cluster.collector.run_round()
        assert not set(homes) & set(await cluster.keys("wal/"))

    in_cluster(scenario)


def test_a_log_object_on_its_way_while_its_maker_reports_is_not_lost_by_being_adopted() -> None:
    """Listed, since it has landed; not folded, since one before it has not; trimmed when read."""

    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        (stream,) = await node.open_streams([(1, 0, (0, 0, 0))])
        cluster.partition(1, 0)
        sent, late, landed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        home = wal_log(0).key(2)
        create = cluster.store.create

        async def create_late(key: str, chunks: Chunks) -> None:
            if key == wal_log(0).key(1):
                sent.set()
                await late.wait()
            await create(key, chunks)
            if key == home:
                landed.set()

        cluster.store.create = create_late  # type: ignore[method-assign]
        producing = [asyncio.create_task(cluster.produce(0, 1, 1))]
        await sent.wait()
        large = make_entry(stream, value=bytes(1_100_000))
        producing.append(asyncio.create_task(_append(stream, large)))
        await landed.wait()
        assert stream.high_watermark == 0

        async def adopt_after_the_report() -> None:
            number = cluster.image.rounds.open
            assert number is not None
            answering = asyncio.create_task(cluster.reporters[0].answer(number))
            for _ in range(3):
                await asyncio.sleep(0)
            late.set()
            await asyncio.gather(answering, *producing)
            await upload_now(node)
            await cluster.produce(0, 1, 1)
            assert node.wal.trim > 2

        cluster.silent = {0}
        cluster.on_begin = adopt_after_the_report
        result = await cluster.collector.run_round()
        assert not result.abandoned and home in await cluster.keys("wal/")
        assert [one.object.key for one in stream.entry.ranges][1] == home
        assert len(await cluster.read(0, 1)) > 1_100_000

    in_cluster(scenario)


async def _append(stream: Stream, entry: BatchEntry) -> None:
    await stream.append(entry)


def test_object_without_a_reference_goes_and_one_under_way_stays() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        await node.append_control(b"\x01\x82\xa1t\xa7trimmed\xa7streams\x90")
        given_up = await node.object_writer.write_records(Kind.DATA, [entry(1, batch(0))])
        under_way = await node.object_writer.write_records(Kind.DATA, [entry(1, batch(0))])
        node.numbers.settle([given_up.number])
        await cluster.collector.run_round()
        assert await cluster.keys("data/") == [under_way.ref.key]
        node.numbers.settle([under_way.number])
        await cluster.collector.run_round()
        assert await cluster.keys("data/") == []

    in_cluster(scenario)


def test_object_made_after_the_listing_is_left_to_the_next_round() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)

        async def write() -> None:
            written = await node.object_writer.write_records(Kind.DATA, [entry(1, batch(0))])
            node.numbers.settle([written.number])

        cluster.on_begin = write
        assert (await cluster.collector.run_round()).deleted == 0
        cluster.on_begin = None
        assert (await cluster.collector.run_round()).deleted == 1

    in_cluster(scenario)


def test_round_waits_for_every_report_and_is_abandoned_when_one_is_fenced() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.start(0)
        second = await cluster.start(1)
        written = await second.object_writer.write_records(Kind.DATA, [entry(1, batch(0))])
        second.numbers.settle([written.number])
        cluster.silent.add(1)
        going = asyncio.create_task(cluster.collector.run_round())
        await asyncio.sleep(0.2)
        assert not going.done()
        await cluster.kill(1)
        result = await going
        assert result.abandoned and result.deleted == 0
        assert await cluster.keys("data/") == [written.ref.key]
        # Its log is not ended yet: no round may begin.
        assert (await cluster.collector.run_round()).abandoned
        await cluster.take_over(1, by=0)
        await cluster.collector.run_round()
        assert written.ref.key not in await cluster.keys("data/")

    in_cluster(scenario)


def test_what_a_dead_log_holds_stays_until_its_new_leader_has_it_in_objects_of_its_own() -> None:
    async def scenario(cluster: Cluster) -> None:
        dead = await cluster.start(0)
        await dead.open_streams([(1, 0, (0, 0, 0))])
        cluster.partition(1, 0)
        await cluster.produce(0, 1, 5)
        await upload_now(dead)
        await cluster.produce(0, 1, 5)
        heir = await cluster.start(1)
        await cluster.kill(0)
        source = await cluster.take_over(0, by=1)
        cluster.partition(1, 1, source=0)
        expected = b"".join(batch(i) for i in range(10))

        await cluster.collector.run_round()
        await heir.open_streams([(1, 1, (0, 0, 1))], source)
        assert await cluster.read(1, 1) == expected
        cluster.partition(1, 1)
        await cluster.collector.run_round()
        assert await cluster.read(1, 1) == expected

        await upload_now(heir)
        for _ in range(2):  # held once more in the report after it let go
            await cluster.collector.run_round()
        assert await cluster.read(1, 1) == expected
        left = await cluster.keys(wal_log(0).prefix)
        headers = [key for key in left if not key.endswith("/end")]
        assert wal_log(0).end_key in left
        assert len(headers) == WINDOW + 1, "seals are never deleted, and nothing else is left"

    in_cluster(scenario)


def test_a_tail_handed_on_five_times_keeps_every_log_that_it_lies_in_and_no_longer() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        await node.open_streams([(1, 0, (0, 0, 0)), (2, 0, (0, 0, 1))])
        cluster.partition(1, 0)
        cluster.partition(2, 0)
        for life in range(1, 6):
            await cluster.produce(life - 1, 1, 2)
            await cluster.produce(life - 1, 2, 1)
            await cluster.kill(life - 1)
            node = await cluster.start(life)
            source = await cluster.take_over(life - 1, by=life)
            for stream_id in (1, 2):
                cluster.partition(stream_id, life - 1, life - 1)
            await cluster.collector.run_round()
            epoch = (life, (0, life, 0))
            await node.open_streams([(1, *epoch), (2, *epoch)], source)
            for stream_id in (1, 2):
                cluster.partition(stream_id, life)
            for _ in range(3):
                await cluster.collector.run_round()
        # Nothing of it was uploaded: it lies in five logs of the dead.
        makers = {one.object.key.split("/")[1] for one in node.registry.entry(1).ranges}
        assert len(makers) == 5
        expected = b"".join(batch(n, epoch=n // 2) for n in range(10))
        assert await cluster.read(5, 1) == expected
        await node.trim_streams([(2, 5)])
        await upload_now(node)
        for _ in range(3):
            await cluster.collector.run_round()
        assert await cluster.read(5, 1) == expected
        for dead in range(5):
            left = await cluster.keys(wal_log(dead).prefix)
            assert len(left) == WINDOW + 2, "its seals and its end"
        held = node.registry.references.held()
        assert set(await cluster.keys("data/")) <= held

    in_cluster(scenario)


def test_seals_among_old_data_and_the_end_are_never_deleted() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.start(1)
        log = wal_log(0)
        chunks, _ = compose_blob(Kind.SEAL, 0, 2, bytes(16), b"maker")
        await cluster.store.create(log.key(2), chunks)
        for seq in (0, 1, 3):
            put_object(
                cluster.store, seq, [entry(1, batch(0))], kind=Kind.LOG, key=log.key(seq),
                incarnation=0,
            )  # fmt: skip
        await cluster.store.create(log.end_key, [b"x" * 200])
        cluster.state(0, fenced=True, ended=End(4, b""))
        await cluster.collector.run_round()
        assert await cluster.keys(log.prefix) == [log.key(2), log.end_key]
        with patch.object(cluster.store, "get_ranges", wraps=cluster.store.get_ranges) as read:
            await cluster.collector.run_round()
        looked_at = [call.args[0] for call in read.call_args_list]
        assert log.key(2) not in looked_at, "it stays a seal"

    in_cluster(scenario)


def test_unfinished_uploads_of_ended_incarnations_are_aborted_and_no_others() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.start(1)
        cluster.state(0, fenced=True, ended=End(0, b""))
        await cluster.store.start_upload(data_key(0, 5))
        alive = await cluster.store.start_upload(data_key(1, 5))
        result = await cluster.collector.run_round()
        assert result.aborted_uploads == 1
        left = await cluster.store.list_uploads("data/")
        assert [one.key for one in left] == [data_key(1, 5)]
        await alive.abort()

    in_cluster(scenario)


def test_an_unfinished_upload_that_its_living_maker_gave_up_is_aborted() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        numbers = [node.numbers.draw() for _ in range(3)]
        for number in numbers:
            await cluster.store.start_upload(data_key(0, number))
        node.numbers.settle(numbers[:2])
        assert (await cluster.collector.run_round()).aborted_uploads == 2
        left = await cluster.store.list_uploads("data/")
        assert [one.key for one in left] == [data_key(0, 2)]

    in_cluster(scenario)


def test_round_left_open_by_another_collector_is_ended_unused() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.start(0)
        cluster.image = changed(cluster.image, rounds=Rounds(5, 4, BEFORE_ALL))
        result = await cluster.collector.run_round()
        assert not result.abandoned
        assert cluster.image.rounds == Rounds(6)

    in_cluster(scenario)


def test_report_that_was_trimmed_before_it_was_read_still_counts() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        await node.open_streams([(1, 0, (0, 0, 0))])
        cluster.partition(1, 0)
        await cluster.produce(0, 1, 3)
        cluster.silent.add(0)

        async def answered_and_trimmed() -> None:
            await cluster.reporters[0].answer(cluster.image.rounds.next_number - 1)
            await cluster.produce(0, 1, 3)
            await upload_now(node)
            await cluster.produce(0, 1, 1)

        cluster.on_begin = answered_and_trimmed
        result: RoundResult = await cluster.collector.run_round()
        assert not result.abandoned

    in_cluster(scenario)


def test_long_reports_go_out_of_line_and_are_garbage_after_their_round() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        named = [data_key(9, n) for n in range(INLINE_KEYS + 1)]
        node.registry.references.hold_all(named)
        await cluster.collector.run_round()
        assert len(await cluster.keys("data/")) == 1
        node.registry.references.release_all(named)
        await cluster.collector.run_round()
        await cluster.collector.run_round()
        assert len(await cluster.keys("data/")) <= 1

    in_cluster(scenario)


def test_listing_goes_on_where_the_last_round_stopped() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        for _ in range(10):
            written = await node.object_writer.write_records(Kind.DATA, [entry(1, batch(0))])
            node.numbers.settle([written.number])
        cluster.collector = Collector(cluster.store, cluster, rng=Random(1), candidates_at_most=4)
        results = [await cluster.collector.run_round() for _ in range(3)]
        assert [one.deleted for one in results] == [4, 4, 2]
        assert [one.listed_all for one in results] == [False, False, True]

    in_cluster(scenario)


def test_report_is_made_once_for_a_round() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        reporter = cluster.reporters[0]
        await reporter.answer(3)
        seq = node.wal.durable_seq
        await reporter.answer(3)
        await reporter.answer(2)
        assert node.wal.durable_seq == seq

    in_cluster(scenario)


def test_numbers_of_an_object_writer_begin_unsettled() -> None:
    numbers = ObjectNumbers()
    first = numbers.draw()
    second = numbers.draw()
    numbers.settle([second])
    assert numbers.lowest_unsettled == first
    numbers.settle([first])
    assert numbers.lowest_unsettled == second + 1


@pytest.mark.parametrize("size", [100, 5000])
def test_only_small_log_objects_are_looked_into_for_seals(size: int) -> None:
    assert Candidate(wal_log(1).key(0), size).may_be_seal == (size < 1000)
    assert not Candidate(data_key(1, 0), size).may_be_seal


@pytest.mark.parametrize("how", ["merged away", "trimmed away"])
def test_what_recovery_would_fold_again_stays_until_a_checkpoint_holds_it(how: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.start(0)
        await node.open_streams([(1, 0, (0, 0, 0)), (2, 0, (0, 0, 1))])
        cluster.partition(1, 0)
        cluster.partition(2, 0)
        for _ in range(2):
            await cluster.produce(0, 1, 3)
            await cluster.produce(0, 2, 2)
            await upload_now(node)
        compactor = Compactor(
            node.registry,
            node.numbers,
            node.reader,
            InProcessRunner(cluster.store, CompactionConfig(fan_in=2), rng=cluster.rng),
            CompactionConfig(fan_in=2),
            append=node.append_control,
            rng=cluster.rng,
        )
        assert await compactor.compact_once()
        (merged,) = {one.object.key for one in node.registry.entry(1).ranges}
        # The record that names the merged object comes after the last checkpoint, and nothing
        # but that record will need the object any more.
        await node.trim_streams([(1, 6)])
        if how == "merged away":
            assert await compactor.compact_once()
        else:
            await node.trim_streams([(2, 4)])
        assert all(one.object.key != merged for one in node.registry.entry(2).ranges)
        for _ in range(3):
            await cluster.collector.run_round()
        await cluster.kill(0)
        recovered = await recover(cluster.store, 0, node.wal.durable_seq)
        assert recovered.entries[1].start_offset == 6

        node = await cluster.start(1)
        source = await cluster.take_over(0, by=1)
        await node.open_streams([(1, 1, (0, 1, 0)), (2, 1, (0, 1, 1))], source)
        cluster.partition(1, 1)
        cluster.partition(2, 1)
        await node.checkpointer.write()
        for _ in range(3):
            await cluster.collector.run_round()
        assert merged not in await cluster.keys("data/"), "a checkpoint has it all: garbage now"

    in_cluster(scenario)
