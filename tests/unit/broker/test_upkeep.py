"""Merging, reports and rounds wired to a storage and an image, as the node wires them."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from broker.config import BrokerConfig, load
from broker.upkeep import Upkeep, compaction_config, merge_runner
from objectstore.settings import StoreSettings
from protocol.errors import ErrorCode, KafkaError
from s3stream.collector import RoundResult, Rounds
from s3stream.compaction.worker import InProcessRunner, WorkerProcess
from s3stream.metadata.image import Rounds as OpenRounds
from s3stream.metadata.image import changed
from s3stream.metadata.records import BEFORE_ALL
from tests.unit.s3stream.test_collector import Cluster, upload_now
from wal.errors import LogClosed
from wal.keys import DATA_PREFIX


def config_of(values: dict[str, int]) -> BrokerConfig:
    return load(sets=[f"{key}={value}" for key, value in values.items()]).config


class Clock:
    """A loop whose time jumps to the next timer when nothing is ready."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = 1000.0
        loop.time = lambda: self.now  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(200):
            await asyncio.sleep(0)


class Counted:
    """Stands for a collector: counts its rounds."""

    def __init__(self) -> None:
        self.rounds = 0
        self.result = RoundResult(0, 0, 0, 0, False)

    async def run_round(self) -> RoundResult:
        self.rounds += 1
        return self.result


def test_each_occasion_is_worth_two_rounds_and_then_all_is_quiet() -> None:
    async def run() -> None:
        clock = Clock(asyncio.get_running_loop())
        counted = Counted()
        rounds = Rounds(counted, interval_s=600, rng=Random(1))  # type: ignore[arg-type]
        task = asyncio.create_task(rounds.run(lambda: True))
        await clock.advance(599)
        assert counted.rounds == 0
        for _ in range(6):
            await clock.advance(601)
        assert counted.rounds == 2
        rounds.wanted()
        for _ in range(6):
            await clock.advance(601)
        assert counted.rounds == 4
        counted.result = RoundResult(0, 0, 0, 0, True)
        rounds.wanted()
        for _ in range(6):
            await clock.advance(601)
        assert counted.rounds >= 9, "an abandoned round is held again"
        before = counted.rounds
        counted.result = RoundResult(0, 0, 0, 0, False, listed_all=False)
        for _ in range(6):
            await clock.advance(601)
        assert counted.rounds >= before + 5, "what is left to be listed is listed"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_who_does_not_decide_holds_no_round() -> None:
    async def run() -> None:
        clock = Clock(asyncio.get_running_loop())
        counted = Counted()
        rounds = Rounds(counted, interval_s=600, rng=Random(1))  # type: ignore[arg-type]
        task = asyncio.create_task(rounds.run(lambda: False))
        for _ in range(6):
            await clock.advance(601)
        assert counted.rounds == 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


def test_uploads_are_merged_and_what_they_replaced_is_deleted_without_being_asked() -> None:
    async def run() -> None:
        cluster = Cluster()
        node = await cluster.start(0)
        cluster.reporters.clear()  # the upkeep reports
        await node.open_streams([(s, 0, (0, 0, s)) for s in (1, 2)])
        for s in (1, 2):
            cluster.partition(s, 0)
        config = config_of({"collector.round.interval.ms": 1000})
        runner = merge_runner(config, cluster.store, uri=None, settings=None, rng=Random(1))
        upkeep = Upkeep(node, cluster, config, runner=runner, decides=lambda: True, rng=Random(2))

        async def begun() -> None:
            before = changed(cluster.image, rounds=OpenRounds())
            upkeep.image_changed(before, cluster.image)

        cluster.on_begin = begun
        task = asyncio.create_task(upkeep.run())
        for n in range(8):
            for s in (1, 2):
                await cluster.produce(0, s, 1)
            await upload_now(node)
            assert n == 7 or len(await cluster.keys(DATA_PREFIX)) == n + 1
        assert upkeep.compactor is not None
        async with asyncio.timeout(20):
            while upkeep.compactor.merges == 0 or len(await cluster.keys(DATA_PREFIX)) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cluster.stop()

    asyncio.run(run())


def test_ends_when_cancelled_whatever_a_part_of_it_meets_then() -> None:
    async def run() -> None:
        cluster = Cluster()
        node = await cluster.start(0)
        cluster.reporters.clear()  # nobody answers: the round stays open
        config = config_of({"collector.round.interval.ms": 1000})
        upkeep = Upkeep(node, cluster, config, runner=None, decides=lambda: True, rng=Random(2))
        begun = asyncio.Event()

        async def on_begin() -> None:
            begun.set()

        async def refuse(number: int, *, abandoned: bool) -> None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER)

        async def report() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                raise LogClosed("closed meanwhile")

        cluster.on_begin = on_begin
        cluster.end_round = refuse  # type: ignore[method-assign]
        upkeep._report = report  # type: ignore[method-assign]
        task = asyncio.create_task(upkeep.run())
        await begun.wait()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done and task.cancelled()
        await cluster.stop()

    asyncio.run(run())


def test_a_round_that_is_open_at_the_start_is_answered() -> None:
    async def run() -> None:
        cluster = Cluster()
        node = await cluster.start(0)
        cluster.image = changed(cluster.image, rounds=OpenRounds(4, 3, BEFORE_ALL))
        config = config_of({})
        upkeep = Upkeep(node, cluster, config, runner=None, decides=lambda: True, rng=Random(2))
        task = asyncio.create_task(upkeep.run())
        async with asyncio.timeout(5):
            while node.wal.durable_seq == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cluster.stop()

    asyncio.run(run())


def test_merges_run_in_a_process_where_another_process_can_open_the_store() -> None:
    config = config_of({})
    store = Cluster().store
    for uri, kind in (("memory:", InProcessRunner), ("file:///x", WorkerProcess)):
        found = merge_runner(config, store, uri=uri, settings=StoreSettings(), rng=Random(1))
        assert isinstance(found, kind)
    off = config_of({"compaction.budget.bytes.per.second": 0})
    assert merge_runner(off, store, uri=None, settings=None, rng=Random(1)) is None


def test_settings_of_compaction_are_the_brokers() -> None:
    config = config_of(
        {"compaction.stream.object.bytes": 8 << 20, "compaction.budget.bytes.per.second": 77}
    )
    assert compaction_config(config).own_object_bytes == 8 << 20
    assert compaction_config(config).bytes_per_s == 77


def test_end_of_the_log_is_left_for_its_writer_to_tell() -> None:
    async def run() -> None:
        cluster = Cluster()
        node = await cluster.start(0)
        cluster.image = changed(cluster.image, rounds=OpenRounds(4, 3, BEFORE_ALL))
        await node.abort()
        upkeep = Upkeep(
            node, cluster, config_of({}), runner=None, decides=lambda: True, rng=Random(2)
        )
        task = asyncio.create_task(upkeep.run())
        await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cluster.stop()

    asyncio.run(run())
