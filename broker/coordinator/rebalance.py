"""The phases of a rebalance: gather the members, begin a generation, hand out assignments.

Functions here change groups in memory and answer who waits; what has to be in the log they
return as a `Write`, and go on in its `done`. Timers call them too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.coordinator.classic_group import ClassicGroup, GroupState, Member
from broker.coordinator.config import GroupConfig
from broker.coordinator.messages import JoinResult, SyncResult
from broker.coordinator.records import Record
from broker.coordinator.timers import Timers
from protocol.errors import ErrorCode, KafkaError
from protocol.internal_records import GroupMetadataKey, GroupMetadataValue

log = logging.getLogger(__name__)

EMPTY = GroupState.EMPTY
PREPARING = GroupState.PREPARING_REBALANCE
COMPLETING = GroupState.COMPLETING_REBALANCE
STABLE = GroupState.STABLE
DEAD = GroupState.DEAD


@dataclass(slots=True)
class Write:
    """Records to append as one batch.

    done: called once, when they are durable (None) or will never be (the error).
    """

    records: list[Record]
    done: Callable[[KafkaError | None], None] | None = None


def append_error(code: ErrorCode) -> ErrorCode:
    """What a client is told when its records could not be appended."""
    match code:
        case (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode.NOT_ENOUGH_REPLICAS
            | ErrorCode.REQUEST_TIMED_OUT
        ):
            return ErrorCode.COORDINATOR_NOT_AVAILABLE
        case ErrorCode.NOT_LEADER_OR_FOLLOWER | ErrorCode.KAFKA_STORAGE_ERROR:
            return ErrorCode.NOT_COORDINATOR
        case (
            ErrorCode.MESSAGE_TOO_LARGE
            | ErrorCode.RECORD_LIST_TOO_LARGE
            | ErrorCode.INVALID_FETCH_SIZE
        ):
            return ErrorCode.UNKNOWN_SERVER_ERROR
    return code


def group_record(group: ClassicGroup, assignments: Mapping[str, bytes]) -> Record:
    return GroupMetadataKey(group=group.group_id), group.metadata(assignments)


def new_group_record(group: ClassicGroup) -> Record:
    """Says only that the group is there; its first generation will say the rest."""
    return GroupMetadataKey(group=group.group_id), GroupMetadataValue(
        protocol_type="",
        generation=0,
        protocol=None,
        leader=None,
        current_state_timestamp=group.state_timestamp_ms,
        members=[],
    )


class Rebalances:
    """The groups of one shard in memory, and what moves them from phase to phase.

    perform: appends a Write for whoever is called by a timer.
    """

    def __init__(
        self,
        config: GroupConfig,
        timers: Timers,
        now_ms: Callable[[], int],
        perform: Callable[[Write], object],
    ) -> None:
        self.groups: dict[str, ClassicGroup] = {}
        self._config = config
        self._timers = timers
        self._now_ms = now_ms
        self._append = perform

    def _perform(self, write: Write | None) -> None:
        if write is not None:
            self._append(write)

    # Sessions

    def restart_session(
        self, group: ClassicGroup, member_id: str, timeout_ms: int | None = None
    ) -> None:
        if timeout_ms is None:
            timeout_ms = group.members[member_id].session_timeout_ms
        group_id = group.group_id
        self._timers.set(
            ("session", group_id, member_id),
            timeout_ms,
            lambda: self._perform(self._session_over(group_id, member_id)),
        )

    def end_session(self, group: ClassicGroup, member_id: str) -> None:
        self._timers.cancel(("session", group.group_id, member_id))

    def _session_over(self, group_id: str, member_id: str) -> Write | None:
        group = self.groups.get(group_id)
        if group is None:
            return None
        if member_id in group.pending_join:
            group.remove(member_id)
            if group.is_in(PREPARING) and group.all_joined:
                return self._complete_join(group)
            return None
        member = group.members.get(member_id)
        # Who waits for our answer gets a new session with it.
        if member is None or member.waits:
            return None
        log.info("group %s: member %s failed, its session is over", group_id, member_id)
        self.remove_member(group, member)
        if group.is_in(STABLE, COMPLETING):
            return self.prepare_or_complete(group, "a session is over")
        if group.is_in(PREPARING) and group.all_joined:
            return self._complete_join(group)
        return None

    def remove_member(self, group: ClassicGroup, member: Member) -> None:
        """Take it out of the group; a request of its own that waits is answered."""
        unknown = ErrorCode.UNKNOWN_MEMBER_ID
        group.answer_join(member, JoinResult(error=unknown))
        group.answer_sync(member, SyncResult(error=unknown))
        self.end_session(group, member.member_id)
        group.remove(member.member_id)

    # The join phase

    def prepare_or_complete(self, group: ClassicGroup, reason: str) -> Write | None:
        if group.can_rebalance:
            return self.prepare(group, reason)
        return self.complete_if_joined(group)

    def prepare(self, group: ClassicGroup, reason: str) -> Write | None:
        """Ask all members to join again."""
        if group.is_in(COMPLETING):
            self._drop_assignments(group, ErrorCode.REBALANCE_IN_PROGRESS)
        group.pending_sync.clear()
        self._timers.cancel(("sync", group.group_id))
        initial = group.is_in(EMPTY)
        group.transition(PREPARING, self._now_ms())
        log.info(
            "group %s: rebalance of generation %d: %s", group.group_id, group.generation, reason
        )
        if initial:
            delay_ms = self._config.group_initial_rebalance_delay_ms
            remaining_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
            self._delay_first_generation(group.group_id, delay_ms, remaining_ms)
            return None
        if group.all_joined:
            return self._complete_join(group)
        self._await_joins(group)
        return None

    def complete_if_joined(self, group: ClassicGroup) -> Write | None:
        # A first generation waits for its delay, whoever has joined.
        if group.is_in(PREPARING) and group.previous_state is not EMPTY and group.all_joined:
            return self._complete_join(group)
        return None

    def _await_joins(self, group: ClassicGroup) -> None:
        group_id = group.group_id
        self._timers.set(
            ("join", group_id),
            group.rebalance_timeout_ms,
            lambda: self._perform(self._joins_over(group_id)),
        )

    def _joins_over(self, group_id: str) -> Write | None:
        group = self.groups.get(group_id)
        return None if group is None else self._complete_join(group)

    def _delay_first_generation(self, group_id: str, delay_ms: int, remaining_ms: int) -> None:
        self._timers.set(
            ("join", group_id),
            delay_ms,
            lambda: self._perform(self._delay_over(group_id, delay_ms, remaining_ms)),
            expels=False,
        )

    def _delay_over(self, group_id: str, delay_ms: int, remaining_ms: int) -> Write | None:
        group = self.groups.get(group_id)
        if group is None:
            return None
        if group.new_member_added and remaining_ms:
            group.new_member_added = False
            next_delay_ms = min(self._config.group_initial_rebalance_delay_ms, remaining_ms)
            self._delay_first_generation(group_id, next_delay_ms, max(remaining_ms - delay_ms, 0))
            return None
        return self._complete_join(group)

    def _complete_join(self, group: ClassicGroup) -> Write | None:
        """Begin the next generation with those that have joined, and answer them."""
        self._timers.cancel(("join", group.group_id))
        for member in list(group.members.values()):
            # Static members keep their place until their session ends (KIP-345).
            if member.join is None and member.instance_id is None:
                log.info("group %s: %s did not join in time", group.group_id, member.member_id)
                self.remove_member(group, member)
        if not group.elect_joined_leader() and group.members:
            log.warning("group %s: no member joined; waiting for their sessions", group.group_id)
            self._await_joins(group)
            return None
        group.next_generation(self._now_ms())
        if group.is_in(EMPTY):
            log.info("group %s: empty in generation %d", group.group_id, group.generation)
            return Write([group_record(group, {})])
        log.info(
            "group %s: generation %d with %d members",
            group.group_id,
            group.generation,
            len(group.members),
        )
        for member in group.members.values():
            group.answer_join(member, group.join_result(member.member_id))
            self.restart_session(group, member.member_id)
            member.is_new = False
            group.pending_sync[member.member_id] = None
        self._await_syncs(group)
        return None

    # The sync phase

    def _await_syncs(self, group: ClassicGroup) -> None:
        group_id, generation = group.group_id, group.generation
        self._timers.set(
            ("sync", group_id),
            group.rebalance_timeout_ms,
            lambda: self._perform(self._syncs_over(group_id, generation)),
        )

    def _syncs_over(self, group_id: str, generation: int) -> Write | None:
        group = self.groups.get(group_id)
        if group is None or group.generation != generation or not group.pending_sync:
            return None
        assert group.is_in(COMPLETING, STABLE), (group_id, group.state)
        for member_id in list(group.pending_sync):
            log.info("group %s: %s did not sync in time", group_id, member_id)
            self.remove_member(group, group.members[member_id])
        return self.prepare(group, "members did not sync in time")

    def has_synced(self, group: ClassicGroup, member_id: str) -> None:
        group.pending_sync.pop(member_id, None)
        if not group.pending_sync:
            self._timers.cancel(("sync", group.group_id))

    def assign(self, group: ClassicGroup, given: Mapping[str, bytes]) -> Write | None:
        """Write the leader's assignments; the group is stable once they are durable."""
        if group.writing_generation == group.generation:
            # The leader asks again while its first answer is being written: that one counts.
            return None
        generation = group.writing_generation = group.generation
        assignments = {member_id: given.get(member_id, b"") for member_id in group.members}

        def done(error: KafkaError | None) -> None:
            if group.writing_generation == generation:
                group.writing_generation = None
            # A rebalance may have begun while the log was at work.
            if not group.is_in(COMPLETING) or group.generation != generation:
                return
            if error is not None:
                self._drop_assignments(group, append_error(error.code))
                self._perform(self.prepare_or_complete(group, f"cannot write: {error}"))
                return
            for member in group.members.values():
                member.assignment = assignments.get(member.member_id, b"")
            group.transition(STABLE, self._now_ms())
            self._answer_syncs(group, ErrorCode.NONE)

        return Write([group_record(group, assignments)], done)

    def _drop_assignments(self, group: ClassicGroup, error: ErrorCode) -> None:
        for member in group.members.values():
            member.assignment = b""
        self._answer_syncs(group, error)

    def _answer_syncs(self, group: ClassicGroup, error: ErrorCode) -> None:
        good = error == ErrorCode.NONE
        for member in group.members.values():
            result = SyncResult(
                error=error,
                protocol_type=group.protocol_type if good else None,
                protocol_name=group.protocol_name if good else None,
                assignment=member.assignment,
            )
            if group.answer_sync(member, result):
                # A session that ended while it waited was overlooked; here is a new one.
                self.restart_session(group, member.member_id)

    # Coming and going of groups

    def adopt(self, group: ClassicGroup) -> None:
        """A group read from the log: its members have a session to show themselves."""
        self.groups[group.group_id] = group
        for member_id in group.members:
            self.restart_session(group, member_id)
        if len(group.members) > self._config.group_max_size:
            self._perform(self.prepare(group, "loaded with more members than group.max.size"))

    def drop(self, group_id: str, error: ErrorCode) -> None:
        """The group is gone, or not ours any more: nobody waits for it any longer."""
        group = self.groups.pop(group_id)
        for member in group.members.values():
            group.answer_join(member, JoinResult(error=error, member_id=member.member_id))
            group.answer_sync(member, SyncResult(error=error))
            self.end_session(group, member.member_id)
        for member_id in group.pending_join:
            self.end_session(group, member_id)
        self._timers.cancel(("join", group_id))
        self._timers.cancel(("sync", group_id))
        group.transition(DEAD, self._now_ms())
