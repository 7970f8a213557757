"""`headwater verify` and `inspect` over buckets written by the real storage, then damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from broker.cli.chain_check import chain_finding
from broker.inspect import lines_of
from broker.inspect import main as inspect_main
from broker.partition.partition import Partition
from broker.verify import (
    Acknowledged,
    Fault,
    Verified,
    main,
    read_acknowledged,
    verify,
    what_to_do,
)
from objectstore.doctor import Severity
from objectstore.errors import Corrupt, StoreError
from s3stream.compaction import CompactionConfig
from s3stream.compaction.compactor import Compactor
from s3stream.compaction.worker import InProcessRunner
from s3stream.config import S3StreamConfig
from s3stream.metadata import records as r
from s3stream.metadata.records import BlobRef, Record, encode_record
from s3stream.node_log import StreamStorage
from s3stream.takeover import SourceRef, recover, write_recovery_object
from tests.unit.broker.node_rig import Rig
from tests.unit.broker.test_long_history import with_history
from tests.unit.s3stream.counting_store import CountingStore
from tests.unit.s3stream.log_rig import make_entry, until_recorded
from tests.unit.s3stream.stored_objects import batch, entry
from wal.format import Kind, compose
from wal.keys import meta_log, wal_log
from wal.seal import end_log

WINDOW = 8
TOPIC = UUID(int=7)


class Bucket:
    """A store with a metadata log of one record an object, and incarnations that write."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.rng = Random(5)
        self.seq = 0
        self.nodes: dict[int, StreamStorage] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.record(r.ClusterCreated("cluster-of-22-letters.", WINDOW, "memory:", 0))

    def record(self, record: Record) -> tuple[int, int, int]:
        key = meta_log(0).key(self.seq)
        chunks, _, _ = compose(
            Kind.LOG, 0, self.seq, 0, self.seq, None, WINDOW, self.rng.randbytes(16), [],
            [encode_record(record)],
        )  # fmt: skip
        self.store.put_now(key, chunks)
        self.seq += 1
        return (0, self.seq - 1, 0)

    async def node(self, incarnation: int) -> StreamStorage:
        self.record(r.BrokerRegistered(incarnation, incarnation, b"p", WINDOW, ()))
        node = StreamStorage(
            self.store, incarnation, WINDOW, S3StreamConfig(), rng=self.rng, now_ms=lambda: 5000
        )
        self.nodes[incarnation] = node
        self.tasks.append(asyncio.create_task(node.run()))
        return node

    async def topic(self, leader: int, partitions: int = 1) -> None:
        made = [r.NewPartition(i + 1, leader) for i in range(partitions)]
        at = self.record(r.TopicCreated("t", TOPIC, False, 1, {}, made))
        node = self.nodes[leader]
        await node.open_streams([(i + 1, 0, at) for i in range(partitions)])
        self.record(r.Opened(leader, [(i + 1, 0) for i in range(partitions)]))

    async def produce(self, leader: int, stream_id: int, count: int, epoch: int = 0) -> None:
        stream = self.nodes[leader].stream(stream_id)
        assert stream is not None
        for _ in range(count):
            data = batch(stream.next_offset, 3, epoch=epoch, seed=stream_id)
            await stream.append(entry(stream_id, data))

    async def stop(self) -> None:
        for node in self.nodes.values():
            await node.abort()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def keys(self, prefix: str) -> list[str]:
        return [info.key async for info in self.store.list(prefix)]


def in_bucket(scenario: Callable[[Bucket], Awaitable[None]]) -> None:
    async def run() -> None:
        bucket = Bucket()
        try:
            await scenario(bucket)
        finally:
            await bucket.stop()

    asyncio.run(run())


async def worked_on(bucket: Bucket) -> StreamStorage:
    """Three partitions with uploaded, merged, trimmed and fresh contents."""
    node = await bucket.node(0)
    await bucket.topic(0, partitions=3)
    for _ in range(4):
        for stream_id in (1, 2, 3):
            await bucket.produce(0, stream_id, 2)
        await node.uploader.upload()
    await node.trim_streams([(1, 7)])
    config = CompactionConfig(fan_in=4, requests_per_s=1e6, bytes_per_s=1e12)
    compactor = Compactor(
        node.registry, node.numbers, node.reader,
        InProcessRunner(bucket.store, config, rng=Random(1)), config,
        append=node.append_control, rng=Random(2),
    )  # fmt: skip
    assert await compactor.compact_once()
    for stream_id in (1, 2):
        await bucket.produce(0, stream_id, 3)
    await node.checkpointer.write()
    await bucket.produce(0, 3, 1)
    return node


def test_sound_bucket_is_proven_and_counted() -> None:
    async def scenario(bucket: Bucket) -> None:
        await worked_on(bucket)
        found: Verified = await verify(bucket.store)
        assert found.partitions == 3
        assert found.unsealed == (0,)
        # Of stream 1, the first upload left with the trim; the second straddles its start.
        assert found.contents.amount.batches == 31 - 2
        assert found.contents.amount.records == 3 * 29

    in_bucket(scenario)


def test_every_flipped_byte_of_what_the_chain_reaches_is_found() -> None:
    async def scenario(bucket: Bucket) -> None:
        node = await worked_on(bucket)
        await verify(bucket.store)
        rng = Random(3)
        named = node.registry.references.held()
        keys = [key for key in await bucket.keys("") if key in named or key.startswith("meta/")]
        assert len(keys) > 8
        for key in keys:
            size = len(await bucket.store.get(key))
            for position in {0, 30, 79, size - 1, *(rng.randrange(size) for _ in range(12))}:
                bucket.store.flip(key, position)
                with pytest.raises((Fault, Corrupt)) as caught:
                    await verify(bucket.store)
                assert key in str(caught.value) or "log" in str(caught.value), caught.value
                bucket.store.flip(key, position)
        await verify(bucket.store)

    in_bucket(scenario)


def test_every_object_that_the_chain_reaches_is_missed_when_it_is_gone() -> None:
    async def scenario(bucket: Bucket) -> None:
        node = await worked_on(bucket)
        newest = wal_log(0).key(node.wal.durable_seq - 1)
        named = node.registry.references.held()
        for key in await bucket.keys(""):
            if key not in named or key == newest:
                continue
            data = await bucket.store.get(key)
            await bucket.store.delete([key])
            with pytest.raises((Fault, StoreError)):
                await verify(bucket.store)
            await bucket.store.create(key, [data])
        await verify(bucket.store)

    in_bucket(scenario)


def test_doctor_names_an_object_that_is_missing_without_reading_records() -> None:
    async def scenario(bucket: Bucket) -> None:
        node = await worked_on(bucket)
        found = await chain_finding(bucket.store)
        assert (found.severity, found.remedy) == (Severity.OK, "")
        victim = node.registry.entry(2).ranges[0].object.key
        await bucket.store.delete([victim])
        found = await chain_finding(bucket.store)
        assert found.severity is Severity.ERROR
        assert victim in found.what and "t-1" in found.what
        assert "put back what is missing" in found.remedy

    in_bucket(scenario)


def test_who_misses_an_index_object_is_told_what_that_holds_up() -> None:
    async def body(rig: Rig, partition: Partition) -> None:
        key = partition.stream.entry.history[0].object.key
        await rig.store.delete([key])
        with pytest.raises(Fault, match=key) as caught:
            await verify(rig.store)
        assert "nothing is deleted anywhere" in what_to_do(caught.value)
        assert "nothing is deleted anywhere" in (await chain_finding(rig.store)).remedy

    with_history(body)


def test_last_object_of_an_open_log_is_missed_only_with_acknowledged_offsets() -> None:
    async def scenario(bucket: Bucket) -> None:
        node = await bucket.node(0)
        await bucket.topic(0)
        await bucket.produce(0, 1, 5)
        acknowledged = [Acknowledged("t", 0, 14)]
        await verify(bucket.store, against=acknowledged)
        await bucket.store.delete([wal_log(0).key(node.wal.durable_seq - 1)])
        await verify(bucket.store)
        with pytest.raises(Fault, match="t-0: offset 14 was acknowledged, but the log ends at 12"):
            await verify(bucket.store, against=acknowledged)

    in_bucket(scenario)


def test_contents_are_followed_through_a_dead_log_to_its_heir() -> None:
    async def scenario(bucket: Bucket) -> None:
        dead = await bucket.node(0)
        await bucket.topic(0)
        await bucket.produce(0, 1, 4)
        await dead.uploader.upload()
        await bucket.produce(0, 1, 4)
        heir = await bucket.node(1)
        await dead.abort()
        expected = [Acknowledged("t", 0, 23)]
        await verify(bucket.store, against=expected)
        bucket.record(r.IncarnationFenced(0))
        end = await end_log(bucket.store, wal_log(0), WINDOW, b"m", bucket.rng)
        assert (await verify(bucket.store, against=expected)).unsealed == ()
        recovered = await recover(bucket.store, 0, end.end)
        blobs = await write_recovery_object(recovered, heir.object_writer)
        recovery = BlobRef(*blobs[0])
        change = r.LeaderChange(1, 1, 1, 0)
        at = bucket.record(r.IncarnationEnded(0, end.end, b"m", recovery, 1, [change]))
        await verify(bucket.store, against=expected)
        await heir.open_streams([(1, 1, at)], SourceRef(0, recovery))
        await verify(bucket.store, against=expected)
        bucket.record(r.Opened(1, [(1, 1)]))
        await bucket.produce(1, 1, 2, epoch=1)
        await heir.uploader.upload()
        found = await verify(bucket.store, against=[Acknowledged("t", 0, 29)])
        assert found.contents.amount.batches == 10

    in_bucket(scenario)


async def adopted(bucket: Bucket) -> StreamStorage:
    """A partition with copied, adopted, copied and fresh contents, before the next checkpoint."""
    node = await bucket.node(0)
    await bucket.topic(0)
    stream = node.stream(1)
    assert stream is not None
    for size in (20, 1_100_000, 20, 1_200_000):
        await stream.append(make_entry(stream, value=bytes(size)))
    await node.uploader.upload()
    assert node.uploader.adopted_objects == 2
    await stream.append(make_entry(stream, value=bytes(20)))
    return node


def test_adopted_log_objects_are_read_and_shown_where_they_are() -> None:
    async def scenario(bucket: Bucket) -> None:
        node = await adopted(bucket)
        found = await verify(bucket.store, against=[Acknowledged("t", 0, 4)])
        assert (found.contents.objects, found.contents.amount.batches) == (4, 5)
        shown = [line async for line in lines_of(bucket.store, "t/0")]
        assert [line.endswith("adopted") for line in shown[-5:]] == [
            False, True, False, True, False,
        ]  # fmt: skip
        newest = wal_log(0).key(node.wal.durable_seq - 1)
        assert "adopted" not in "".join([one async for one in lines_of(bucket.store, newest)])
        home = node.registry.entry(1).ranges[1].object.key
        bucket.store.flip(home, 300_000)
        with pytest.raises((Fault, Corrupt), match=home):
            await verify(bucket.store)
        bucket.store.flip(home, 300_000)
        await bucket.store.delete([home])
        with pytest.raises((Fault, StoreError), match=home):
            await verify(bucket.store)

    in_bucket(scenario)


def test_the_record_of_an_adoption_is_folded_by_verify_as_by_the_broker() -> None:
    async def scenario(bucket: Bucket) -> None:
        node = await bucket.node(0)
        await bucket.topic(0)
        stream = node.stream(1)
        assert stream is not None
        for size in (20, 1_100_000, 20, 1_200_000):
            await stream.append(make_entry(stream, value=bytes(size)))
        uploading = asyncio.create_task(node.uploader.upload())
        await until_recorded(stream)
        # The record is the newest thing there is: no checkpoint repeats it yet.
        assert (await verify(bucket.store)).contents.amount.batches == 4
        await uploading

    in_bucket(scenario)


def test_stream_that_an_upload_changed_is_a_fault() -> None:
    """What a bug in the broker would leave: sound objects that do not hold what was appended."""

    async def scenario(bucket: Bucket) -> None:
        node = await bucket.node(0)
        await bucket.topic(0)
        await bucket.produce(0, 1, 3)
        view = node.registry.entry(1)
        view.total.sum = bytes(16)
        await node.checkpointer.write()
        with pytest.raises(Fault, match="not its total"):
            await verify(bucket.store)

    in_bucket(scenario)


def test_store_without_a_cluster_is_told() -> None:
    with pytest.raises(Fault, match="no cluster"):
        asyncio.run(verify(CountingStore()))


def test_acknowledged_offsets_are_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "acks"
    path.write_text("# produced\nt 0 14\n\nother 12 99\n")
    assert read_acknowledged(path) == [Acknowledged("t", 0, 14), Acknowledged("other", 12, 99)]
    path.write_text("t 0\n")
    with pytest.raises(ValueError, match="line 1"):
        read_acknowledged(path)


def test_command_exits_with_1_and_names_the_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scenario(bucket: Bucket) -> None:
        await worked_on(bucket)
        for key in await bucket.keys(""):
            path = tmp_path / "store" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(await bucket.store.get(key))

    in_bucket(scenario)
    uri = f"file://{tmp_path}/store"
    assert main(["--store", uri]) == 0
    assert "in order and unchanged" in capsys.readouterr().out
    acks = tmp_path / "acks"
    acks.write_text("t 2 999\n")
    assert main(["--store", uri, "--against", str(acks)]) == 1
    assert "t-2: offset 999" in capsys.readouterr().out
    assert main(["--store", uri, "--cut"]) == 0
    out = capsys.readouterr().out
    assert "nothing that was found is lost" in out and "nothing was written" in out
    assert main(["--store", uri, "--cut", "--yes"]) == 0
    assert "every log has ended" in capsys.readouterr().out
    assert main(["--store", uri]) == 0
    assert "not seen" not in capsys.readouterr().out
    acks.write_text("nonsense\n")
    assert main(["--store", uri, "--against", str(acks)]) == 2
    capsys.readouterr()

    assert inspect_main(["--store", uri, "t/0"]) == 0
    out = capsys.readouterr().out
    assert "offsets 7 to 33" in out
    assert inspect_main(["--store", uri, "wal/"]) == 0
    assert inspect_main(["--store", uri, "nothing/0"]) == 1
    assert inspect_main(["--store", uri, "wal/zzz"]) == 1


def test_every_object_of_a_bucket_can_be_shown() -> None:
    async def scenario(bucket: Bucket) -> None:
        dead = await worked_on(bucket)
        heir = await bucket.node(1)
        await dead.abort()
        end = await end_log(bucket.store, wal_log(0), WINDOW, b"m", bucket.rng)
        await write_recovery_object(await recover(bucket.store, 0, end.end), heir.object_writer)
        kinds = set()
        for key in await bucket.keys(""):
            lines = [line async for line in lines_of(bucket.store, key)]
            assert lines[0].startswith(key)
            kinds.add(lines[1].split()[0])
        assert {"LOG", "DATA", "MERGED", "SEAL", "END", "RECOVERY"} <= kinds

    in_bucket(scenario)
