"""The controller's decisions, one method each: what there is, what it is set to, who leads it."""

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
from s3stream.metadata.features import HEADWATER_VERSION, may_move, readable_by_all
from s3stream.metadata.image import IncarnationState, MetadataImage, TopicImage
from s3stream.metadata.log import SNAPSHOT_RECORDS, OnObject
from s3stream.metadata.records import Position
from s3stream.metadata.tail import Loaded
from wal.keys import wal_log
from wal.seal import LogEnd, end_log

from . import topics as t
from .balance import Balance
from .denial import is_definite, stop_when_denied
from .election import Answers, CheckStore, Election, Elsewhere, IsGone, Standing
from .emptying import Emptying
from .failover import Recover, Recovered, plan_end
from .fitness import Fitness
from .levelling import BalanceSettings, Levelling
from .loads import Loads
from .membership import Identity
from .moves import MoveWatch, plan_cancel, plan_handed_over, plan_moves
from .placement import Placement
from .term import Term

log = logging.getLogger(__name__)

# Source: ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE, Apache Kafka 4.3.1.
PRODUCER_IDS_PER_BLOCK = 1000
OPENED_PER_RECORD = 5000


class ConfigRules(Protocol):
    """What configurations may say; `broker.config` knows. Both raise KafkaError INVALID_CONFIG."""

    def check_topic(self, name: str, configs: Mapping[str, str]) -> None: ...

    def check_broker(self, name: str, configs: Mapping[str, str]) -> None: ...


class Controller(Term):
    """Decisions, and the image that they add up to.

    identity: of this process. rules: see there. defaults: asked at each creation, since they may
    change. standing: of a process that is registered already, and follows with `loaded` so far.
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
        elsewhere: Elsewhere | None = None,
        is_gone: IsGone | None = None,
        standing: Standing | None = None,
        loaded: Loaded | None = None,
        on_trouble: Callable[[StoreError | None], None] | None = None,
        on_object: OnObject | None = None,
        snapshot_records: int = SNAPSHOT_RECORDS,
    ) -> None:
        election = Election(
            store,
            identity,
            now_ms=now_ms,
            rng=rng,
            answers=answers,
            check_store=check_store,
            elsewhere=elsewhere,
            is_gone=is_gone,
            standing=standing,
            loaded=loaded,
        )
        super().__init__(
            store,
            election,
            rng=rng,
            on_trouble=on_trouble,
            on_object=on_object,
            snapshot_records=snapshot_records,
        )
        self._rules = rules
        self._defaults = defaults
        self._now_ms = now_ms
        self.fitness = Fitness(lambda: self.image, self._fitness_changed)
        self._moves = MoveWatch(self.planned, self.decide, is_sick=self._is_sick)
        self._balance = Balance(self._placing, self.decide)
        self._emptying = Emptying(
            self._placing, self.decide, any_unfit=lambda: bool(self.fitness.unfit)
        )
        self.levelling: Levelling | None = None
        self._loads: Loads | None = None
        self.subscribe(self._moves.image_changed)
        self.subscribe(self._balance.image_changed)
        self.subscribe(self._emptying.image_changed)

    async def run(self) -> None:
        """See Term. Planned moves are watched and made meanwhile."""
        self._moves.image_changed(self.image, self.image)
        self._emptying.image_changed(self.image, self.image)
        running = asyncio.create_task(super().run(), name="term")
        beside = [
            asyncio.create_task(self._moves.run(), name="moves"),
            asyncio.create_task(self._balance.run(), name="balance"),
            asyncio.create_task(self._emptying.run(), name="emptying"),
        ]
        if self.levelling is not None:
            beside.append(asyncio.create_task(self.levelling.run(), name="levelling"))
        try:
            while not running.done():
                await asyncio.wait((running, *beside), return_when=asyncio.FIRST_COMPLETED)
                for task in [one for one in beside if one.done()]:
                    task.result()
                    beside.remove(task)
            await running
        finally:
            for task in (running, *beside):
                task.cancel()
            await asyncio.gather(running, *beside, return_exceptions=True)

    def balance_by(self, loads: Loads, settings: BalanceSettings) -> None:
        """Before `run`: what brokers tell of their load counts, too."""
        self._loads = loads
        self._balance.enabled = settings.enabled
        self.levelling = Levelling(self._placing, self.decide, loads, settings)

    def _placement(self, planned: MetadataImage) -> Placement:
        live = [one.incarnation for one in planned.live_brokers()]
        return Placement(
            self.fitness.placing(planned), None if self._loads is None else self._loads.of(live)
        )

    def _placing(self) -> MetadataImage:
        """What is planned, for choosing leaders: as if those who are unfit were leaving."""
        return self.fitness.placing(self.planned())

    def _is_sick(self, incarnation: int) -> bool:
        # This process, were it too slow to close, could not decide that it is.
        return incarnation != self.incarnation and self.fitness.is_sick(incarnation)

    def _fitness_changed(self) -> None:
        self._balance.wanted()
        self._emptying.wanted()

    async def create_topics(
        self, topics: Sequence[t.NewTopic], *, validate_only: bool = False
    ) -> list[TopicImage | KafkaError]:
        """One answer for each topic, in order; those that can be made are made together.

        An answer is durable, "it exists already" too. Raises KafkaError for the request as a whole.
        """
        planned = self.planned()
        defaults = self._defaults()
        t.check_request_size(topics, defaults)
        repeated = _repeated(topic.name for topic in topics)
        colliding = t.collisions(planned)
        placement = self._placement(planned)
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
        await self.decide(() if validate_only else made)
        return [
            answer
            if isinstance(answer, KafkaError)
            # The planned topic where it was only checked, or deleted again before we came back.
            else self.image.topic_by_id(answer.topic_id) or planned.topics[answer.name]
            for answer in answers
        ]

    async def delete_topics(self, topic_ids: Sequence[UUID]) -> list[TopicImage | KafkaError]:
        """For each id the topic as it was, or why it was not deleted."""
        planned = self.planned()
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
        await self.decide(gone)
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
        planned = self.planned()
        record = t.plan_partitions(planned, name, total, assignments, self._placement(planned))
        await self.decide(() if validate_only else (record,))

    async def alter_configs(
        self,
        resource_type: str,
        name: str,
        changes: Mapping[str, str | None],
        *,
        validate_only: bool = False,
        based_on: Mapping[str, str] | None = None,
    ) -> None:
        """Set keys, or remove those whose value is None, of a "topic" or a "broker".

        name: of a broker its node id, "" for all of them. based_on: what stood there when the
        changes were computed. Raises KafkaError; INVALID_UPDATE_VERSION: other things stand there
        by now, compute again.
        """
        planned = self.planned()
        before = planned.resource_configs(resource_type, name)
        if based_on is not None and dict(before) != dict(based_on):
            raise KafkaError(ErrorCode.INVALID_UPDATE_VERSION, detail=f"{resource_type} {name}")
        if resource_type == "topic":
            record = t.plan_topic_configs(planned, name, changes, self._rules.check_topic)
        else:
            assert resource_type == "broker", resource_type
            after = t.after_changes(before, changes)
            self._rules.check_broker(name, after)
            record = r.ConfigsAltered(resource_type, name, dict(changes))
        await self.decide(() if validate_only or not changes else (record,))

    async def allocate_producer_ids(self, incarnation: int | None = None) -> tuple[int, int]:
        """(first, count) of a block that nobody else has. incarnation: for whom; None: for us."""
        first = self.planned().next_producer_id
        count = PRODUCER_IDS_PER_BLOCK
        whose = self.incarnation if incarnation is None else incarnation
        await self.decide((r.ProducerIdsAllocated(whose, first, count),))
        return first, count

    async def set_feature_level(self, name: str, level: int) -> None:
        """Level 0 removes the feature. Raises KafkaError, where a live broker does not read it."""
        if name == HEADWATER_VERSION and level > readable_by_all(self.planned()):
            raise KafkaError(
                ErrorCode.INVALID_UPDATE_VERSION, f"Not every live broker reads level {level}."
            )
        await self.decide((r.FeatureLevelSet(name, level),))

    # Failover.

    async def finish_failovers(self, recover: Recover) -> None:
        """End the logs of all fenced incarnations and appoint new leaders; durable at the end.

        Each step is found done or is done again, so a crash in between costs only time.
        Raises Corrupt, HoleInLog, AccessDenied, KafkaError NOT_CONTROLLER.
        """
        # At the same time: one log that is long, or in trouble, holds up no other.
        ends = (self._finish_failover(recover, state) for state in self.image.unended())
        for outcome in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _finish_failover(self, recover: Recover, state: IncarnationState) -> None:
        ended, recovered = await self._patiently(recover, state)
        # Checked again after the awaits: topics may have come and gone meanwhile.
        planned = self.planned()
        if planned.incarnations[state.incarnation].ended is not None:
            return
        placing = self._placing()
        record = plan_end(placing, state.incarnation, ended, recovered, self.incarnation)
        await self.decide((record,))
        log.info(
            "%d partitions of node %d (incarnation %d) have new leaders; its log ends at %d",
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
                    self.process,
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

    async def opened(
        self, streams: Sequence[tuple[int, int]], incarnation: int | None = None
    ) -> None:
        """The openings of these (stream id, leader epoch) are durable in the incarnation's log
        (None: in ours): say so.
        """
        whose = self.incarnation if incarnation is None else incarnation
        for start in range(0, len(streams), OPENED_PER_RECORD):
            batch = list(streams[start : start + OPENED_PER_RECORD])
            await self.decide((r.Opened(whose, batch),))

    # Membership.

    async def fence(self, incarnations: Sequence[int]) -> None:
        """They serve nobody any more once this is durable; those that are fenced already, or
        were never registered, are passed by.
        """
        planned = self.planned()
        states = [planned.incarnations.get(one) for one in incarnations]
        live = [one.incarnation for one in states if one is not None and not one.fenced]
        if live:
            await self.decide([r.IncarnationFenced(one) for one in live])

    async def assert_term(self) -> None:
        """A record that says no more than that this term goes on: who sees the log grow does not
        end it.
        """
        self.planned()
        await self.decide((r.TermBegun(self.process, self.node_id, self._now_ms()),))

    # Planned moves.

    async def move_leaders(self, assignment: Mapping[int, int]) -> list[int]:
        """Begin moves to the incarnations named by stream id; their numbers.

        What cannot be moved right now is left out, see `plan_moves`. Raises KafkaError.
        """
        begun = plan_moves(self.planned(), assignment)
        await self.decide(begun)
        return [one.move for one in begun]

    async def handed_over(self, move: int, contents: r.BlobRef) -> None:
        """The old leader's closing for this move is durable; one that is over is passed by."""
        records = plan_handed_over(self.planned(), move, contents)
        if records:
            await self.decide(records)

    async def cancel_moves(self, moves: Sequence[int]) -> None:
        """Those still pending: the old leaders go on leading."""
        records = plan_cancel(self.planned(), moves)
        if records:
            await self.decide(records)

    async def set_draining(self, incarnation: int, draining: bool) -> None:
        """Whether it is to be given nothing more to lead."""
        planned = self.planned()
        if may_move(planned) and (incarnation in planned.draining) != draining:
            await self.decide((r.DrainingSet(incarnation, draining),))

    async def unregister(self, node_id: int) -> None:
        """Forget a node that is gone for good. Raises KafkaError.

        A live one is refused: Kafka takes it, and it serves nobody then until it is started anew.
        """
        broker = self.planned().brokers.get(node_id)
        if broker is None:
            raise KafkaError(
                ErrorCode.BROKER_ID_NOT_REGISTERED,
                f"Broker ID {node_id} is not currently registered",
            )
        if not broker.fenced:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST,
                f"Broker {node_id} is alive. Stop it first; what is left then can be unregistered.",
            )
        await self.decide((r.BrokerUnregistered(node_id),))

    # Deletion rounds, for the collector.

    async def begin_round(self) -> int:
        """Its number. Candidates must have been listed before this was called."""
        number = self.planned().rounds.next_number
        await self.decide((r.RoundBegun(number),))
        return number

    async def end_round(self, number: int, *, abandoned: bool) -> None:
        await self.decide((r.RoundEnded(number, abandoned),))


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
