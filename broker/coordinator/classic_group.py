"""One classic group in memory: its members, its state, its generation.

    Empty --> PreparingRebalance --> CompletingRebalance --> Stable
      ^_______________|  ^____________________|________________|
    (all of them) --> Dead, when the coordinator is gone

What the log keeps of it is `metadata` (written when the leader has sent the assignments, and
when the group became empty); `from_metadata` is what a restart makes of that again. Everything
else lives here only. No I/O, no timers.
Source: KIP-62, KIP-345, KIP-394, KIP-814; Apache Kafka 4.3.1's answers.
"""

from __future__ import annotations

import asyncio
import enum
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from broker.coordinator.java_hash import hash_map_order
from broker.coordinator.messages import JoinResult, SyncResult
from protocol.errors import ErrorCode, KafkaError
from protocol.internal_records import GroupMember, GroupMetadataValue

CONSUMER_PROTOCOL_TYPE = "consumer"
Protocols = tuple[tuple[str, bytes], ...]


class GroupState(enum.Enum):
    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


TRANSITIONS: Mapping[GroupState, frozenset[GroupState]] = {
    GroupState.EMPTY: frozenset({GroupState.PREPARING_REBALANCE, GroupState.DEAD}),
    GroupState.PREPARING_REBALANCE: frozenset(
        {GroupState.COMPLETING_REBALANCE, GroupState.EMPTY, GroupState.DEAD}
    ),
    GroupState.COMPLETING_REBALANCE: frozenset(
        {GroupState.STABLE, GroupState.PREPARING_REBALANCE, GroupState.DEAD}
    ),
    GroupState.STABLE: frozenset({GroupState.PREPARING_REBALANCE, GroupState.DEAD}),
    GroupState.DEAD: frozenset(),
}


@dataclass(slots=True)
class Member:
    """protocols: name and metadata, in the member's order of preference.

    is_new: it has not had an answer to a JoinGroup yet, so it cannot send heartbeats.
    """

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    assignment: bytes = b""
    is_new: bool = False
    join: asyncio.Future[JoinResult] | None = None
    sync: asyncio.Future[SyncResult] | None = None

    def metadata(self, protocol_name: str | None) -> bytes:
        for name, metadata in self.protocols:
            if name == protocol_name:
                return metadata
        raise AssertionError(f"{self.member_id} does not support protocol {protocol_name}")

    def vote(self, candidates: set[str]) -> str:
        for name, _metadata in self.protocols:
            if name in candidates:
                return name
        raise AssertionError(f"{self.member_id} supports none of {sorted(candidates)}")

    @property
    def waits(self) -> bool:
        """It waits for an answer of ours, which counts as a heartbeat (but see is_new)."""
        return not self.is_new and (self.join is not None or self.sync is not None)


@dataclass(slots=True)
class ClassicGroup:
    """subscribed_topics: None where the broker cannot know them (not a consumer's protocol)."""

    group_id: str
    state_timestamp_ms: int
    state: GroupState = GroupState.EMPTY
    previous_state: GroupState = GroupState.DEAD
    generation: int = 0
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str | None = None
    members: dict[str, Member] = field(default_factory=dict)
    static_members: dict[str, str] = field(default_factory=dict)
    # Ids given out with MEMBER_ID_REQUIRED whose owners have not come back yet (KIP-394).
    pending_join: dict[str, None] = field(default_factory=dict)
    # Members that had their join answered and have not sent SyncGroup yet.
    pending_sync: dict[str, None] = field(default_factory=dict)
    subscribed_topics: frozenset[str] | None = None
    new_member_added: bool = False
    # The generation whose assignments are being written; None when none are.
    writing_generation: int | None = None
    _supported: dict[str, int] = field(default_factory=dict)
    awaiting_join: int = 0

    # States

    def is_in(self, *states: GroupState) -> bool:
        return self.state in states

    @property
    def can_rebalance(self) -> bool:
        return GroupState.PREPARING_REBALANCE in TRANSITIONS[self.state]

    @property
    def is_simple(self) -> bool:
        return self.protocol_type is None and not self.members and not self.pending_join

    @property
    def uses_consumer_protocol(self) -> bool:
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    def transition(self, to: GroupState, now_ms: int) -> None:
        assert to in TRANSITIONS[self.state], (self.group_id, self.state, to)
        self.previous_state, self.state = self.state, to
        self.state_timestamp_ms = now_ms

    def next_generation(self, now_ms: int) -> None:
        """Begin the generation of the members there are; Empty when there are none."""
        self.generation += 1
        self.protocol_name = self.select_protocol() if self.members else None
        self.subscribed_topics = self._subscriptions()
        to = GroupState.COMPLETING_REBALANCE if self.members else GroupState.EMPTY
        self.transition(to, now_ms)
        self.pending_sync.clear()

    # Members

    def add(self, member: Member, join: asyncio.Future[JoinResult] | None = None) -> None:
        if member.instance_id is not None:
            assert member.instance_id not in self.static_members, member
            self.static_members[member.instance_id] = member.member_id
        if not self.members:
            self.protocol_type = member.protocol_type
        if self.leader is None:
            self.leader = member.member_id
        self.members[member.member_id] = member
        self._count_protocols(member, 1)
        member.join = join
        if join is not None:
            self.awaiting_join += 1
        self.pending_join.pop(member.member_id, None)

    def remove(self, member_id: str) -> None:
        """Also for ids that are pending or unknown. Its waiters must have been answered."""
        member = self.members.pop(member_id, None)
        if member is not None:
            self._count_protocols(member, -1)
            if member.join is not None:
                self.awaiting_join -= 1
            if member.instance_id is not None:
                self.static_members.pop(member.instance_id, None)
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)
        self.pending_join.pop(member_id, None)
        self.pending_sync.pop(member_id, None)

    def replace_static(self, instance_id: str, old_id: str, new_id: str) -> Member:
        """Give the instance a new member id; whoever waits under the old one is fenced."""
        old = self.members.pop(old_id)
        fenced = ErrorCode.FENCED_INSTANCE_ID
        self.answer_join(old, JoinResult(error=fenced, member_id=old_id, leader=""))
        self.answer_sync(old, SyncResult(error=fenced))
        new = Member(
            member_id=new_id,
            instance_id=old.instance_id,
            client_id=old.client_id,
            client_host=old.client_host,
            rebalance_timeout_ms=old.rebalance_timeout_ms,
            session_timeout_ms=old.session_timeout_ms,
            protocol_type=old.protocol_type,
            protocols=old.protocols,
            assignment=old.assignment,
        )
        self.members[new_id] = new
        if self.leader == old_id:
            self.leader = new_id
        self.static_members[instance_id] = new_id
        return new

    def update(
        self,
        member: Member,
        protocols: Protocols,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
        join: asyncio.Future[JoinResult] | None,
    ) -> None:
        self._count_protocols(member, -1)
        member.protocols = protocols
        self._count_protocols(member, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms
        self.awaiting_join += (join is not None) - (member.join is not None)
        member.join = join

    def validate_member(self, member_id: str, instance_id: str | None) -> None:
        """Raises KafkaError: UNKNOWN_MEMBER_ID, or FENCED_INSTANCE_ID (KIP-345)."""
        if instance_id is not None:
            known = self.static_members.get(instance_id)
            if known is None:
                raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
            if known != member_id:
                raise KafkaError(ErrorCode.FENCED_INSTANCE_ID)
        if member_id not in self.members:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)

    @property
    def all_joined(self) -> bool:
        return len(self.members) == self.awaiting_join and not self.pending_join

    @property
    def rebalance_timeout_ms(self) -> int:
        return max((m.rebalance_timeout_ms for m in self.members.values()), default=0)

    def elect_joined_leader(self) -> bool:
        """Keep or choose a leader that has joined; False when no member has."""
        if self.leader is None:
            return False
        if self.members[self.leader].join is not None:
            return True
        for member in self.members.values():
            if member.join is not None:
                self.leader = member.member_id
                return True
        return False

    # Answers

    def answer_join(self, member: Member, result: JoinResult) -> None:
        if member.join is not None:
            # The request may have been dropped with its connection meanwhile.
            if not member.join.done():
                member.join.set_result(result)
            member.join = None
            self.awaiting_join -= 1

    def answer_sync(self, member: Member, result: SyncResult) -> bool:
        """True if the member was waiting for it."""
        if member.sync is None:
            return False
        if not member.sync.done():
            member.sync.set_result(result)
        member.sync = None
        return True

    def join_result(self, member_id: str) -> JoinResult:
        """The current generation as this member is told of it."""
        members: tuple[tuple[str, str | None, bytes], ...] = ()
        if member_id == self.leader:
            members = tuple(
                (m.member_id, m.instance_id, m.metadata(self.protocol_name))
                for m in self.members.values()
            )
        return JoinResult(
            member_id=member_id,
            generation=self.generation,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol_name,
            leader=self.leader,
            members=members,
        )

    # Protocols

    def _count_protocols(self, member: Member, by: int) -> None:
        for name, _metadata in member.protocols:
            self._supported[name] = self._supported.get(name, 0) + by

    def supports(self, protocol_type: str, names: Iterable[str]) -> bool:
        """May a member with these protocols be in the group?"""
        names = list(names)
        if self.is_in(GroupState.EMPTY):
            return bool(protocol_type) and bool(names)
        return self.protocol_type == protocol_type and any(
            self._supported.get(name, 0) == len(self.members) for name in names
        )

    def select_protocol(self) -> str:
        """What all members support and most prefer."""
        candidates = {n for n, count in self._supported.items() if count == len(self.members)}
        votes: dict[str, int] = {}
        for member in self.members.values():
            name = member.vote(candidates)
            votes[name] = votes.get(name, 0) + 1
        # Among equals Kafka takes the first in the order of its HashMap.
        return max(hash_map_order(votes), key=lambda name: votes[name])

    def is_subscribed(self, topic: str) -> bool:
        if self.subscribed_topics is None:
            return self.uses_consumer_protocol
        return topic in self.subscribed_topics

    def _subscriptions(self) -> frozenset[str] | None:
        if not self.uses_consumer_protocol:
            return None
        if not self.members:
            return frozenset()
        if self.protocol_name is None:
            return None
        topics: set[str] = set()
        for member in self.members.values():
            subscription = subscribed_topics(member.metadata(self.protocol_name))
            if subscription is None:
                return None
            topics.update(subscription)
        return frozenset(topics)

    # The log

    def metadata(self, assignments: Mapping[str, bytes]) -> GroupMetadataValue:
        """The group as a record, with these assignments (every member has one)."""
        return GroupMetadataValue(
            protocol_type=self.protocol_type or "",
            generation=self.generation,
            protocol=self.protocol_name,
            leader=self.leader,
            current_state_timestamp=self.state_timestamp_ms,
            members=[
                GroupMember(
                    member_id=member.member_id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    rebalance_timeout=member.rebalance_timeout_ms,
                    session_timeout=member.session_timeout_ms,
                    subscription=member.metadata(self.protocol_name),
                    assignment=assignments[member.member_id],
                )
                for member in self.members.values()
            ],
        )

    @classmethod
    def from_metadata(cls, group_id: str, value: GroupMetadataValue) -> ClassicGroup:
        group = cls(group_id, state_timestamp_ms=value.current_state_timestamp)
        for m in value.members:
            group.add(
                Member(
                    member_id=m.member_id,
                    instance_id=m.group_instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    rebalance_timeout_ms=m.rebalance_timeout,
                    session_timeout_ms=m.session_timeout,
                    protocol_type=value.protocol_type,
                    protocols=((value.protocol or "", m.subscription),),
                    assignment=m.assignment,
                )
            )
        group.state = GroupState.STABLE if value.members else GroupState.EMPTY
        group.generation = value.generation
        group.protocol_type = value.protocol_type or None
        group.protocol_name = value.protocol
        group.leader = value.leader
        group.subscribed_topics = group._subscriptions()
        return group


def subscribed_topics(metadata: bytes) -> list[str] | None:
    """The topics in a consumer's protocol metadata; None if it cannot be read.

    Layout (version 0, with which every later version begins): version int16; topics: int32
    count of int16-length strings; user data: int32 length (-1: null) and bytes.
    """
    try:
        (count,) = struct.unpack_from(">i", metadata, 2)
        position = 6
        topics: list[str] = []
        if count < 0:
            return None
        for _ in range(count):
            (length,) = struct.unpack_from(">h", metadata, position)
            position += 2 + length
            if length < 0 or position > len(metadata):
                return None
            topics.append(metadata[position - length : position].decode("utf-8"))
        (length,) = struct.unpack_from(">i", metadata, position)
        if length < -1 or position + 4 + length > len(metadata):
            return None
    except (struct.error, UnicodeDecodeError):
        return None
    return topics
