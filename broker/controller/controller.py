"""The controller: the one process that decides, and the log in which it does.

A decision is checked against the planned image, appended without an await in between, and told
only when it is durable. So two decisions at a time need no lock, and a caller that goes away
takes nothing back. Everything else in the broker acts on `image`, which is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Protocol
from uuid import UUID

from objectstore.create import Backoff
from objectstore.errors import AccessDenied, StoreError, StoreUnavailable, Throttled
from objectstore.store import ObjectStore
from objectstore.wrappers.retry import PATIENT, RetryStore
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata import records as r
from s3stream.metadata.apply import apply
from s3stream.metadata.image import (
    EMPTY_IMAGE,
    BrokerRegistration,
    IncarnationState,
    MetadataImage,
    TopicImage,
)
from s3stream.metadata.log import SNAPSHOT_RECORDS, TermLog
from s3stream.metadata.records import Position
from s3stream.metadata.tail import load
from wal.errors import Fenced, LogClosed, LogError
from wal.keys import wal_log
from wal.seal import LogEnd, end_log

from . import topics as t
from .denial import Denial, is_definite, stop_when_denied
from .election import Answers, CheckStore, Election, Won
from .failover import Recover, Recovered, plan_end
from .membership import Identity
from .placement import Placement

log = logging.getLogger(__name__)

# Source: ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE, Apache Kafka 4.3.1.
PRODUCER_IDS_PER_BLOCK = 1000
OPENED_PER_RECORD = 5000
# Decisions that wait for a store that is away; beyond this a client is told to try again.
RECORDS_AHEAD_AT_MOST = 10_000
BYTES_AHEAD_AT_MOST = 64 << 20
FENCED_PATIENCE_S = 2.0

Subscriber = Callable[[MetadataImage, MetadataImage], None]


class ConfigRules(Protocol):
    """What configurations may say; `broker.config` knows. Both raise KafkaError INVALID_CONFIG."""

    def check_topic(self, name: str, configs: Mapping[str, str]) -> None: ...

    def check_broker(self, name: str, configs: Mapping[str, str]) -> None: ...


class Controller:
    """Decisions, and the image that they add up to.

    identity: of this process. rules: see there. defaults: asked at each creation, since they may
    change. on_trouble: the metadata log cannot be written (None: it can again).
    """

    def __init__(
        self,
        store: ObjectStore,
        identity: Identity,
        *,
        rules: ConfigRules,
        defaults: Callable[[], t.TopicDefaults],
        answers: Answers,
        check_store: CheckStore,
        now_ms: Callable[[], int],
        rng: Random,
        on_trouble: Callable[[StoreError | None], None] | None = None,
        snapshot_records: int = SNAPSHOT_RECORDS,
    ) -> None:
        self._store = store
        self._rules = rules
        self._defaults = defaults
        self._rng = rng
        self._on_trouble = on_trouble
        self._election = Election(
            store, identity, now_ms=now_ms, rng=rng, answers=answers, check_store=check_store
        )
        self._snapshot_records = snapshot_records
        self._subscribers: list[Subscriber] = []
        self._out_of_step: Exception | None = None
        self._fell_out_of_step = asyncio.Event()
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
    def node_id(self) -> int:
        assert self._won is not None, "not started"
        return self._won.node_id

    @property
    def incarnation(self) -> int:
        """Of this process; its write-ahead log carries it."""
        assert self._won is not None, "not started"
        return self._won.incarnation

    @property
    def wal_window(self) -> int:
        """PUTs in flight of this incarnation's log."""
        return self.image.incarnations[self.incarnation].window

    @property
    def owns_term(self) -> bool:
        """Whether this process decides, as far as it knows; a durable decision proves it."""
        return self._log is not None and self._log.is_ours

    def subscribe(self, subscriber: Subscriber) -> None:
        """Called with the old and the new image, in order, before any answer tells of the new.

        It must not raise. Should it, the other subscribers are told all the same, and `run` ends
        with the error: who missed a decision would go on serving what is no longer so.
        """
        self._subscribers.append(subscriber)

    # Starting and stopping.

    async def start(self) -> None:
        """Join the cluster (or make it), own a term, be registered under a new incarnation.

        Raises StartRefused, AccessDenied, UnsuitableStore, Corrupt, HoleInLog.
        """
        while True:
            won = await self._election.run()
            self._open_log(won)
            try:
                # A start that may not write stops; later on a missing permission is waited out.
                await self._denial.guard(self._first_records(won.first))
            except Fenced as error:
                # Another process made the cluster first, or ended our term before it began.
                log.info("lost the term: %s", error)
                await self._drop_log()
                await self._election.wait_after_loss()
            except BaseException:
                await self._drop_log()
                raise
            else:
                await self._election.tell_replaced(won)
                return

    def _open_log(self, won: Won) -> None:
        self._won = won
        self._log = TermLog(
            self._store,
            won.term,
            won.window,
            won.image,
            rng=self._rng,
            on_image=self._tell,
            on_trouble=self._trouble,
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

    def _tell(self, old: MetadataImage, new: MetadataImage) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(old, new)
            except Exception as error:
                # The decision is durable, so neither the log nor who waits for it may fail by this.
                log.critical(
                    "%s could not follow the metadata log to %s: this broker ends",
                    getattr(subscriber, "__qualname__", subscriber),
                    new.position,
                    exc_info=True,
                )
                self._out_of_step = self._out_of_step or error
                self._fell_out_of_step.set()

    async def run(self) -> None:
        """Owner's task, after `start`: until closed. Raises Fenced, and for bugs of subscribers."""
        running = self._running
        assert running is not None, "start() first"
        fell = asyncio.create_task(self._fell_out_of_step.wait(), name="controller-subscribers")
        try:
            # Not cancelled with us: close() still writes what is pending.
            await asyncio.wait((running, fell), return_when=asyncio.FIRST_COMPLETED)
        finally:
            fell.cancel()
        if self._out_of_step is not None:
            raise self._out_of_step
        await asyncio.shield(running)

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
        try:
            loaded = await load(self._store)
        except (StoreError, LogError):
            return None
        if loaded is None or loaded.image.holder is None:
            return None
        broker = loaded.image.brokers.get(loaded.image.holder.node_id)
        if broker is None or (self._won is not None and broker.process == self._won.process):
            return None
        return broker

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

    async def _decide(self, records: Sequence[r.Record]) -> None:
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

    def _planned(self) -> MetadataImage:
        if self._log is None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, detail="the controller has not started")
        if self._log.ahead > RECORDS_AHEAD_AT_MOST or self._log.ahead_bytes > BYTES_AHEAD_AT_MOST:
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT,
                "The metadata log cannot be written at the moment; try again later.",
            )
        return self._log.planned

    async def create_topics(
        self, topics: Sequence[t.NewTopic], *, validate_only: bool = False
    ) -> list[TopicImage | KafkaError]:
        """One answer for each topic, in order; those that can be made are made together.

        An answer is durable, "it exists already" too. Raises KafkaError for the request as a whole.
        """
        planned = self._planned()
        defaults = self._defaults()
        t.check_request_size(topics, defaults)
        repeated = _repeated(topic.name for topic in topics)
        colliding = t.collisions(planned)
        placement = Placement(planned)
        made: list[r.Record] = []
        answers: list[r.TopicCreated | KafkaError] = []
        for topic in topics:
            if topic.name in repeated:
                answers.append(KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name."))
                continue
            topic_id = UUID(bytes=self._rng.randbytes(16), version=4)
            try:
                record = t.plan_topic(
                    planned,
                    colliding,
                    topic,
                    topic_id,
                    defaults,
                    placement,
                    self._rules.check_topic,
                )
            except KafkaError as error:
                answers.append(error)
                continue
            planned = _ahead(planned, record)
            colliding.setdefault(t.unify(record.name), []).append(record.name)
            made.append(record)
            answers.append(record)
        await self._decide(() if validate_only else made)
        return [
            answer
            if isinstance(answer, KafkaError)
            # The planned topic where it was only checked, or deleted again before we came back.
            else self.image.topic_by_id(answer.topic_id) or planned.topics[answer.name]
            for answer in answers
        ]

    async def delete_topics(self, topic_ids: Sequence[UUID]) -> list[TopicImage | KafkaError]:
        """For each id the topic as it was, or why it was not deleted."""
        planned = self._planned()
        answers: list[TopicImage | KafkaError] = []
        gone: list[r.Record] = []
        for topic_id in topic_ids:
            try:
                answers.append(t.topic_of(planned, topic_id))
            except KafkaError as error:
                answers.append(error)
                continue
            record = r.TopicDeleted(topic_id)
            planned = _ahead(planned, record)
            gone.append(record)
        await self._decide(gone)
        return answers

    async def create_partitions(
        self,
        name: str,
        total: int,
        assignments: Sequence[Sequence[int]] | None = None,
        *,
        validate_only: bool = False,
    ) -> None:
        """Grow a topic to `total` partitions. Raises KafkaError."""
        planned = self._planned()
        record = t.plan_partitions(planned, name, total, assignments, Placement(planned))
        await self._decide(() if validate_only else (record,))

    async def alter_configs(
        self,
        resource_type: str,
        name: str,
        changes: Mapping[str, str | None],
        *,
        validate_only: bool = False,
    ) -> None:
        """Set keys, or remove those whose value is None, of a "topic" or a "broker".

        name: of a broker its node id, "" for all of them. Raises KafkaError.
        """
        planned = self._planned()
        if resource_type == "topic":
            record = t.plan_topic_configs(planned, name, changes, self._rules.check_topic)
        else:
            assert resource_type == "broker", resource_type
            after = t.after_changes(planned.resource_configs(resource_type, name), changes)
            self._rules.check_broker(name, after)
            record = r.ConfigsAltered(resource_type, name, dict(changes))
        await self._decide(() if validate_only or not changes else (record,))

    async def allocate_producer_ids(self) -> tuple[int, int]:
        """(first, count) of a block that nobody else has."""
        first = self._planned().next_producer_id
        count = PRODUCER_IDS_PER_BLOCK
        await self._decide((r.ProducerIdsAllocated(self.incarnation, first, count),))
        return first, count

    async def set_feature_level(self, name: str, level: int) -> None:
        """Level 0 removes the feature."""
        self._planned()
        await self._decide((r.FeatureLevelSet(name, level),))

    # Failover.

    async def finish_failovers(self, recover: Recover) -> None:
        """End the logs of all fenced incarnations and appoint new leaders; durable at the end.

        Each step is found done or is done again, so a crash in between costs only time.
        Raises Corrupt, HoleInLog, AccessDenied, KafkaError NOT_CONTROLLER.
        """
        for state in self.image.unended():
            ended, recovered = await self._patiently(recover, state)
            # Checked again after the awaits: topics may have come and gone meanwhile.
            planned = self._planned()
            if planned.incarnations[state.incarnation].ended is not None:
                continue
            record = plan_end(planned, state.incarnation, ended, recovered, self.incarnation)
            await self._decide((record,))
            log.info(
                "took over %d partitions of node %d (incarnation %d), whose log ends at %d",
                len(record.leaders),
                state.node_id,
                state.incarnation,
                ended.end,
            )

    async def _patiently(
        self, recover: Recover, state: IncarnationState
    ) -> tuple[LogEnd, Recovered]:
        """End a log and read it, again and again while the store is in trouble."""
        backoff = Backoff(self._rng)
        # The log may be long: one read that fails must not make all of them begin again.
        store = RetryStore(self._store, self._rng, PATIENT)
        refused = 0
        while True:
            try:
                ended = await end_log(
                    store,
                    wal_log(state.incarnation),
                    state.window,
                    self._process,
                    self._rng,
                    on_trouble=stop_when_denied(),
                )
                return ended, await recover(state, ended)
            except AccessDenied as error:
                refused += 1
                if is_definite(error, refused):
                    raise
            except (StoreUnavailable, Throttled) as error:
                log.warning("the store does not answer (%s); recovery begins again", error)
            await asyncio.sleep(backoff.next_s())

    @property
    def _process(self) -> bytes:
        assert self._won is not None
        return self._won.process

    async def opened(self, streams: Sequence[tuple[int, int]]) -> None:
        """The openings of these (stream id, leader epoch) are durable in our log: say so."""
        for start in range(0, len(streams), OPENED_PER_RECORD):
            batch = list(streams[start : start + OPENED_PER_RECORD])
            await self._decide((r.Opened(self.incarnation, batch),))

    # Deletion rounds, for the collector.

    async def begin_round(self) -> int:
        """Its number. Candidates must have been listed before this was called."""
        number = self._planned().rounds.next_number
        await self._decide((r.RoundBegun(number),))
        return number

    async def end_round(self, number: int, *, abandoned: bool) -> None:
        await self._decide((r.RoundEnded(number, abandoned),))


def _ahead(image: MetadataImage, record: r.Record) -> MetadataImage:
    """The image as if `record` came next; only for checking the rest of the same request."""
    term, seq, n = image.position
    return apply(image, record, Position(term, seq, n + 1))


def _repeated(names: Iterable[str]) -> set[str]:
    seen: set[str] = set()
    twice: set[str] = set()
    for name in names:
        (twice if name in seen else seen).add(name)
    return twice
