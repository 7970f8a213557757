"""The group coordinator of a broker: finds a group's shard, asks it, waits for the log.

Each operation checks and changes between two awaits and then waits for its records, so two
requests of one connection take effect in the order in which they came.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence

from broker.coordinator.arrivals import Arrivals, nobody_comes
from broker.coordinator.classic_group import ClassicGroup, GroupState
from broker.coordinator.config import GroupConfig
from broker.coordinator.java_hash import partition_for
from broker.coordinator.log import CoordinatorLog
from broker.coordinator.messages import (
    CommitRequest,
    DescribedGroup,
    DescribedMember,
    FetchedOffset,
    JoinRequest,
    JoinResult,
    Leaving,
    ListedGroup,
    SyncRequest,
    SyncResult,
)
from broker.coordinator.offsets import PartitionErrors, group_not_found
from broker.coordinator.rebalance import Write, append_error
from broker.coordinator.records import Record
from broker.coordinator.shard import Shard
from protocol.errors import ErrorCode, KafkaError

_SWEEP_GROUPS = 500


class GroupCoordinator:
    """All shards that this broker leads. The integrator calls `lead` and `resign`.

    led_on: to be set by the integrator; waits a moment where a partition is about to be led here,
    or about to go.
    """

    def __init__(self, config: GroupConfig, now_ms: Callable[[], int], rng: random.Random) -> None:
        self.config = config
        self._now_ms = now_ms
        self._rng = rng
        self._shards: dict[int, tuple[int, Shard]] = {}
        self._arrivals = Arrivals()
        self._closed = False
        self.led_on: Callable[[int], Awaitable[None]] = nobody_comes

    # Leadership

    async def lead(self, partition: int, leader_epoch: int, log: CoordinatorLog) -> None:
        """This broker leads the partition in this epoch: load it, then answer for its groups.

        An earlier epoch than one seen before is ignored. Raises KafkaError: the partition
        cannot be read now; call again.
        """
        if self._closed:
            return
        known = self._shards.get(partition)
        if known is not None:
            if known[0] >= leader_epoch and not known[1].closed:
                return
            known[1].close()
        shard = Shard(self.config, log, self._now_ms, self._rng)
        self._shards[partition] = (leader_epoch, shard)
        try:
            await shard.load()
        except BaseException:
            shard.close()
            if self._shards.get(partition) == (leader_epoch, shard):
                del self._shards[partition]
            raise

    def resign(self, partition: int, leader_epoch: int | None = None) -> None:
        """The partition is led elsewhere from this epoch on (None: it is gone)."""
        known = self._shards.get(partition)
        if known is not None and (leader_epoch is None or leader_epoch > known[0]):
            known[1].close()
            del self._shards[partition]

    def close(self) -> None:
        """The broker ends; all who wait are sent away."""
        self._closed = True
        for partition in list(self._shards):
            self.resign(partition)

    def partition_for(self, group_id: str) -> int:
        return partition_for(group_id, self.config.offsets_topic_num_partitions)

    def _shard(self, group_id: str) -> Shard:
        if self._closed:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        known = self._shards.get(self.partition_for(group_id))
        if known is None or known[1].closed:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        if not known[1].loaded:
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        return known[1]

    async def _loaded_shard(self, group_id: str) -> Shard:
        """The same, waiting a little where the partition is on its way here, or being loaded."""
        partition = self.partition_for(group_id)
        known = self._shards.get(partition)
        if partition in self._arrivals or known is None or not known[1].loaded:
            await self._arrivals.wait(partition, self._arrived)
        return self._shard(group_id)

    async def _arrived(self, partition: int) -> None:
        known = self._shards.get(partition)
        if known is None or known[1].closed:
            await self.led_on(partition)
            known = self._shards.get(partition)
        if known is not None:
            await known[1].ready()

    def _check_member_of(self, group_id: str) -> None:
        """For what only members ask: they cannot be in the group without a name."""
        if not self._closed and not group_id:
            raise KafkaError(ErrorCode.INVALID_GROUP_ID)

    # Membership

    async def join(self, request: JoinRequest) -> JoinResult:
        config = self.config
        timeout_ms = request.session_timeout_ms
        try:
            if not self._closed and not request.group_id:
                raise KafkaError(ErrorCode.INVALID_GROUP_ID)
            if not self._closed and not (
                config.group_min_session_timeout_ms
                <= timeout_ms
                <= config.group_max_session_timeout_ms
            ):
                raise KafkaError(ErrorCode.INVALID_SESSION_TIMEOUT)
        except KafkaError as error:
            return JoinResult(error=error.code, member_id=request.member_id)
        try:
            shard = await self._loaded_shard(request.group_id)
        except KafkaError as error:
            kept = request.member_id if self._closed else ""
            return JoinResult(error=error.code, member_id=kept)
        answer, write = shard.members.join(request)
        _start(shard, write)
        return await answer

    async def sync(self, request: SyncRequest) -> SyncResult:
        try:
            self._check_member_of(request.group_id)
            shard = await self._loaded_shard(request.group_id)
        except KafkaError as error:
            return SyncResult(error=error.code)
        answer, write = shard.members.sync(request)
        _start(shard, write)
        return await answer

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> ErrorCode:
        try:
            self._check_member_of(group_id)
            shard = self._shard(group_id)
            return shard.members.heartbeat(group_id, member_id, instance_id, generation)
        except KafkaError as error:
            # While its group is loading a member has nothing to do but to stay.
            loading = error.code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
            return ErrorCode.NONE if loading else error.code

    async def leave(self, group_id: str, leaving: Sequence[Leaving]) -> list[ErrorCode]:
        """The answer for each member. Raises KafkaError: nobody was removed."""
        self._check_member_of(group_id)
        shard = await self._loaded_shard(group_id)
        answers, write = shard.members.leave(group_id, leaving)
        await _finish(shard, write)
        return answers

    # Groups

    def list_groups(self, states: Sequence[str], types: Sequence[str]) -> list[ListedGroup]:
        """Groups in these states and of these types (empty: all), whatever their case.

        Raises KafkaError: a part of the groups is being loaded.
        """
        if self._closed:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        wanted_states = [state.lower().strip() for state in states]
        wanted_types = [kind.lower().strip() for kind in types]
        listed: list[ListedGroup] = []
        for _epoch, shard in self._shards.values():
            if shard.closed:
                continue
            if not shard.loaded:
                raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
            if wanted_types and "classic" not in wanted_types:
                continue
            for group_id in dict.fromkeys(shard.durable.groups) | dict.fromkeys(shard.groups):
                group = _visible(shard, group_id)
                if group is None:
                    continue
                if wanted_states and group.state.value.lower() not in wanted_states:
                    continue
                listed.append(ListedGroup(group_id, group.protocol_type or "", group.state.value))
        return listed

    def describe(self, group_id: str) -> DescribedGroup:
        try:
            shard = self._shard(group_id)
        except KafkaError as error:
            return DescribedGroup(group_id, "", error=error.code)
        group = _visible(shard, group_id)
        if group is None:
            missing = group_not_found(group_id)
            return DescribedGroup(
                group_id,
                GroupState.DEAD.value,
                error=missing.code,
                error_message=missing.message,
            )
        stable = group.is_in(GroupState.STABLE)
        return DescribedGroup(
            group_id,
            group.state.value,
            protocol_type=group.protocol_type or "",
            protocol=(group.protocol_name or "") if stable else "",
            members=tuple(
                DescribedMember(
                    member_id=m.member_id,
                    instance_id=m.instance_id,
                    client_id=m.client_id,
                    client_host=m.client_host,
                    metadata=m.metadata(group.protocol_name) if stable else b"",
                    assignment=m.assignment,
                )
                for m in group.members.values()
            ),
        )

    async def delete_group(self, group_id: str) -> None:
        """Raises KafkaError: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP, or to be tried again."""
        shard = await self._loaded_shard(group_id)
        try:
            records = shard.offsets.delete_group(group_id)
        except KafkaError:
            await _finish(shard, None)
            raise
        await _written(shard, shard.append_all(records))

    # Offsets

    async def commit(self, request: CommitRequest) -> PartitionErrors:
        """Answers when the offsets are durable. Raises KafkaError: none was committed."""
        shard = await self._loaded_shard(request.group_id)
        group = shard.offsets.validate_commit(request)
        if group is not None and group.is_in(GroupState.STABLE, GroupState.PREPARING_REBALANCE):
            shard.members.restart_session(group, request.member_id)
        answer, records = shard.offsets.commit(request)
        await _finish(shard, Write(records) if records else None)
        return answer

    async def fetch(
        self,
        group_id: str,
        topics: Sequence[tuple[str, uuid.UUID | None, Sequence[int]]],
        *,
        require_stable: bool,
    ) -> list[list[FetchedOffset]]:
        """Durable offsets for each topic given. Raises KafkaError: of the whole group."""
        shard = await self._shard_to_read(group_id, require_stable=require_stable)
        return [shard.offsets.fetch(group_id, *topic) for topic in topics]

    async def fetch_all(
        self, group_id: str, *, require_stable: bool
    ) -> dict[str, list[FetchedOffset]]:
        shard = await self._shard_to_read(group_id, require_stable=require_stable)
        return shard.offsets.fetch_all(group_id)

    async def _shard_to_read(self, group_id: str, *, require_stable: bool) -> Shard:
        try:
            shard = await self._loaded_shard(group_id)
            if require_stable:
                # Commits on their way count, so they are waited for.
                await shard.settled()
            await shard.confirm()
            # It may have been resigned while we waited.
            return self._shard(group_id)
        except KafkaError as error:
            code = append_error(error.code)
            # Old consumers do not know what to do with COORDINATOR_NOT_AVAILABLE here.
            if code != error.code and code == ErrorCode.COORDINATOR_NOT_AVAILABLE:
                code = ErrorCode.NOT_COORDINATOR
            raise KafkaError(code, error.message, detail=error.detail) from error

    async def delete_offsets(
        self, group_id: str, topics: Sequence[tuple[str, Sequence[int]]]
    ) -> PartitionErrors:
        """Raises KafkaError: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP, or to be tried again."""
        self._check_member_of(group_id)
        shard = await self._loaded_shard(group_id)
        try:
            answer, records = shard.offsets.delete(group_id, topics)
        except KafkaError:
            await _finish(shard, None)
            raise
        await _finish(shard, Write(records) if records else None)
        return answer

    # Housekeeping

    async def topics_deleted(self, topics: dict[str, uuid.UUID]) -> None:
        """Forget the offsets of deleted topics, given by name and the id each had.

        Raises KafkaError: not all could be; call again.
        """
        await self._sweep(lambda shard, group_ids: shard.offsets.delete_topics(group_ids, topics))

    async def expire(self) -> None:
        """Forget expired offsets and empty groups; to be called from time to time.

        Raises KafkaError: not all could be; the next call finds them again.
        """
        await self._sweep(Shard.expired)

    async def _sweep(self, decide: Callable[[Shard, list[str]], list[Record]]) -> None:
        """Have the records written that `decide` finds for the groups it is shown."""
        waiting = []
        for _epoch, shard in list(self._shards.values()):
            group_ids = list(shard.groups)
            for begin in range(0, len(group_ids), _SWEEP_GROUPS):
                if not shard.loaded:
                    break
                records = decide(shard, group_ids[begin : begin + _SWEEP_GROUPS])
                if records:
                    waiting.append((shard, shard.append_all(records)))
                # Other requests go between: there may be a hundred thousand groups.
                await asyncio.sleep(0)
        failures = []
        for shard, answered in waiting:
            try:
                await shard.written(answered)
            except KafkaError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def compaction_snapshot(self, partition: int) -> tuple[int, list[tuple[bytes, bytes]]]:
        """An offset of the partition, and live records that say all that it says below it.

        Raises KafkaError: the partition is not led or not loaded.
        """
        known = self._shards.get(partition)
        if known is None or not known[1].loaded:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        return known[1].end_offset, known[1].live_records()


def _visible(shard: Shard, group_id: str) -> ClassicGroup | None:
    """The group as others may see it: durable, or with members that work in it.

    One whose tombstone is on its way is still there, empty.
    """
    group = shard.groups.get(group_id)
    durable = group_id in shard.durable.groups
    if group is not None:
        return group if durable or not group.is_in(GroupState.EMPTY) else None
    if not durable:
        return None
    metadata = shard.durable.groups[group_id]
    if metadata is None:
        return ClassicGroup(group_id, -1)
    return ClassicGroup.from_metadata(group_id, metadata)


def _start(shard: Shard, write: Write | None) -> None:
    if write is not None:
        shard.append(write)


async def _finish(shard: Shard, write: Write | None) -> None:
    """Wait for the records, or for earlier ones if there are none: the answer tells of them."""
    if write is not None:
        await _written(shard, shard.append(write))
        return
    try:
        await shard.settled()
    except KafkaError as error:
        raise KafkaError(append_error(error.code), error.message, detail=error.detail) from error


async def _written(shard: Shard, answered: asyncio.Future[KafkaError | None]) -> None:
    try:
        await shard.written(answered)
    except KafkaError as error:
        raise KafkaError(append_error(error.code), error.message, detail=error.detail) from error
