"""Writing a log: several PUTs in flight, acknowledged over the contiguous prefix only.

Appends gather in a `Fill`. When `group_commit` says so, the oldest fill gets the next sequence
number, its bytes are fixed, and a task sends them until they are there or the log has ended. A
later PUT may finish first; what waits on it is told only when all before it are durable.

    append -> fill -> (cut: sequence, bytes) -> in flight -> durable, in order

`run()` owns every PUT. Callers only hold futures, so a caller that is cancelled takes nothing
out of the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from objectstore.create import create_once
from objectstore.errors import StoreError
from objectstore.store import Buffer, ObjectStore

from .config import WalConfig
from .confirming import Confirming
from .durable_future import DurableFuture
from .errors import Fenced, LogClosed, LogError
from .fills import Fill, Fills
from .format.compose import BatchEntry, compose
from .format.header import Kind
from .format.index import ObjectIndex
from .group_commit import Counts, GroupCommit, Pending, Reason
from .keys import LogName
from .seal import read_seal
from .store_trouble import FIRST_LOG, LATE_S, OnTrouble, StoreTrouble

# To name who fenced us is a courtesy; a store that is away must not hold up the stop.
READ_SEAL_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class DurableObject:
    """An object that entered the contiguous prefix. sent_at: loop time of its first PUT."""

    seq: int
    key: str
    write_id: bytes
    size_bytes: int
    index: ObjectIndex
    entries: list[BatchEntry]
    controls: list[bytes]
    sent_at: float


@dataclass(slots=True, eq=False)
class _Flight:
    """One object whose bytes are fixed."""

    seq: int
    key: str
    write_id: bytes
    fill: Fill
    chunks: list[Buffer]
    index: ObjectIndex
    size: int
    sent_at: float
    landed: bool = False


class _Aborted(Exception):
    """Leaves run() to cancel the PUTs; never seen outside."""


class LogWriter:
    """The one writer of a log that this process was given.

    on_durable: called in sequence order, before the object's future resolves; must not raise.
    on_trouble: called with the error when the store's trouble begins or changes its kind, and
    with None when a PUT goes through again.
    first_seq: of a log that somebody began (`meta/0/0`).
    """

    def __init__(
        self,
        store: ObjectStore,
        log: LogName,
        window: int,
        config: WalConfig,
        *,
        rng: Random,
        on_durable: Callable[[DurableObject], None],
        on_trouble: OnTrouble | None = None,
        first_seq: int = 0,
    ) -> None:
        assert window >= 1, window
        self._store = store
        self._log = log
        self._window = window
        self._config = config
        self._rng = rng
        self._on_durable = on_durable
        self._trouble = StoreTrouble(store, rng, on_trouble)
        self._commit = GroupCommit(config)
        self._flights: deque[_Flight] = deque()
        self._in_flight_bytes = 0
        self._next_seq = first_seq
        self._durable_seq = first_seq
        self._trim = 0
        self._checkpoint: int | None = None
        self._wake = asyncio.Event()
        self._fills = Fills(config, self._wake.set)
        self._confirming = Confirming(store, log, self, self._why_stopped)
        self._stopped = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._fenced: Fenced | None = None
        self._closing = False
        self._aborted = False
        self._dropped = False  # something that had been appended, at the stop

    # What a caller may ask at any time.

    @property
    def log(self) -> LogName:
        return self._log

    @property
    def next_seq(self) -> int:
        """The sequence number that the next object to be cut will get."""
        return self._next_seq

    @property
    def durable_seq(self) -> int:
        """First sequence that is not in the contiguous prefix."""
        return self._durable_seq

    @property
    def pending_bytes(self) -> int:
        """Appended and not cut yet."""
        return self._fills.pending_bytes

    @property
    def in_flight(self) -> int:
        """Objects cut and not acknowledged yet."""
        return len(self._flights)

    @property
    def in_flight_bytes(self) -> int:
        """Of those objects, whole."""
        return self._in_flight_bytes

    @property
    def oldest_put_s(self) -> float:
        """How long ago the oldest object in flight was sent first; 0.0: none is."""
        if not self._flights:
            return 0.0
        return asyncio.get_running_loop().time() - self._flights[0].sent_at

    @property
    def last_confirmed_at(self) -> float:
        """Loop time: as of then no other process had ended this log. -inf before the first."""
        return self._confirming.last_at

    @property
    def fenced(self) -> Fenced | None:
        return self._fenced

    @property
    def is_open(self) -> bool:
        """Takes appends: not fenced, closed or stopped, as far as is known."""
        return self._fenced is None and not self._closing and not self._stopped.is_set()

    @property
    def trim(self) -> int:
        return self._trim

    @property
    def put_p50_s(self) -> float:
        return self._commit.put_p50_s

    @property
    def counts(self) -> Counts:
        """Objects cut by reason, and what the PUT budget did."""
        return self._commit.counts

    # Appending. None of these suspends.

    def append(self, entry: BatchEntry) -> DurableFuture:
        """Put a batch into the next object; the future of that object (shared, see there).

        The future resolves to the object's sequence number once it is in the durable prefix.
        Raises Fenced or LogClosed.
        """
        self._check_open()
        size = 0 if entry.reference is not None else entry.size_bytes
        fill = self._fills.room_for(size, 1)
        fill.entries.append(entry)
        self._grow(fill, size)
        return fill.future

    def append_control(self, record: bytes) -> DurableFuture:
        """Like `append`; the object that takes it goes at once, whatever the budget says."""
        return self.append_many((), (record,))

    def append_many(
        self, entries: Sequence[BatchEntry], controls: Sequence[bytes]
    ) -> DurableFuture:
        """All of them in one object, so that all become durable or none."""
        self._check_open()
        assert entries or controls, "nothing to append"
        size = sum(e.size_bytes for e in entries if e.reference is None)
        size += sum(map(len, controls))
        fill = self._fills.room_for(size, len(entries))
        fill.entries.extend(entries)
        fill.controls.extend(controls)
        self._grow(fill, size)
        if controls:
            self._fills.hurry(fill)
        return fill.future

    def set_trim(self, trim: int, checkpoint: int) -> None:
        """Headers from the next cut on carry these. Only after the checkpoint is durable.

        trim: the first sequence still needed. checkpoint: the sequence of the newest one.
        """
        assert trim <= checkpoint < self._durable_seq, (trim, checkpoint, self._durable_seq)
        assert trim >= self._trim, (trim, self._trim)
        assert self._checkpoint is None or checkpoint >= self._checkpoint, checkpoint
        self._trim = trim
        self._checkpoint = checkpoint

    def set_put_budget(self, per_s: float | None) -> None:
        """This log's share of the cluster's PUT budget, from now on; None: no budget."""
        self._commit.set_budget(per_s, asyncio.get_running_loop().time())
        self._wake.set()

    # The owner's side.

    async def run(self) -> None:
        """Write until closed or aborted. Raises Fenced; anything else is a bug.

        Cancelled: the PUTs under way are dropped; each may still happen, at any later time.
        """
        assert self._tasks is None, "run() once"
        if self._stopped.is_set():
            return  # closed before it began
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._confirming.begin(tasks)
                await self._cut_until_closed()
        except BaseExceptionGroup as group:
            error = _weightiest(group)
            if not isinstance(error, _Aborted):
                raise error from None
        finally:
            self._stopped.set()
            self._drop_all()

    async def flush(self) -> None:
        """Until everything appended so far is durable. Raises Fenced or LogClosed."""
        if self._fills:
            self._fills.hurry(self._fills.newest)
            await self._fills.newest.future
        elif self._flights:
            await self._flights[-1].fill.future
        elif self._dropped or self._fenced is not None:
            raise self._why_stopped()

    async def close(self, deadline_s: float | None = None) -> None:
        """Take nothing more, flush, stop. After `deadline_s` (None: never) what is left is dropped.

        Dropped objects may be in the log or not, as after a crash.
        """
        self._closing = True
        if self._fills:
            self._fills.hurry(self._fills.newest)
        self._wake.set()
        if self._tasks is None and not self._fills:
            self._stopped.set()
            self._drop_all()
            return
        try:
            async with asyncio.timeout(deadline_s):
                await self._stopped.wait()
        except TimeoutError:
            self.abort()
            await self._stopped.wait()

    def abort(self) -> None:
        """Stop as a crash would, but tell the futures; `run()` returns soon after."""
        self._closing = True
        self._aborted = True
        self._wake.set()
        if self._tasks is None:
            self._stopped.set()
            self._drop_all()

    async def confirm(self) -> None:
        """Make sure that nobody had ended this log when this was called (PROTOCOL 10).

        One GET of the next sequence, shared by those who ask before it is sent, never by those
        who ask after. Raises Fenced, LogClosed, or StoreError: not known.
        """
        self._check_alive()
        await self._confirming.ask()

    def _check_alive(self) -> None:
        if self._fenced is not None:
            raise self._fenced_again()
        if self._stopped.is_set():
            raise LogClosed(f"{self._log}: closed")

    def _check_open(self) -> None:
        self._check_alive()
        if self._closing:
            raise LogClosed(f"{self._log}: closing")

    def _grow(self, fill: Fill, size: int) -> None:
        self._fills.grown(fill, size)
        outstanding = self._fills.pending_bytes + self._in_flight_bytes
        assert outstanding <= self._config.outstanding_limit_bytes, (
            f"{self._log}: {outstanding} bytes outstanding; appenders must stop before that"
        )

    # Cutting.

    async def _cut_until_closed(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if self._aborted:
                raise _Aborted
            again_at = self._cut(loop)
            if self._closing and not self._fills and not self._flights:
                return
            if again_at is None:
                await self._wake.wait()
                continue
            try:
                async with asyncio.timeout_at(again_at):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _cut(self, loop: asyncio.AbstractEventLoop) -> float | None:
        """Cut what may be cut; when to look again, if time alone can change the answer."""
        while self._fills and self._fenced is None:
            now = loop.time()
            fill = self._fills.oldest
            pending = Pending(
                fill.oldest_at,
                fill.full,
                fill.urgent or self._closing,
                len(self._flights),
                self._window,
            )
            decision = self._commit.decide(now, pending)
            if decision.reason is None:
                return decision.again_at
            self._fills.cut()
            self._send(fill, decision.reason, now)
        return None

    def _send(self, fill: Fill, reason: Reason, now: float) -> None:
        assert self._tasks is not None
        seq = self._next_seq
        self._next_seq += 1
        write_id = self._rng.randbytes(16)
        chunks, index, size = compose(
            Kind.LOG,
            self._log.log_id,
            seq,
            self._trim,
            self._durable_seq,
            self._checkpoint,
            self._window,
            write_id,
            fill.entries,
            fill.controls,
        )
        key = self._log.key(seq)
        flight = _Flight(seq, key, write_id, fill, chunks, index, size, now)
        self._flights.append(flight)
        self._in_flight_bytes += size
        self._commit.cut(now, reason)
        self._tasks.create_task(self._put(flight), name=f"put {key}")

    # Landing.

    async def _put(self, flight: _Flight) -> None:
        """Send one object until it is there (the same bytes each time), or the log has ended."""
        loop = asyncio.get_running_loop()
        late = loop.call_later(LATE_S, self._trouble.late, flight.key)
        try:
            # Paused or crashed before this: nobody knows of the object, and nobody was told.
            ours = await create_once(
                self._store,
                flight.key,
                flight.chunks,
                flight.write_id,
                rng=self._rng,
                on_trouble=self._trouble.note,
            )
        finally:
            late.cancel()
        if self._log != FIRST_LOG or self._durable_seq:  # else there is no cluster yet
            await self._trouble.check_bucket()
        if self._fenced is not None:
            return
        if not ours:
            await self.stop_fenced(flight.seq)
        flight.landed = True
        flight.chunks = []
        self._commit.put_returned(loop.time() - flight.sent_at)
        self._trouble.over()
        self._acknowledge()
        if self._fills or self._closing:
            self._wake.set()

    def _acknowledge(self) -> None:
        # Not in the order of arrival: a hole before an object could still be sealed.
        while self._flights and self._flights[0].landed:
            flight = self._flights.popleft()
            fill = flight.fill
            self._durable_seq = flight.seq + 1
            self._in_flight_bytes -= flight.size
            self._confirming.note(flight.sent_at)
            self._on_durable(
                DurableObject(
                    flight.seq,
                    flight.key,
                    flight.write_id,
                    flight.size,
                    flight.index,
                    fill.entries,
                    fill.controls,
                    flight.sent_at,
                )
            )
            fill.future.resolve(flight.seq)

    async def stop_fenced(self, seq: int) -> None:
        """Somebody else's object is at `seq`, which is not durable: the log is not ours any more.

        Raises Fenced.
        """
        # Before any await: from here on nothing is cut, acknowledged or taken.
        self._fenced = Fenced(self._log, seq, b"")
        try:
            async with asyncio.timeout(READ_SEAL_TIMEOUT_S):
                seal = await read_seal(self._store, self._log, seq)
                self._fenced = Fenced(self._log, seq, seal.maker)
        except (StoreError, TimeoutError):
            pass  # the maker stays unnamed
        raise self._fenced_again()

    def in_flight_as(self, seq: int) -> bytes | None:
        """The write id of our own object that is under way to this sequence."""
        return next((one.write_id for one in self._flights if one.seq == seq), None)

    def _fenced_again(self) -> Fenced:
        assert self._fenced is not None
        return Fenced(self._log, self._fenced.seq, self._fenced.maker)

    def _drop_all(self) -> None:
        flights, fills = list(self._flights), self._fills.drop_all()
        self._dropped = self._dropped or bool(flights or fills)
        self._flights.clear()
        self._in_flight_bytes = 0
        for fill in [*(flight.fill for flight in flights), *fills]:
            fill.future.fail(self._why_stopped())
        self._confirming.stop()

    def _why_stopped(self) -> LogError:
        if self._fenced is not None:
            return self._fenced_again()
        return LogClosed(f"{self._log}: stopped before this was known to be durable")


def _weightiest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A bug before Fenced before an abort; the first of its kind."""

    def weight(error: BaseException) -> int:
        return 2 if isinstance(error, _Aborted) else 1 if isinstance(error, Fenced) else 0

    return min(_leaves(group), key=weight)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
