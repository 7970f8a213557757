"""Owning a term: winning it, writing its log, and the images that the log adds up to.

A decision is checked against the planned image, appended without an await in between, and told
only when it is durable. So two decisions at a time need no lock, and a caller that goes away
takes nothing back. Everything else in the broker acts on `image`, which is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random

from objectstore.errors import StoreError
from objectstore.store import ObjectStore
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata import records as r
from s3stream.metadata.image import EMPTY_IMAGE, BrokerRegistration, MetadataImage
from s3stream.metadata.log import SNAPSHOT_RECORDS, OnObject, TermLog
from s3stream.metadata.tail import load
from wal.errors import Fenced, LogClosed, LogError

from .denial import Denial
from .election import Election, Won
from .subscribers import Subscriber, Subscribers

log = logging.getLogger(__name__)

# Decisions that wait for a store that is away; beyond this a client is told to try again.
RECORDS_AHEAD_AT_MOST = 10_000
BYTES_AHEAD_AT_MOST = 64 << 20
FENCED_PATIENCE_S = 2.0


class Term:
    """One term's log, once it is won; what is decided in it is the subclass's.

    on_trouble: the metadata log cannot be written (None: it can again). on_object: each durable
    object's sequence and records, for those who follow.
    """

    def __init__(
        self,
        store: ObjectStore,
        election: Election,
        *,
        rng: Random,
        on_trouble: Callable[[StoreError | None], None] | None = None,
        on_object: OnObject | None = None,
        snapshot_records: int = SNAPSHOT_RECORDS,
    ) -> None:
        self._store = store
        self._rng = rng
        self._on_trouble = on_trouble
        self._on_object = on_object
        self._election = election
        self._snapshot_records = snapshot_records
        self._subscribers = Subscribers("this broker ends")
        self._log: TermLog | None = None
        self._running: asyncio.Task[None] | None = None
        self._denial = Denial()
        self._won: Won | None = None

    # What this process is.

    @property
    def image(self) -> MetadataImage:
        """Every durable decision."""
        return EMPTY_IMAGE if self._log is None else self._log.image

    @property
    def term(self) -> int:
        """The one that was won."""
        assert self._won is not None, "not started"
        return self._won.term

    @property
    def node_id(self) -> int:
        assert self._won is not None, "not started"
        return self._won.node_id

    @property
    def incarnation(self) -> int:
        """Of this process; its write-ahead log carries it."""
        assert self._won is not None, "not started"
        return self._won.incarnation

    @property
    def process(self) -> bytes:
        """Names this process for ever."""
        assert self._won is not None, "not started"
        return self._won.process

    @property
    def wal_window(self) -> int:
        """PUTs in flight of this incarnation's log."""
        return self.image.incarnations[self.incarnation].window

    @property
    def owns_term(self) -> bool:
        """Whether this process decides, as far as it knows; a durable decision proves it."""
        return self._log is not None and self._log.is_ours

    @property
    def last_confirmed_at(self) -> float:
        """Loop time at which this process surely decided."""
        assert self._log is not None, "not started"
        return self._log.last_confirmed_at

    @property
    def waiting_s(self) -> float:
        """For how long the oldest decision under way has waited for the store; 0: none does."""
        return 0.0 if self._log is None else self._log.waiting_s

    def subscribe(self, subscriber: Subscriber) -> None:
        """Called with the old and the new image, in order, before any answer tells of the new.

        It must not raise. Should it, the other subscribers are told all the same, and `run` ends
        with the error: who missed a decision would go on serving what is no longer so.
        """
        self._subscribers.add(subscriber)

    # Starting and stopping.

    async def start(self) -> None:
        """Own a term (of a new cluster, if there is none), and stand registered in it.

        Raises StartRefused, AccessDenied, UnsuitableStore, Corrupt, HoleInLog.
        """
        while not await self.attempt():
            await self._election.wait_after_loss()

    async def attempt(self) -> bool:
        """The same once; False where another process won the term."""
        won = await self._election.run_once()
        if won is None:
            return False
        self._open_log(won)
        try:
            # A start that may not write stops; later on a missing permission is waited out.
            await self._denial.guard(self._first_records(won.first))
        except Fenced as error:
            # Another process made the cluster first, or ended our term before it began.
            log.info("lost the term: %s", error)
            await self._drop_log()
            return False
        except BaseException:
            await self._drop_log()
            raise
        await self._election.tell_replaced(won)
        return True

    def _open_log(self, won: Won) -> None:
        self._won = won
        self._log = TermLog(
            self._store,
            won.term,
            won.window,
            won.image,
            rng=self._rng,
            on_image=self._subscribers.tell,
            on_trouble=self._trouble,
            on_object=self._on_object,
            unsnapshot=won.unsnapshot,
            snapshot_records=self._snapshot_records,
        )
        self._running = asyncio.create_task(self._log.run(), name="controller")

    async def _first_records(self, records: Sequence[r.Record]) -> None:
        assert self._log is not None
        await asyncio.shield(self._log.append(records))

    def _trouble(self, error: StoreError | None) -> None:
        self._denial.note("the metadata log", error)
        if self._on_trouble is not None:
            self._on_trouble(error)

    async def run(self) -> None:
        """Owner's task, after `start`: until closed. Raises Fenced, and for bugs of subscribers."""
        running = self._running
        assert running is not None, "start() first"
        # Not cancelled with us: close() still writes what is pending.
        await self._subscribers.watch(running)

    async def close(self, deadline_s: float | None = None) -> None:
        """Write what was decided, then stop; after `deadline_s` the rest is left unknown."""
        if self._log is None:
            return
        await self._log.close(deadline_s)
        await self._drop_log()

    async def abort(self) -> None:
        """Stop at once."""
        await self._drop_log()

    async def _drop_log(self) -> None:
        running, self._running = self._running, None
        if self._log is not None:
            self._log.abort()
        if running is not None:
            running.cancel()
            await asyncio.wait((running,))
            if not running.cancelled():
                running.exception()  # told to run() and to every waiting decision already

    async def successor(self) -> BrokerRegistration | None:
        """After Fenced: who took this process's place, if the log tells it already."""
        if self._won is None:
            return None
        return await successor_of(self._store, self._won.process, self._won.node_id)

    async def confirm(self) -> None:
        """Make sure that this process still decides; for the housekeeping of an idle broker.

        Raises Fenced (`run` ends with it too), LogClosed, or StoreError: not known.
        """
        assert self._log is not None, "not started"
        await self._log.confirm()

    async def fenced(self) -> Fenced | None:
        """Whether another process took this one's place, as far as the store tells it now.

        For who met something that a replaced process meets: what it reads may be gone by now.
        """
        if self._log is None:
            return None
        try:
            async with asyncio.timeout(FENCED_PATIENCE_S):
                await self._log.confirm()
        except Fenced as error:
            return error
        except (StoreError, LogError, TimeoutError):
            pass
        return None

    async def still_decides(self) -> None:
        """`confirm` for a handler: raises KafkaError NOT_CONTROLLER where it does not.

        Where the store is away nobody can have replaced us since; who asks may be told so.
        """
        try:
            await self.confirm()
        except LogError as error:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, detail=str(error)) from error
        except StoreError as error:
            log.info("whether this broker was replaced is not known: %s", error)

    # Deciding.

    async def decide(self, records: Sequence[r.Record]) -> None:
        """Durable when it returns; no await before the records are in the log's hands.

        Without records the answer is only what the image says, "it exists already" for instance,
        and a process that was replaced has an old one: so it is confirmed first.
        """
        if self._log is None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, detail="the controller has not started")
        try:
            if records:
                self._log.append(records)
            await self._log.settled()
        except (Fenced, LogClosed) as error:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, detail=str(error)) from error
        if not records:
            await self.still_decides()

    def planned(self) -> MetadataImage:
        """What decisions are checked against: the image, and what is on its way to it.

        Raises KafkaError: this process decides nothing (now).
        """
        if self._log is None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, detail="the controller has not started")
        if self._log.ahead > RECORDS_AHEAD_AT_MOST or self._log.ahead_bytes > BYTES_AHEAD_AT_MOST:
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT,
                "The metadata log cannot be written at the moment; try again later.",
            )
        return self._log.planned


async def successor_of(
    store: ObjectStore, process: bytes, node_id: int
) -> BrokerRegistration | None:
    """Who has this process's node id now, or else decides, as far as the log in the store tells."""
    try:
        loaded = await load(store)
    except (StoreError, LogError):
        return None
    if loaded is None or loaded.image.holder is None:
        return None
    for wanted in (node_id, loaded.image.holder.node_id):
        broker = loaded.image.brokers.get(wanted)
        if broker is not None and broker.process != process:
            return broker
    return None
