"""Writer, reader and sealer on a store in memory, without faults; those are in the simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from objectstore.drivers.memory import MemoryStore
from objectstore.errors import Corrupt
from tests.golden.make import entry
from wal import (
    DurableObject,
    Kind,
    LogClosed,
    LogWriter,
    WalConfig,
    compose,
    compose_blob,
    end_log,
    read_end,
    read_tail,
    wal_log,
)
from wal.format import ObjectHeader, encode_header

from .whole_object import read_object

LOG = wal_log(3)
WINDOW = 4


class Rig:
    def __init__(self, config: WalConfig) -> None:
        self.store = MemoryStore(lambda: 0)
        self.durable: list[DurableObject] = []
        self.writer = LogWriter(
            self.store, LOG, WINDOW, config, rng=Random(1), on_durable=self.durable.append
        )


def with_writer(tell: Callable[[Rig], Awaitable[None]], config: WalConfig | None = None) -> Rig:
    async def main() -> Rig:
        rig = Rig(config or WalConfig())
        running = asyncio.create_task(rig.writer.run())
        await tell(rig)
        await rig.writer.close()
        await running
        return rig

    return asyncio.run(main())


def test_appends_of_one_moment_share_one_object_and_one_future() -> None:
    async def tell(rig: Rig) -> None:
        futures = [rig.writer.append(entry(1, o, 1, 100)) for o in range(50)]
        assert len({id(future) for future in futures}) == 1
        assert rig.writer.pending_bytes == 5000
        assert await futures[0] == 0
        assert rig.writer.pending_bytes == rig.writer.in_flight_bytes == 0

    rig = with_writer(tell)
    assert [len(one.entries) for one in rig.durable] == [50]


def test_an_object_holds_no_more_than_its_bound_in_bytes_and_batches() -> None:
    async def tell(rig: Rig) -> None:
        for o in range(10):
            last = rig.writer.append(entry(1, o, 1, 100))
        await last

    sizes = WalConfig(object_max_bytes=350)
    assert [len(o.entries) for o in with_writer(tell, sizes).durable] == [3, 3, 3, 1]
    counts = WalConfig(object_max_batches=4)
    assert [len(o.entries) for o in with_writer(tell, counts).durable] == [4, 4, 2]


def test_append_many_is_never_split_and_one_larger_than_the_bound_goes_alone() -> None:
    async def tell(rig: Rig) -> None:
        rig.writer.append(entry(1, 0, 1, 100))
        rig.writer.append_many([entry(1, o, 1, 100) for o in range(1, 6)], [b"c"])
        await rig.writer.append(entry(1, 6, 1, 100))

    rig = with_writer(tell, WalConfig(object_max_bytes=300))
    assert [len(one.entries) for one in rig.durable] == [1, 5, 1]
    assert [one.controls for one in rig.durable] == [[], [b"c"], []]


def test_more_outstanding_than_the_hard_limit_is_a_bug_of_the_caller() -> None:
    async def tell(rig: Rig) -> None:
        rig.writer.append(entry(1, 0, 1, 900))
        with pytest.raises(AssertionError, match="outstanding"):
            rig.writer.append(entry(1, 1, 1, 200))

    with_writer(tell, WalConfig(object_max_bytes=1000, outstanding_limit_bytes=1000))


def test_what_is_appended_while_durable_objects_are_told_of_goes_on() -> None:
    async def main() -> None:
        store = MemoryStore(lambda: 0)
        told: list[int] = []

        def on_durable(one: DurableObject) -> None:
            told.append(one.seq)
            if one.seq < 5:
                writer.append_control(b"next")

        writer = LogWriter(store, LOG, WINDOW, WalConfig(), rng=Random(1), on_durable=on_durable)
        running = asyncio.create_task(writer.run())
        await writer.append_control(b"first")
        while len(told) < 6:
            await writer.flush()
        await writer.close()
        await running
        assert told == [0, 1, 2, 3, 4, 5]

    asyncio.run(main())


def test_abort_tells_every_future_and_refuses_more() -> None:
    async def main() -> None:
        rig = Rig(WalConfig())
        never_ran = rig.writer.append(entry(1, 0, 1, 10))
        rig.writer.abort()
        with pytest.raises(LogClosed):
            await never_ran
        with pytest.raises(LogClosed):
            rig.writer.append(entry(1, 1, 1, 10))
        with pytest.raises(LogClosed):
            await rig.writer.confirm()
        with pytest.raises(LogClosed):
            await rig.writer.flush()
        await rig.writer.run()  # returns at once

    asyncio.run(main())


def test_a_waiter_cannot_cancel_what_others_wait_for() -> None:
    async def tell(rig: Rig) -> None:
        future = rig.writer.append(entry(1, 0, 1, 10))
        assert not future.cancel()
        assert list(await asyncio.gather(future, future)) == [0, 0]

    with_writer(tell)


def test_a_tail_is_read_by_its_indexes_and_from_any_place() -> None:
    async def tell(rig: Rig) -> None:
        for o in range(40):
            await rig.writer.append(entry(1, o, 1, 100))
        light = await read_tail(rig.store, LOG, None)
        assert [one.seq for one in light] == list(range(40))
        for one, durable in zip(light, rig.durable, strict=True):
            whole = await read_object(rig.store, one.key, durable.write_id)
            assert one.write_id == durable.write_id and one.index == whole.index
            assert len(whole.data) == one.size == durable.size_bytes
            assert durable.entries[0].buffer == whole.data[80:180]
        assert [one.seq for one in await read_tail(rig.store, LOG, 30, from_seq=28)] == [28, 29]

    with_writer(tell)


@pytest.mark.parametrize(
    ("kind", "log_id", "seq", "trim", "durable", "checkpoint"),
    [
        (Kind.LOG, 4, 1, 0, 1, None),  # another log's
        (Kind.LOG, 3, 2, 0, 1, None),  # another place's
        (Kind.DATA, 3, 1, 0, 1, None),
        (Kind.LOG, 3, 1, 1, 1, None),  # trimmed without a checkpoint
        (Kind.LOG, 3, 1, 1, 1, 0),  # trimmed past its checkpoint
        (Kind.LOG, 3, 1, 0, 2, None),  # durable before it was written
    ],
)
def test_an_object_that_does_not_belong_there_stops_reader_and_sealer(
    kind: Kind, log_id: int, seq: int, trim: int, durable: int, checkpoint: int | None
) -> None:
    async def main() -> None:
        store = MemoryStore(lambda: 0)
        good, _, _ = compose(Kind.LOG, 3, 0, 0, 0, None, WINDOW, bytes(16), [], [b"x"])
        await store.create(LOG.key(0), good)
        bad, _, _ = compose(
            kind, log_id, seq, trim, durable, checkpoint, WINDOW, bytes(16), [], [b"x"]
        )
        await store.create(LOG.key(1), bad)
        for reading in (
            read_tail(store, LOG, None),
            read_tail(store, LOG, 2),
            end_log(store, LOG, WINDOW, b"me", Random(1)),
        ):
            with pytest.raises(Corrupt, match=LOG.key(1)):
                await reading
        assert await read_end(store, LOG) is None

    asyncio.run(main())


def test_a_window_other_than_the_logs_is_refused() -> None:
    async def tell(rig: Rig) -> None:
        await rig.writer.append(entry(1, 0, 1, 10))
        with pytest.raises(Corrupt, match="window"):
            await end_log(rig.store, LOG, WINDOW + 1, b"me", Random(1))

    with_writer(tell)


def test_a_damaged_end_or_foreign_name_is_named() -> None:
    async def main() -> None:
        store = MemoryStore(lambda: 0)
        chunks, _ = compose_blob(Kind.END, 3, 5, bytes(16), b"\xc1")
        await store.create(LOG.end_key, chunks)
        with pytest.raises(Corrupt, match=LOG.end_key):
            await read_end(store, LOG)
        other = MemoryStore(lambda: 0)
        await other.create(
            f"{LOG.prefix}7", [encode_header(ObjectHeader(Kind.LOG, bytes(16), 3, 7))]
        )
        with pytest.raises(Corrupt, match=f"{LOG.prefix}7"):
            await end_log(other, LOG, WINDOW, b"me", Random(1))

    asyncio.run(main())
