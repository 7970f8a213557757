"""Writing a log: several PUTs in flight, acknowledged over the contiguous prefix only.

Appends gather in a _Fill. When `group_commit` says so, the oldest fill gets the next sequence
number, its bytes are fixed, and a task sends them until they are there or the log has ended. A
later PUT may finish first; what waits on it is told only when all before it are durable.

    append -> fill -> (cut: sequence, bytes) -> in flight -> durable, in order

`run()` owns every PUT. Callers only hold futures, so a caller that is cancelled takes nothing
out of the log.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from objectstore.create import Backoff, create_once
from objectstore.errors import BucketMissing, Corrupt, NotFound, StoreError, StoreUnavailable
from objectstore.store import Buffer, ObjectStore

from .config import WalConfig
from .durable_future import DurableFuture
from .errors import Fenced, LogClosed, LogError
from .format.compose import BatchEntry, compose
from .format.header import Kind
from .format.index import ObjectIndex
from .format.read import read_header
from .group_commit import Counts, GroupCommit, Pending, Reason
from .keys import LogName, meta_log
from .seal import read_seal

# A PUT without an answer for so long is told as trouble, though it may still succeed.
LATE_S = 2.0
# To name who fenced us is a courtesy; a store that is away must not hold up the stop.
READ_SEAL_TIMEOUT_S = 2.0

# Its first object makes the cluster.
FIRST_LOG = meta_log(0)

OnTrouble = Callable[[StoreError | None], None]


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
class _Fill:
    """What goes into one object, not cut yet."""

    oldest_at: float
    future: DurableFuture
    size: int = 0
    full: bool = False
    urgent: bool = False
    entries: list[BatchEntry] = field(default_factory=list)
    controls: list[bytes] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Flight:
    """One object whose bytes are fixed."""

    seq: int
    write_id: bytes
    fill: _Fill
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
        self._on_trouble = on_trouble
        self._commit = GroupCommit(config)
        self._fills: deque[_Fill] = deque()
        self._pending_bytes = 0
        self._flights: deque[_Flight] = deque()
        self._in_flight_bytes = 0
        self._next_seq = first_seq
        self._durable_seq = first_seq
        self._trim = 0
        self._checkpoint: int | None = None
        self._last_confirmed_at = -math.inf
        self._trouble: type[StoreError] | None = None
        self._bucket_was_missing = False
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._confirm_next: DurableFuture | None = None
        self._confirming = False
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
        return self._pending_bytes

    @property
    def in_flight(self) -> int:
        """Objects cut and not acknowledged yet."""
        return len(self._flights)

    @property
    def in_flight_bytes(self) -> int:
        """Of those objects, whole."""
        return self._in_flight_bytes

    @property
    def last_confirmed_at(self) -> float:
        """Loop time: as of then no other process had ended this log. -inf before the first."""
        return self._last_confirmed_at

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
        fill = self._fill_for(size, 1)
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
        fill = self._fill_for(size, len(entries))
        fill.entries.extend(entries)
        fill.controls.extend(controls)
        self._grow(fill, size)
        if controls:
            self._hurry(fill)
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
                self._start_confirming()
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
            self._hurry(self._fills[-1])
            await self._fills[-1].future
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
            self._hurry(self._fills[-1])
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
        if self._confirm_next is None:
            self._confirm_next = DurableFuture(loop=asyncio.get_running_loop())
            self._start_confirming()
        await self._confirm_next

    # Filling.

    def _check_alive(self) -> None:
        if self._fenced is not None:
            raise self._fenced_again()
        if self._stopped.is_set():
            raise LogClosed(f"{self._log}: closed")

    def _check_open(self) -> None:
        self._check_alive()
        if self._closing:
            raise LogClosed(f"{self._log}: closing")

    def _fill_for(self, size: int, batches: int) -> _Fill:
        if self._fills:
            fill = self._fills[-1]
            fits = (
                fill.size + size <= self._config.object_max_bytes
                and len(fill.entries) + batches <= self._config.object_max_batches
            )
            if fits and not fill.full:
                return fill
            fill.full = True
        loop = asyncio.get_running_loop()
        fill = _Fill(loop.time(), DurableFuture(loop=loop))
        self._fills.append(fill)
        self._wake.set()
        return fill

    def _grow(self, fill: _Fill, size: int) -> None:
        fill.size += size
        self._pending_bytes += size
        outstanding = self._pending_bytes + self._in_flight_bytes
        assert outstanding <= self._config.outstanding_limit_bytes, (
            f"{self._log}: {outstanding} bytes outstanding; appenders must stop before that"
        )
        config = self._config
        if fill.size >= config.object_max_bytes or len(fill.entries) >= config.object_max_batches:
            fill.full = True
            self._wake.set()

    def _hurry(self, fill: _Fill) -> None:
        if not fill.urgent:
            fill.urgent = True
            self._wake.set()

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
            try:
                async with asyncio.timeout_at(again_at):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _cut(self, loop: asyncio.AbstractEventLoop) -> float | None:
        """Cut what may be cut; when to look again, if time alone can change the answer."""
        while self._fills and self._fenced is None:
            now = loop.time()
            fill = self._fills[0]
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
            self._fills.popleft()
            self._send(fill, decision.reason, now)
        return None

    def _send(self, fill: _Fill, reason: Reason, now: float) -> None:
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
        flight = _Flight(seq, write_id, fill, chunks, index, size, now)
        self._flights.append(flight)
        self._pending_bytes -= fill.size
        self._in_flight_bytes += size
        self._commit.cut(now, reason)
        self._tasks.create_task(self._put(flight), name=f"put {self._log.key(seq)}")

    # Landing.

    async def _put(self, flight: _Flight) -> None:
        """Send one object until it is there (the same bytes each time), or the log has ended."""
        loop = asyncio.get_running_loop()
        late = loop.call_later(LATE_S, self._note_late, self._log.key(flight.seq))
        try:
            # Paused or crashed before this: nobody knows of the object, and nobody was told.
            ours = await create_once(
                self._store,
                self._log.key(flight.seq),
                flight.chunks,
                flight.write_id,
                rng=self._rng,
                on_trouble=self._note_trouble,
            )
        finally:
            late.cancel()
        if self._bucket_was_missing:
            await self._check_bucket()
        if self._fenced is not None:
            return
        if not ours:
            await self._stop_fenced(flight.seq)
        flight.landed = True
        flight.chunks = []
        self._commit.put_returned(loop.time() - flight.sent_at)
        self._note_health()
        self._acknowledge()
        self._wake.set()

    async def _check_bucket(self) -> None:
        """A bucket that was away may have been made anew: then it is not the one of this cluster.

        Raises Corrupt: nothing is acknowledged into it.
        """
        if self._log == FIRST_LOG and self._durable_seq == 0:
            return  # there is no cluster yet
        key = FIRST_LOG.key(0)
        backoff = Backoff(self._rng)
        while True:
            try:
                await read_header(self._store, key)
            except NotFound as error:
                raise Corrupt(
                    f"{key}, which is never deleted, is gone: the bucket was made anew while this "
                    "broker ran, and holds nothing of its cluster. Restore the bucket, or start a "
                    "new cluster in an empty one"
                ) from error
            except Corrupt:
                raise
            except StoreError as error:
                self._note_trouble(key, error)
                await asyncio.sleep(backoff.next_s())
            else:
                self._bucket_was_missing = False
                return

    def _acknowledge(self) -> None:
        # Not in the order of arrival: a hole before an object could still be sealed.
        while self._flights and self._flights[0].landed:
            flight = self._flights.popleft()
            fill = flight.fill
            self._durable_seq = flight.seq + 1
            self._in_flight_bytes -= flight.size
            self._last_confirmed_at = max(self._last_confirmed_at, flight.sent_at)
            self._on_durable(
                DurableObject(
                    flight.seq,
                    self._log.key(flight.seq),
                    flight.write_id,
                    flight.size,
                    flight.index,
                    fill.entries,
                    fill.controls,
                    flight.sent_at,
                )
            )
            fill.future.resolve(flight.seq)

    async def _stop_fenced(self, seq: int) -> None:
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

    # Confirming.

    def _start_confirming(self) -> None:
        if self._tasks is not None and self._confirm_next is not None and not self._confirming:
            self._confirming = True
            self._tasks.create_task(self._confirm_all(), name=f"confirm {self._log}")

    async def _confirm_all(self) -> None:
        while (waiting := self._confirm_next) is not None:
            self._confirm_next = None
            try:
                await self._confirm_once()
            except StoreError as error:
                waiting.fail(error)
            except BaseException:
                waiting.fail(self._why_stopped())
                raise
            else:
                waiting.resolve(self._next_seq)
        self._confirming = False

    async def _confirm_once(self) -> None:
        """The place asked for is the next to be cut, not the first that is not durable: what is
        in flight may be in the ended log, and collected since, and would be found missing. The
        place behind it holds a seal for ever once the log has an end: seals cover all of
        [end, end + window], and the end is no more than `window` below it.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        while self._last_confirmed_at < asked_at:
            seq = self._next_seq
            sent_at = loop.time()
            try:
                found = await read_header(self._store, self._log.key(seq))
            except NotFound:
                self._last_confirmed_at = max(self._last_confirmed_at, sent_at)
                return
            except Corrupt:
                await self._stop_fenced(seq)  # not of our making
                return
            # Our own, when it was cut while the GET was under way: that proves nothing, ask again.
            own = [flight.write_id for flight in self._flights if flight.seq == seq]
            if seq >= self._durable_seq and found.write_id not in own:
                await self._stop_fenced(seq)

    # Store trouble: told once per change.

    def _note_late(self, key: str) -> None:
        if self._trouble is None:
            self._note_trouble(key, StoreUnavailable(f"create {key}: no answer for {LATE_S:g} s"))

    def _note_trouble(self, key: str, error: StoreError) -> None:
        if isinstance(error, BucketMissing):
            self._bucket_was_missing = True
        if self._trouble is not type(error):
            self._trouble = type(error)
            if self._on_trouble is not None:
                self._on_trouble(error)

    def _note_health(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            if self._on_trouble is not None:
                self._on_trouble(None)

    def _fenced_again(self) -> Fenced:
        assert self._fenced is not None
        return Fenced(self._log, self._fenced.seq, self._fenced.maker)

    def _drop_all(self) -> None:
        flights, fills = self._flights, self._fills
        self._dropped = self._dropped or bool(flights or fills)
        self._flights, self._fills = deque(), deque()
        self._pending_bytes = self._in_flight_bytes = 0
        for fill in [*(flight.fill for flight in flights), *fills]:
            fill.future.fail(self._why_stopped())
        if self._confirm_next is not None:
            self._confirm_next.fail(self._why_stopped())

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
