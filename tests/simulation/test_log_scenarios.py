"""Named stories of one log: a rule of the protocol each, on a store that does what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from objectstore.errors import StoreError, StoreUnavailable
from wal import (
    DurableObject,
    Fenced,
    HoleInLog,
    Kind,
    LogClosed,
    LogWriter,
    TrimmedAway,
    WalConfig,
    end_log,
    read_end,
    read_tail,
    wal_log,
)
from wal.format import decode_header, read_header

from .log_world import batch
from .loop import SimulatedLoop, on_node, start_on
from .store import SimulatedStore

LOG = wal_log(7)
WINDOW = 4
# Everything goes at once: each append that finds the loop idle is an object of its own.
CONFIG = WalConfig(latency_target_s=0.0, object_max_batches=1)


class Story:
    def __init__(self) -> None:
        self.loop = SimulatedLoop(1)
        self.store = SimulatedStore(self.loop, Random(2))
        self.durable: list[DurableObject] = []
        self.trouble: list[StoreError | None] = []
        self.number = 0
        self.writer: LogWriter
        self.running: asyncio.Task[None]

    def start(self, config: WalConfig = CONFIG) -> None:
        self.writer = LogWriter(
            self.store,
            LOG,
            WINDOW,
            config,
            rng=Random(3),
            on_durable=self.durable.append,
            on_trouble=self.trouble.append,
        )
        self.running = start_on("writer", self.writer.run())

    def append(self) -> asyncio.Future[int]:
        with on_node("writer"):
            future = self.writer.append(batch(self.number))
        self.number += 1
        return future

    async def append_durably(self, count: int) -> None:
        for _ in range(count):
            await self.append()

    async def trim_to(self, seq: int) -> None:
        checkpoint = await self.writer.append_control(b"checkpoint")
        self.writer.set_trim(seq, checkpoint)
        await self.append()  # whose header says so

    async def end(self, maker: bytes = b"new owner") -> int:
        return (await end_log(self.store, LOG, WINDOW, maker, Random(4))).end

    async def kinds(self) -> dict[int, Kind]:
        found = {}
        async for row in self.store.inner.list(LOG.prefix):
            seq = LOG.seq_of(row.key)
            if seq is not None:
                found[seq] = (await read_header(self.store.inner, row.key)).kind
        return found

    @property
    def acked(self) -> list[int]:
        return [one.seq for one in self.durable]


def story(tell: Callable[[Story], Awaitable[None]]) -> Callable[[], None]:
    """A test that runs `tell` under the simulated loop; a writer still running is aborted."""

    def test() -> None:
        s = Story()

        async def main() -> None:
            await tell(s)
            if hasattr(s, "running") and not s.running.done() and "writer" not in s.loop._crashed:
                s.loop.resume("writer")
                s.writer.abort()
                await s.running

        s.loop.run(main())

    test.__name__ = tell.__name__
    test.__doc__ = tell.__doc__
    return test


# PROTOCOL 3


@story
async def test_no_more_puts_are_in_flight_than_the_window_allows(s: Story) -> None:
    s.store.outage()
    s.start()
    futures = [s.append() for _ in range(20)]
    await asyncio.sleep(10)
    assert s.writer.in_flight == WINDOW
    assert s.writer.next_seq == WINDOW
    s.store.recover()
    assert [await future for future in futures] == list(range(20))


@story
async def test_bytes_of_a_sequence_stay_the_same_over_all_attempts(s: Story) -> None:
    sent: dict[str, list[bytes]] = {}
    create = s.store.create

    async def spy(key: str, chunks: list[bytes]) -> None:
        sent.setdefault(key, []).append(b"".join(chunks))
        await create(key, chunks)

    s.store.create = spy  # type: ignore[method-assign, assignment]
    s.start()
    await s.append_durably(3)
    s.store.rule("before", "create", LOG.key(3), times=4)
    held = s.append()
    checkpoint = s.writer.append_control(b"checkpoint")
    await asyncio.sleep(0.02)
    assert not held.done()
    s.append()
    await checkpoint
    s.writer.set_trim(2, checkpoint.result())
    await s.append()
    attempts = sent[LOG.key(3)]
    assert len(attempts) == 5
    assert len(set(attempts)) == 1


@story
async def test_nothing_is_acknowledged_over_a_missing_predecessor(s: Story) -> None:
    s.start()
    await s.append_durably(1)
    s.store.rule("before", "create", LOG.key(1), times=3)
    late, *others = [s.append() for _ in range(3)]
    while len(await s.kinds()) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    assert s.acked == [0]
    assert not any(future.done() for future in others)
    await late
    await asyncio.gather(*others)
    assert s.acked == [0, 1, 2, 3]


@story
async def test_a_lost_reply_is_settled_by_the_header_found(s: Story) -> None:
    s.store.lose_reply(LOG.key(0))
    s.start()
    assert await s.append() == 0
    assert s.store.fired["lost_reply"] == 1
    assert await s.kinds() == {0: Kind.LOG}


@story
async def test_headers_carry_trim_durable_checkpoint_and_window(s: Story) -> None:
    s.start()
    await s.append_durably(3)
    await s.trim_to(2)
    header = decode_header(await s.store.get(LOG.key(4)), LOG.key(4))
    assert (header.trim, header.durable, header.checkpoint, header.window) == (2, 4, 3, WINDOW)


@story
async def test_trim_may_pass_neither_its_checkpoint_nor_what_is_durable(s: Story) -> None:
    s.start()
    await s.append_durably(3)
    for trim, checkpoint in ((2, 1), (3, 3), (1, 7)):
        with pytest.raises(AssertionError):
            s.writer.set_trim(trim, checkpoint)
    s.writer.set_trim(2, 2)
    with pytest.raises(AssertionError):
        s.writer.set_trim(1, 2)


@story
async def test_a_reader_takes_keys_below_the_trim_for_absent(s: Story) -> None:
    s.start()
    await s.append_durably(3)
    await s.trim_to(3)
    await s.store.inner.delete([LOG.key(1)])
    assert [one.seq for one in await read_tail(s.store, LOG, None)] == [3, 4]
    with pytest.raises(TrimmedAway):
        await read_tail(s.store, LOG, None, from_seq=2)
    assert [one.seq for one in await read_tail(s.store, LOG, None, from_seq=4)] == [4]
    assert await read_tail(s.store, LOG, None, from_seq=5) == []


@story
async def test_a_hole_stops_the_reader_loudly(s: Story) -> None:
    s.start()
    await s.append_durably(5)
    await s.store.inner.delete([LOG.key(2)])
    with pytest.raises(HoleInLog, match=f"{2:020d}"):
        await read_tail(s.store, LOG, None)
    with pytest.raises(HoleInLog, match=f"{2:020d}"):
        await read_tail(s.store, LOG, 5)
    with pytest.raises(HoleInLog, match=f"{2:020d}"):
        await s.end()
    assert await read_end(s.store, LOG) is None


@story
async def test_what_lies_behind_a_gap_in_flight_does_not_count(s: Story) -> None:
    s.start()
    await s.append_durably(2)
    s.store.rule("late", "create", LOG.key(2), times=1)
    s.store.rule("before", "create", LOG.key(2), times=1000)
    for _ in range(2):
        s.append()
    await asyncio.sleep(1)
    assert set(await s.kinds()) == {0, 1, 3}
    assert [one.seq for one in await read_tail(s.store, LOG, None)] == [0, 1]


# PROTOCOL 4


@story
async def test_the_sealer_seals_the_whole_window_at_once(s: Story) -> None:
    s.start()
    await s.append_durably(2)
    s.loop.crash("writer")
    begun: list[tuple[str, float]] = []
    create = s.store.create

    async def spy(key: str, chunks: list[bytes]) -> None:
        begun.append((key, s.loop.time()))
        await create(key, chunks)

    s.store.create = spy  # type: ignore[method-assign, assignment]
    assert await s.end() == 2
    seals = begun[: WINDOW + 1]
    assert {key for key, _ in seals} == {LOG.key(seq) for seq in range(2, 2 + WINDOW + 1)}
    assert len({at for _, at in seals}) == 1
    assert begun[-1][0] == LOG.end_key


@story
async def test_a_writer_that_never_rests_is_ended_however_slow_the_sealer_is(s: Story) -> None:
    """Its LIST and its headers take the sealer longer than the writer needs for many windows."""
    s.start()
    await s.append_durably(300)

    async def produce() -> None:
        while True:
            await asyncio.wait([s.append() for _ in range(WINDOW)])

    producing = asyncio.create_task(produce())
    async with asyncio.timeout(30):
        end = await s.end()
    with pytest.raises(Fenced):
        await producing
    with pytest.raises(Fenced):
        await s.running
    # What was under way when it met the first seal may count, and was told to nobody.
    assert s.acked == list(range(len(s.acked)))
    assert len(s.acked) <= end <= len(s.acked) + WINDOW
    assert [one.seq for one in await read_tail(s.store, LOG, end)] == list(range(end))


@story
async def test_data_that_lands_while_the_sealer_seals_is_simply_data(s: Story) -> None:
    s.start()
    await s.append_durably(2)
    for seq in (2, 3):
        s.store.rule("late", "create", LOG.key(seq))
        s.store.rule("before", "create", LOG.key(seq), times=1000)
    s.append()
    s.append()
    await asyncio.sleep(0.5)
    s.store.rule("before", "create", LOG.key(2), times=1, node="sealer")
    sealing = start_on("sealer", s.end())
    while 4 not in await s.kinds():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    s.store.land_late(LOG.key(2))
    assert await sealing in (2, 3)
    kinds = await s.kinds()
    end = sealing.result()
    assert all(kinds[seq] is Kind.LOG for seq in range(end))
    assert kinds[end] is Kind.SEAL
    assert [one.seq for one in await read_tail(s.store, LOG, end)] == list(range(end))


@story
async def test_a_seal_at_a_trimmed_key_is_void(s: Story) -> None:
    """A sealer listed, slept, and woke after the log had been trimmed past its place."""
    s.start()
    await s.append_durably(2)
    with on_node("sealer"):
        sealing = start_on("sealer", s.end())
    while s.store.requests["create"] == 2:
        # Stop it between its LIST and its seals: they get to the store, late.
        s.store.rule("late", "create", f"{LOG.prefix}*", times=1, node="sealer")
        await asyncio.sleep(0.001)
    s.loop.crash("sealer")
    sealing.cancel()
    await s.append_durably(6)
    await s.trim_to(7)
    await s.store.inner.delete([LOG.key(seq) for seq in range(7)])
    assert s.store.land_late() >= 1
    voided = [seq for seq, kind in (await s.kinds()).items() if kind is Kind.SEAL]
    assert voided
    assert max(voided) < 7
    await s.append_durably(2)  # the writer is not fenced by it
    tail = await read_tail(s.store, LOG, None)
    assert [one.seq for one in tail] == [7, 8, 9, 10, 11][: len(tail)]
    last = s.acked[-1]
    s.loop.pause("writer")
    assert await s.end() == last + 1


@story
async def test_the_end_is_made_once_and_read_by_all_others(s: Story) -> None:
    s.start()
    await s.append_durably(3)
    s.loop.crash("writer")
    first = await end_log(s.store, LOG, WINDOW, b"a", Random(1), info=b"next term at a:1")
    second = await end_log(s.store, LOG, WINDOW, b"b", Random(2))
    again = await end_log(s.store, LOG, WINDOW, b"a", Random(3))
    assert (first.end, first.ours, first.maker) == (3, True, b"a")
    assert (second.end, second.ours, second.maker) == (3, False, b"a")
    assert second.info == b"next term at a:1"
    assert again.ours


@story
async def test_an_empty_log_ends_at_0(s: Story) -> None:
    assert await s.end() == 0
    assert await read_tail(s.store, LOG, None) == []
    s.start()
    with pytest.raises(Fenced, match="new owner"):
        await s.append()
    with pytest.raises(Fenced):
        await s.running


@story
async def test_paused_writer_acknowledges_nothing_after_new_owner_and_collector(s: Story) -> None:
    """Paused with PUTs under way; the log is ended, taken over, all its data collected; then the
    old writer wakes up, and its PUTs, sent again, find free keys."""
    s.start()
    await s.append_durably(4)
    await s.trim_to(3)
    for seq in (6, 7):
        s.store.rule("late", "create", LOG.key(seq))
    lost = [s.append(), s.append()]
    await asyncio.sleep(0.004)
    s.loop.pause("writer")
    s.store.land_late(LOG.key(7))  # behind a gap: does not count
    end = await s.end()
    assert end == 6
    recovered = [one.seq for one in await read_tail(s.store, LOG, end)]
    assert recovered == [3, 4, 5]
    kinds = await s.kinds()
    await s.store.inner.delete([LOG.key(q) for q, kind in kinds.items() if kind is Kind.LOG])
    s.store.land_late()
    s.loop.resume("writer")
    for future in lost:
        with pytest.raises(Fenced):
            await future
    with pytest.raises(Fenced, match="new owner"):
        await s.running
    assert s.acked == [0, 1, 2, 3, 4, 5]
    with pytest.raises(Fenced):
        s.append()


@story
async def test_an_old_leader_whose_last_put_was_collected_is_not_confirmed(s: Story) -> None:
    """Its object landed unknown to it, counted, and was collected after the end: the first place
    that it has no answer for is empty again, but the one behind all it sent holds a seal."""
    s.start()
    await s.append_durably(2)
    s.store.lose_reply(LOG.key(2))
    s.store.rule("hang", "get", LOG.key(2), times=100, node="writer")
    s.append()
    await asyncio.sleep(0.1)
    end = await s.end()
    assert end == 3
    await s.store.inner.delete([LOG.key(seq) for seq in range(3)])
    with on_node("writer"):
        asking = start_on("writer", s.writer.confirm())
    with pytest.raises(Fenced):
        await asking
    with pytest.raises(Fenced):
        await s.running


# PROTOCOL 10, and trouble


@story
async def test_a_confirmation_counts_from_when_it_was_sent_and_trouble_is_no_answer(
    s: Story,
) -> None:
    s.start()
    begin = s.loop.time()
    await s.writer.confirm()
    assert begin <= s.writer.last_confirmed_at < s.loop.time()
    confirmed = s.writer.last_confirmed_at
    s.store.outage()
    with pytest.raises(StoreUnavailable):
        await s.writer.confirm()
    assert s.writer.last_confirmed_at == confirmed
    s.store.recover()


@story
async def test_questions_that_come_together_share_one_get_and_later_ones_another(
    s: Story,
) -> None:
    s.start()
    await asyncio.sleep(0.1)
    before = s.store.requests["get"]
    early = [start_on("writer", s.writer.confirm()) for _ in range(50)]
    await asyncio.sleep(0.0003)
    late = [start_on("writer", s.writer.confirm()) for _ in range(50)]
    await asyncio.gather(*early, *late)
    assert s.store.requests["get"] - before == 2


@story
async def test_trouble_is_told_once_per_change(s: Story) -> None:
    s.start()
    await s.append_durably(1)
    s.store.outage(for_s=30)
    await asyncio.gather(*[s.append() for _ in range(6)])
    assert [type(one).__name__ for one in s.trouble] == ["StoreUnavailable", "NoneType"]


@story
async def test_a_cancelled_caller_takes_nothing_out_of_the_log(s: Story) -> None:
    s.start()
    s.store.outage(for_s=5)

    async def wait(future: asyncio.Future[int]) -> int:
        return await future

    future = s.append()
    impatient, patient = asyncio.create_task(wait(future)), asyncio.create_task(wait(future))
    await asyncio.sleep(1)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert await patient == 0
    assert s.acked == [0]


@story
async def test_close_flushes_and_after_its_deadline_drops(s: Story) -> None:
    s.start(WalConfig(put_budget_per_s=0.001))
    futures = [s.append() for _ in range(3)]
    await s.writer.close()
    await s.running
    assert all(future.done() for future in futures)
    with pytest.raises(LogClosed):
        s.append()

    s.start()
    s.store.outage()
    pending = s.append()
    begin = s.loop.time()
    await s.writer.close(deadline_s=3)
    assert s.loop.time() - begin == pytest.approx(3, abs=0.1)
    with pytest.raises(LogClosed):
        await pending
    await s.running


@story
async def test_flush_hurries_past_the_put_budget(s: Story) -> None:
    s.start(WalConfig(put_budget_per_s=0.01))
    await s.append()  # takes the one token
    waiting = s.append()
    await asyncio.sleep(1)
    assert not waiting.done()
    await s.writer.flush()
    assert waiting.done()
    assert s.writer.counts.over_budget == 1
