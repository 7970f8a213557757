"""Join, sync, heartbeat and leave: what a group member asks, checked and answered.

A handler changes nothing durable. It returns its answer, or a future of it, and what has to be
appended to the log.
Source: KIP-62, KIP-345, KIP-394, KIP-814; Apache Kafka 4.3.1's answers.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Sequence

from broker.coordinator.classic_group import ClassicGroup, Member
from broker.coordinator.config import GroupConfig
from broker.coordinator.messages import (
    JoinRequest,
    JoinResult,
    Leaving,
    SyncRequest,
    SyncResult,
)
from broker.coordinator.rebalance import (
    COMPLETING,
    DEAD,
    EMPTY,
    PREPARING,
    STABLE,
    Rebalances,
    Write,
    append_error,
    group_record,
    new_group_record,
)
from protocol.errors import ErrorCode, KafkaError

JoinAnswer = asyncio.Future[JoinResult]
SyncAnswer = asyncio.Future[SyncResult]


class Membership:
    def __init__(
        self,
        config: GroupConfig,
        rebalances: Rebalances,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._config = config
        self._rebalances = rebalances
        self._groups = rebalances.groups
        self._now_ms = now_ms
        self._rng = rng

    # Join

    def join(self, request: JoinRequest) -> tuple[JoinAnswer, Write | None]:
        answer: JoinAnswer = asyncio.get_running_loop().create_future()
        group = self._groups.get(request.group_id)
        is_new = group is None
        if group is None:
            if request.member_id:
                answer.set_result(_refused(ErrorCode.UNKNOWN_MEMBER_ID, request.member_id))
                return answer, None
            group = ClassicGroup(request.group_id, self._now_ms())
            self._groups[request.group_id] = group
        if not self._has_room(group, request.member_id):
            member = group.members.get(request.member_id)
            if member is not None:
                self._rebalances.remove_member(group, member)
            group.pending_join.pop(request.member_id, None)
            answer.set_result(_refused(ErrorCode.GROUP_MAX_SIZE_REACHED))
            write = None
        elif not group.supports(request.protocol_type, (name for name, _ in request.protocols)):
            answer.set_result(_refused(ErrorCode.INCONSISTENT_GROUP_PROTOCOL, request.member_id))
            write = None
        elif not request.member_id:
            write = self._join_first(group, request, answer)
        else:
            write = self._join_again(group, request, answer)
        if is_new and write is None:
            write = Write([new_group_record(group)])
        return answer, write

    def _has_room(self, group: ClassicGroup, member_id: str) -> bool:
        if group.is_in(EMPTY):
            return True
        member = group.members.get(member_id)
        if group.is_in(PREPARING):
            # The members that wait count, not all: a group above a lowered limit shrinks by
            # the last to rejoin.
            waits = member is not None and member.join is not None
            return waits or group.awaiting_join < self._config.group_max_size
        return member is not None or len(group.members) < self._config.group_max_size

    def _join_first(
        self, group: ClassicGroup, request: JoinRequest, answer: JoinAnswer
    ) -> Write | None:
        """A join without a member id."""
        prefix = request.client_id if request.instance_id is None else request.instance_id
        member_id = f"{prefix}-{uuid.UUID(bytes=self._rng.randbytes(16), version=4)}"
        if request.instance_id is not None:
            old_id = group.static_members.get(request.instance_id)
            if old_id is not None:
                return self._replace_static(group, request, old_id, member_id, answer)
            return self._add(group, request, member_id, answer)
        if not request.needs_member_id:
            return self._add(group, request, member_id, answer)
        group.pending_join[member_id] = None
        self._rebalances.restart_session(group, member_id, request.session_timeout_ms)
        answer.set_result(_refused(ErrorCode.MEMBER_ID_REQUIRED, member_id))
        return None

    def _join_again(
        self, group: ClassicGroup, request: JoinRequest, answer: JoinAnswer
    ) -> Write | None:
        """A join with a member id."""
        member_id = request.member_id
        if member_id in group.pending_join:
            if request.instance_id is not None:
                # An id given out to a dynamic member, brought back by a static one.
                answer.set_result(_refused(ErrorCode.UNKNOWN_SERVER_ERROR))
                return None
            return self._add(group, request, member_id, answer)
        try:
            group.validate_member(member_id, request.instance_id)
        except KafkaError as error:
            answer.set_result(_refused(error.code, member_id))
            return None
        member = group.members[member_id]
        same = member.protocols == request.protocols
        leads = group.leader == member_id
        if group.is_in(PREPARING):
            rejoins = True
        elif group.is_in(COMPLETING):
            # With the same metadata it has most likely missed our answer.
            rejoins = not same
        elif group.is_in(STABLE):
            # A leader that joins again has seen a change that only it can see.
            rejoins = leads or not same
        else:
            answer.set_result(_refused(ErrorCode.UNKNOWN_MEMBER_ID, member_id))
            return None
        if not rejoins:
            answer.set_result(group.join_result(member_id))
            return None
        self._fence_join(group, member)
        group.update(
            member,
            request.protocols,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            answer,
        )
        return self._rebalances.prepare_or_complete(
            group, f"{member_id} joins again ({request.reason or 'no reason given'})"
        )

    def _fence_join(self, group: ClassicGroup, member: Member) -> None:
        """An earlier join of the same member gives way; its connection is most likely gone.

        Kafka never answers it. If somebody still reads there, this code makes it join again.
        """
        superseded = ErrorCode.REBALANCE_IN_PROGRESS
        group.answer_join(member, JoinResult(error=superseded, member_id=member.member_id))

    def _add(
        self, group: ClassicGroup, request: JoinRequest, member_id: str, answer: JoinAnswer
    ) -> Write | None:
        member = Member(
            member_id=member_id,
            instance_id=request.instance_id,
            client_id=request.client_id,
            client_host=request.client_host,
            rebalance_timeout_ms=request.rebalance_timeout_ms,
            session_timeout_ms=request.session_timeout_ms,
            protocol_type=request.protocol_type,
            protocols=request.protocols,
            is_new=True,
        )
        if group.is_in(PREPARING) and group.previous_state is EMPTY:
            group.new_member_added = True
        group.add(member, answer)
        # It cannot send heartbeats before our answer, and a client that gave up and came back
        # would leave a dead member behind each time: so it has a limit, if a generous one.
        self._rebalances.restart_session(group, member_id, self._config.new_member_join_timeout_ms)
        return self._rebalances.prepare_or_complete(
            group, f"{member_id} joins ({request.reason or 'no reason given'})"
        )

    def _replace_static(
        self,
        group: ClassicGroup,
        request: JoinRequest,
        old_id: str,
        new_id: str,
        answer: JoinAnswer,
    ) -> Write | None:
        """A static member comes back without its id: it takes its place over (KIP-345)."""
        assert request.instance_id is not None
        instance_id = request.instance_id
        leader_before = group.leader
        member = group.replace_static(instance_id, old_id, new_id)
        self._rebalances.end_session(group, old_id)
        self._rebalances.restart_session(group, new_id)
        before = (member.protocols, member.rebalance_timeout_ms, member.session_timeout_ms)
        group.update(
            member,
            request.protocols,
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            answer,
        )
        reason = f"static member {instance_id} joins ({request.reason or 'no reason given'})"
        if group.is_in(COMPLETING):
            # The leader may be assigning to the old id already.
            return self._rebalances.prepare(group, reason)
        if not group.is_in(STABLE):
            return self._rebalances.complete_if_joined(group)
        if group.select_protocol() != group.protocol_name:
            return self._rebalances.prepare_or_complete(group, reason)

        def done(error: KafkaError | None) -> None:
            if group.is_in(DEAD) or group.static_members.get(instance_id) != new_id:
                return
            if error is not None:
                group.update(member, *before, None)
                group.replace_static(instance_id, new_id, old_id)
                self._rebalances.end_session(group, new_id)
                self._rebalances.restart_session(group, old_id)
                if not answer.done():
                    answer.set_result(
                        JoinResult(
                            error=append_error(error.code),
                            generation=group.generation,
                            protocol_type=group.protocol_type,
                            protocol_name=group.protocol_name,
                            leader=leader_before,
                        )
                    )
                return
            # A rebalance that began meanwhile has the join in its hands now.
            if member.join is answer and group.is_in(STABLE):
                group.answer_join(member, _rejoined(group, request, new_id, leader_before))

        assignments = {m.member_id: m.assignment for m in group.members.values()}
        return Write([group_record(group, assignments)], done)

    # Sync

    def sync(self, request: SyncRequest) -> tuple[SyncAnswer, Write | None]:
        answer: SyncAnswer = asyncio.get_running_loop().create_future()
        group = self._groups.get(request.group_id)
        if group is None or group.is_in(EMPTY):
            answer.set_result(SyncResult(error=ErrorCode.UNKNOWN_MEMBER_ID))
            return answer, None
        try:
            group.validate_member(request.member_id, request.instance_id)
            if request.generation != group.generation:
                raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
            if _differs(request.protocol_type, group.protocol_type) or _differs(
                request.protocol_name, group.protocol_name
            ):
                raise KafkaError(ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
            if group.is_in(PREPARING):
                raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)
        except KafkaError as error:
            answer.set_result(SyncResult(error=error.code))
            return answer, None
        member = group.members[request.member_id]
        self._rebalances.has_synced(group, member.member_id)
        if group.is_in(STABLE):
            answer.set_result(
                SyncResult(
                    protocol_type=group.protocol_type,
                    protocol_name=group.protocol_name,
                    assignment=member.assignment,
                )
            )
            return answer, None
        group.answer_sync(member, SyncResult(error=ErrorCode.REBALANCE_IN_PROGRESS))
        member.sync = answer
        if group.leader != member.member_id:
            return answer, None
        return answer, self._rebalances.assign(group, dict(request.assignments))

    # Heartbeat

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode:
        """Answered from memory alone, so that a slow store makes no member look dead.

        Raises KafkaError: the member has to find the coordinator or join again.
        """
        group = self._groups.get(group_id)
        if group is None:
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        group.validate_member(member_id, instance_id)
        if generation != group.generation:
            raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
        self._rebalances.restart_session(group, member_id)
        return ErrorCode.REBALANCE_IN_PROGRESS if group.is_in(PREPARING) else ErrorCode.NONE

    def restart_session(self, group: ClassicGroup, member_id: str) -> None:
        """A commit counts as a heartbeat."""
        if member_id in group.members:
            self._rebalances.restart_session(group, member_id)

    # Leave

    def leave(
        self, group_id: str, leaving: Sequence[Leaving]
    ) -> tuple[list[ErrorCode], Write | None]:
        """The answer for each member, in order."""
        group = self._groups.get(group_id)
        if group is None:
            return [ErrorCode.UNKNOWN_MEMBER_ID] * len(leaving), None
        answers = [self._leave_one(group, member) for member in leaving]
        if ErrorCode.NONE not in answers:
            return answers, None
        if group.is_in(STABLE, COMPLETING):
            return answers, self._rebalances.prepare_or_complete(group, "members left")
        return answers, self._rebalances.complete_if_joined(group)

    def _leave_one(self, group: ClassicGroup, leaving: Leaving) -> ErrorCode:
        member_id = leaving.member_id
        if not member_id:
            if leaving.instance_id is None or leaving.instance_id not in group.static_members:
                return ErrorCode.UNKNOWN_MEMBER_ID
            member_id = group.static_members[leaving.instance_id]
        elif member_id in group.pending_join:
            group.remove(member_id)
            self._rebalances.end_session(group, member_id)
            return ErrorCode.NONE
        else:
            try:
                group.validate_member(member_id, leaving.instance_id)
            except KafkaError as error:
                return error.code
        self._rebalances.remove_member(group, group.members[member_id])
        return ErrorCode.NONE


def _refused(error: ErrorCode, member_id: str = "") -> JoinResult:
    return JoinResult(error=error, member_id=member_id)


def _rejoined(
    group: ClassicGroup, request: JoinRequest, member_id: str, leader_before: str | None
) -> JoinResult:
    """A static member's answer when its return needs no rebalance (KIP-814)."""
    if request.may_skip_assignment:
        result = group.join_result(member_id)
        return JoinResult(
            member_id=member_id,
            generation=result.generation,
            protocol_type=result.protocol_type,
            protocol_name=result.protocol_name,
            leader=result.leader,
            members=result.members,
            skip_assignment=group.leader == member_id,
        )
    # An older client that learnt it leads would assign anew: it is told of its former self.
    return JoinResult(
        member_id=member_id,
        generation=group.generation,
        protocol_type=group.protocol_type,
        protocol_name=group.protocol_name,
        leader=leader_before,
    )


def _differs(claimed: str | None, actual: str | None) -> bool:
    return claimed is not None and actual is not None and claimed != actual
