"""Incremental fetch sessions: what a consumer watches is named once, then only changes travel.

Source: KIP-227; eviction and error codes follow Apache Kafka's FetchSession.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from protocol.errors import ErrorCode, KafkaError

INVALID_SESSION_ID = 0
INITIAL_EPOCH = 0
FINAL_EPOCH = -1
MAX_EPOCH = 2**31 - 1
EVICTION_MS = 120_000

TopicKey = str | UUID
PartitionKey = tuple[TopicKey, int]


@dataclass(slots=True)
class SessionPartition:
    """What the client asked of one partition, and what it was told last."""

    topic: TopicKey
    index: int
    fetch_offset: int
    max_bytes: int
    current_leader_epoch: int = -1
    last_fetched_epoch: int = -1
    log_start_offset: int = -1
    told_high_watermark: int = -1
    told_log_start_offset: int = -1
    told_error: bool = False

    @property
    def key(self) -> PartitionKey:
        return self.topic, self.index

    def update(self, other: SessionPartition) -> None:
        """Take over what a later request asks."""
        self.fetch_offset = other.fetch_offset
        self.max_bytes = other.max_bytes
        self.current_leader_epoch = other.current_leader_epoch
        self.last_fetched_epoch = other.last_fetched_epoch
        self.log_start_offset = other.log_start_offset

    def changed(
        self,
        error: ErrorCode,
        has_data: bool,
        high_watermark: int,
        log_start_offset: int,
        always: bool,
    ) -> bool:
        """Whether this answer must be told in an incremental response; takes note of it."""
        tell = always or has_data
        if high_watermark != self.told_high_watermark:
            tell = True
            self.told_high_watermark = high_watermark
        if log_start_offset != self.told_log_start_offset:
            tell = True
            self.told_log_start_offset = log_start_offset
        if error is not ErrorCode.NONE:
            # An error is repeated until it has gone, and the recovery is told too.
            self.told_error = True
            return True
        if self.told_error:
            self.told_error = False
            tell = True
        return tell


@dataclass(slots=True)
class FetchSession:
    """partitions: in the order in which they are served next; rotated for fairness."""

    session_id: int
    uses_topic_ids: bool
    created_ms: int
    last_used_ms: int
    epoch: int = 1
    partitions: OrderedDict[PartitionKey, SessionPartition] = field(default_factory=OrderedDict)

    def rotate(self, key: PartitionKey) -> None:
        """A partition that gave data goes to the end of the order."""
        if key in self.partitions:
            self.partitions.move_to_end(key)


class FetchContext:
    """How one fetch request reads and answers: full or incremental, in a session or without."""

    def __init__(self, session: FetchSession | None, incremental: bool) -> None:
        self.session = session
        self.incremental = incremental
        self._plain: list[SessionPartition] = []

    @property
    def session_id(self) -> int:
        return self.session.session_id if self.session is not None else INVALID_SESSION_ID

    def partitions(self) -> Iterator[SessionPartition]:
        if self.session is not None:
            return iter(list(self.session.partitions.values()))
        return iter(self._plain)

    def set_plain(self, partitions: list[SessionPartition]) -> None:
        self._plain = partitions


class FetchSessions:
    """All sessions of a broker, at most `slots`."""

    def __init__(self, slots: int, rng: random.Random) -> None:
        self._slots = slots
        self._rng = rng
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def partitions_cached(self) -> int:
        return sum(len(s.partitions) for s in self._sessions.values())

    def context(
        self,
        session_id: int,
        epoch: int,
        wanted: list[SessionPartition],
        forgotten: list[PartitionKey],
        uses_topic_ids: bool,
        now_ms: int,
    ) -> FetchContext:
        """The context of a request. Raises KafkaError with the session's error code."""
        if epoch in (INITIAL_EPOCH, FINAL_EPOCH):
            if session_id != INVALID_SESSION_ID:
                self._sessions.pop(session_id, None)
            if epoch == FINAL_EPOCH:
                context = FetchContext(None, incremental=False)
                context.set_plain(wanted)
                return context
            context = FetchContext(None, incremental=False)
            context.set_plain(wanted)
            context.session = self._new_session(wanted, uses_topic_ids, now_ms)
            return context
        session = self._sessions.get(session_id)
        if session is None:
            raise KafkaError(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.epoch != epoch:
            raise KafkaError(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        if session.uses_topic_ids != uses_topic_ids:
            raise KafkaError(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        session.epoch = 1 if epoch == MAX_EPOCH else epoch + 1
        session.last_used_ms = now_ms
        self._sessions.move_to_end(session_id)
        for partition in wanted:
            known = session.partitions.get(partition.key)
            if known is None:
                session.partitions[partition.key] = partition
            else:
                known.update(partition)
        for key in forgotten:
            session.partitions.pop(key, None)
        if not session.partitions:
            # Nothing left to watch: Kafka ends the session and answers without one.
            del self._sessions[session_id]
            return FetchContext(None, incremental=False)
        return FetchContext(session, incremental=True)

    def _new_session(
        self, wanted: list[SessionPartition], uses_topic_ids: bool, now_ms: int
    ) -> FetchSession | None:
        if not self._make_room(len(wanted), now_ms):
            return None
        session_id = INVALID_SESSION_ID
        while session_id == INVALID_SESSION_ID or session_id in self._sessions:
            session_id = self._rng.randrange(1, 2**31 - 1)
        session = FetchSession(session_id, uses_topic_ids, now_ms, now_ms)
        for partition in wanted:
            session.partitions[partition.key] = partition
        self._sessions[session_id] = session
        return session

    def _make_room(self, size: int, now_ms: int) -> bool:
        if self._slots <= 0:
            return False
        if len(self._sessions) < self._slots:
            return True
        stalest = next(iter(self._sessions.values()))
        if now_ms - stalest.last_used_ms > EVICTION_MS:
            del self._sessions[stalest.session_id]
            self.evicted += 1
            return True
        smallest = min(self._sessions.values(), key=lambda s: (len(s.partitions), s.last_used_ms))
        if len(smallest.partitions) < size and now_ms - smallest.created_ms > EVICTION_MS:
            del self._sessions[smallest.session_id]
            self.evicted += 1
            return True
        return False
