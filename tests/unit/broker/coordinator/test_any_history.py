"""Whatever members, operators and the log do: live state and recovered state are one.

A state machine of random histories. After every step the records in the log, replayed from the
start, give exactly the durable state; groups in memory are those of the latest state; counters
agree with what they count; a settled group is what a restart would make of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.coordinator import GroupConfig
from broker.coordinator.classic_group import ClassicGroup, GroupState
from broker.coordinator.records import decode_record
from broker.coordinator.shard import Shard
from broker.coordinator.state import DurableState
from protocol.errors import ErrorCode, KafkaError
from tests.unit.broker.coordinator import requests as rq
from tests.unit.broker.coordinator.broker_double import BrokerDouble
from tests.unit.broker.coordinator.virtual_loop import VirtualLoop

GROUPS = st.sampled_from(["g", "h"])
INSTANCES = st.sampled_from([None, None, "one", "two"])
PICK = st.integers(0, 10)


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.errors: list[Any] = []
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.tasks: list[asyncio.Future[Any]] = []
        # Every member id that a join answered with: group, id, instance, generation.
        self.known: list[tuple[str, str, str | None, int]] = [("g", "nobody", None, 1)]
        self.rng = random.Random(1)

    @initialize(delay=st.sampled_from([0, 3_000]), size=st.sampled_from([2, 1_000]))
    def start(self, delay: int, size: int) -> None:
        config = GroupConfig(
            group_initial_rebalance_delay_ms=delay,
            group_max_size=size,
            offsets_topic_num_partitions=1,
            offsets_retention_minutes=1,
        )
        self.broker = BrokerDouble(config=config)
        self.run(self.broker.start())

    def run(self, step: Any) -> Any:
        return self.loop.run_until_complete(step)

    def send(self, request: Any, version: int) -> None:
        """Send without waiting for the answer, which may take for ever."""

        async def sending() -> Any:
            task = asyncio.ensure_future(self.broker(request, version))
            await asyncio.sleep(0.001)
            return task

        self.tasks.append(self.run(sending()))

    @property
    def shard(self) -> Shard:
        return self.broker.groups._shards[0][1]

    @rule(group=GROUPS, instance=INSTANCES, version=st.sampled_from([3, 9]), wide=st.booleans())
    def join_first(self, group: str, instance: str | None, version: int, wide: bool) -> None:
        self._join(group, "", instance if version > 4 else None, version, wide)

    @rule(pick=PICK, wide=st.booleans())
    def join_again(self, pick: int, wide: bool) -> None:
        group, member, instance, _generation = self.known[pick % len(self.known)]
        self._join(group, member, instance, 9, wide)

    def _join(
        self, group: str, member: str, instance: str | None, version: int, wide: bool
    ) -> None:
        data = rq.subscription("a")
        protocols = [("range", data), ("roundrobin", data)] if wide else [("range", data)]
        request = rq.join(group, member, instance=instance, session_ms=6_000, protocols=protocols)
        self.send(request, version)
        place = len(self.known)
        self.known.append((group, member or "nobody", instance, 0))

        def note(task: asyncio.Future[Any]) -> None:
            if not task.cancelled() and task.exception() is None and task.result().member_id:
                r = task.result()
                self.known[place] = (group, r.member_id, instance, r.generation_id)

        self.tasks[-1].add_done_callback(note)

    @rule(pick=PICK, full=st.booleans())
    def sync(self, pick: int, full: bool) -> None:
        group, member, instance, generation = self.known[pick % len(self.known)]
        given_to = {m: m.encode() for g, m, *_ in self.known if g == group} if full else {}
        request = rq.sync(group, member, generation, given_to, instance=instance, protocol="range")
        self.send(request, 3)

    @rule(group=GROUPS)
    def everybody_joins_and_syncs(self, group: str) -> None:
        """What well-behaved clients do, so that groups become stable often enough."""
        here = self.shard.groups.get(group)
        if here is None:
            return
        for member in list(here.members.values()):
            self._join(group, member.member_id, member.instance_id, 9, wide=False)
        self.run(asyncio.sleep(3.1))
        for member in list(here.members.values()):
            request = rq.sync(
                group,
                member.member_id,
                here.generation,
                {m: m.encode() for m in here.members},
                instance=member.instance_id,
            )
            self.send(request, 3)
        self.run(asyncio.sleep(0.01))

    @rule(pick=PICK)
    def heartbeat(self, pick: int) -> None:
        group, member, instance, generation = self.known[pick % len(self.known)]
        self.send(rq.heartbeat(group, member, generation, instance), 4)

    @rule(pick=PICK, by_operator=st.booleans())
    def leave(self, pick: int, by_operator: bool) -> None:
        group, member, instance, _generation = self.known[pick % len(self.known)]
        self.send(rq.leave(group, ("" if by_operator else member, instance)), 5)

    @rule(pick=PICK, as_member=st.booleans(), index=st.integers(0, 1))
    def commit(self, pick: int, as_member: bool, index: int) -> None:
        group, member, instance, generation = self.known[pick % len(self.known)]
        if not as_member:
            member, instance, generation = "", None, -1
        offsets = {"a": {index: pick}, "b": {index: pick}}
        self.send(
            rq.commit(group, offsets, member=member, generation=generation, instance=instance), 9
        )

    @rule(group=GROUPS)
    def delete_offsets(self, group: str) -> None:
        self.send(rq.delete_offsets(group, {"a": [0], "b": [0, 1]}), 0)

    @rule(group=GROUPS)
    def delete_group(self, group: str) -> None:
        self.send(rq.delete_groups(group), 2)

    @rule()
    def expire(self) -> None:
        async def expiring() -> None:
            task = asyncio.ensure_future(self.broker.groups.expire())
            await asyncio.sleep(0.001)
            self.tasks.append(task)

        self.run(expiring())

    @rule(seconds=st.sampled_from([0.01, 1.0, 5.9, 7.0, 70.0, 400.0]))
    def wait(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule()
    def log_stalls(self) -> None:
        self.broker.log.hold = True

    @rule()
    def log_goes_on(self) -> None:
        async def going_on() -> None:
            self.broker.log.release()
            await asyncio.sleep(0.001)

        self.run(going_on())

    @rule(code=st.sampled_from([None, ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.KAFKA_STORAGE_ERROR]))
    def log_refuses(self, code: ErrorCode | None) -> None:
        self.broker.log.refuse = code

    @rule(code=st.sampled_from([None, ErrorCode.NOT_LEADER_OR_FOLLOWER]))
    def log_loses(self, code: ErrorCode | None) -> None:
        self.broker.log.lose = code

    @rule()
    def connection_drops(self) -> None:
        for task in self.tasks[-3:]:
            task.cancel()
        self.run(asyncio.sleep(0))

    @rule()
    def broker_restarts(self) -> None:
        self.run(self.broker.restart())

    @invariant()
    def log_replayed_is_the_durable_state(self) -> None:
        replayed = DurableState()
        for record in self.broker.log.records:
            known = decode_record(record.key, record.value)
            assert known is not None
            replayed.replay(*known)
        assert replayed.groups == self.shard.durable.groups
        assert replayed.offsets == self.shard.durable.offsets

    @invariant()
    def memory_holds_the_groups_of_the_latest_state(self) -> None:
        assert sorted(self.shard.groups) == sorted(self.shard.latest.group_ids())
        if not self.shard._pending:
            assert not self.shard.latest._groups
            assert not self.shard.latest._offsets

    @invariant()
    def counters_agree_with_what_they_count(self) -> None:
        for group in self.shard.groups.values():
            members = group.members
            assert group.awaiting_join == sum(m.join is not None for m in members.values())
            names = Counter(name for m in members.values() for name, _ in m.protocols)
            assert {n: c for n, c in group._supported.items() if c} == dict(names)
            statics = {m.instance_id: m.member_id for m in members.values() if m.instance_id}
            assert group.static_members == statics
            assert set(group.pending_sync) <= set(members)
            assert not set(group.pending_join) & set(members)
            assert (group.leader in members) if members else group.leader is None
            if group.is_in(GroupState.EMPTY):
                assert not members

    @invariant()
    def every_member_is_watched(self) -> None:
        for group in self.shard.groups.values():
            for member in group.members.values():
                watched = ("session", group.group_id, member.member_id) in self.shard.timers
                assert watched or member.waits, (group.group_id, member)
            for member_id in group.pending_join:
                assert ("session", group.group_id, member_id) in self.shard.timers
            if group.is_in(GroupState.PREPARING_REBALANCE):
                assert ("join", group.group_id) in self.shard.timers

    @invariant()
    def settled_group_is_what_a_restart_makes_of_it(self) -> None:
        if self.shard._pending:
            return
        for group in self.shard.groups.values():
            if not group.is_in(GroupState.STABLE):
                continue
            metadata = self.shard.durable.groups[group.group_id]
            assert metadata is not None
            recovered = ClassicGroup.from_metadata(group.group_id, metadata)
            assert _core(recovered) == _core(group)

    @invariant()
    def nothing_failed_unseen(self) -> None:
        assert not self.errors, self.errors
        for task in self.tasks:
            if task.done() and not task.cancelled():
                error = task.exception()
                assert error is None or isinstance(error, KafkaError), error

    def teardown(self) -> None:
        async def drain() -> None:
            if hasattr(self, "broker"):
                self.broker.groups.close()
                self.broker.log.release()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

        self.run(drain())
        self.loop.close()


def _core(group: ClassicGroup) -> Any:
    members = {
        m.member_id: (m.instance_id, m.assignment, m.metadata(group.protocol_name))
        for m in group.members.values()
    }
    return group.generation, group.leader, group.protocol_name, group.protocol_type, members


TestAnyHistory = Histories.TestCase
TestAnyHistory.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
