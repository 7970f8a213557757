"""What a group coordinator answers to requests right and wrong: scripts, and Kafka's answers.

Each script talks to a broker through `env` and returns what it saw; `answer` is what Apache Kafka
4.3.1 was seen to say to the same requests (offsets.topic.num.partitions and
group.initial.rebalance.delay.ms apart, with its defaults). Topics a and b have two partitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from protocol.messages import FindCoordinatorRequest, LeaveGroupRequest
from tests.unit.broker.coordinator import requests as rq

Send = Callable[[Any, int], Awaitable[Any]]


class Env(Protocol):
    def client(self) -> Send:
        """A connection of its own."""
        ...

    def group(self, name: str) -> str:
        """A group that nobody has used before, but this name in this script."""
        ...

    def topic_id(self, name: str) -> UUID: ...


@dataclass(frozen=True)
class Case:
    name: str
    script: Callable[[Env], Awaitable[Any]]
    answer: Any


CASES: list[Case] = []


def case(answer: Any) -> Callable[[Callable[[Env], Awaitable[Any]]], Any]:
    def note(script: Callable[[Env], Awaitable[Any]]) -> Any:
        CASES.append(Case(script.__name__, script, answer))
        return script

    return note


async def stable(env: Env, group: str, send: Send | None = None, **how: Any) -> tuple[Send, str]:
    """A group of one member in generation 1; its connection and member id."""
    send = send or env.client()
    if how.get("instance") is None:
        first = await send(rq.join(group, **how), 9)
        joined = await send(rq.join(group, first.member_id, **how), 9)
    else:
        joined = await send(rq.join(group, **how), 9)
    assert joined.error_code == 0, joined
    synced = await send(
        rq.sync(
            group,
            joined.member_id,
            joined.generation_id,
            {joined.member_id: b"mine"},
            instance=how.get("instance"),
            kind=how.get("kind", "consumer"),
        ),
        5,
    )
    assert synced.error_code == 0, synced
    return send, joined.member_id


# Join


@case((24, "", -1, ""))
async def join_without_group(env: Env) -> Any:
    r = await env.client()(rq.join(""), 9)
    return r.error_code, r.member_id, r.generation_id, r.leader


@case((26, 26, 0))
async def join_with_session_timeout_out_of_bounds(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    low = await send(rq.join(group, session_ms=5_999), 9)
    high = await send(rq.join(group, session_ms=1_800_001), 9)
    listed = [g for g in (await send(rq.list_groups(), 5)).groups if g.group_id == group]
    return low.error_code, high.error_code, len(listed)


@case((79, True, -1, None, "", [], ["Empty"]))
async def join_first_gets_member_id(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    r = await send(rq.join(group), 9)
    named = r.member_id.startswith("probe-")
    # The answer does not wait for the new group's record, but the list shows only durable groups.
    await asyncio.sleep(0.3)
    listed = [g for g in (await send(rq.list_groups(), 5)).groups if g.group_id == group]
    states = [g.group_state for g in listed]
    return (
        r.error_code, named, r.generation_id, r.protocol_name, r.leader, r.members, states,
    )  # fmt: skip


@case((0, 1, True, 1, "range"))
async def join_before_version_4_needs_no_member_id(env: Env) -> Any:
    r = await env.client()(rq.join(env.group("g")), 3)
    return (
        r.error_code, r.generation_id, r.leader == r.member_id, len(r.members), r.protocol_name,
    )  # fmt: skip


@case((25, "nobody"))
async def join_missing_group_with_member_id(env: Env) -> Any:
    r = await env.client()(rq.join(env.group("g"), "nobody"), 9)
    return r.error_code, r.member_id


@case((25, "nobody", None, -1))
async def join_with_unknown_member_id(env: Env) -> Any:
    group = env.group("g")
    send, _ = await stable(env, group)
    r = await send(rq.join(group, "nobody"), 9)
    return r.error_code, r.member_id, r.protocol_name, r.generation_id


@case((23, 23, 23, ["Empty"]))
async def join_empty_group_without_protocols(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    none = await send(rq.join(group, protocols=()), 9)
    untyped = await send(rq.join(group, kind=""), 9)
    old = await send(rq.join(group, kind=""), 3)
    await asyncio.sleep(0.3)
    listed = [g for g in (await send(rq.list_groups(), 5)).groups if g.group_id == group]
    return (
        none.error_code, untyped.error_code, old.error_code, [g.group_state for g in listed],
    )  # fmt: skip


@case((23, "", 23, ""))
async def join_with_other_protocol(env: Env) -> Any:
    group = env.group("g")
    send, _ = await stable(env, group)
    type_ = await send(rq.join(group, kind="connect"), 9)
    name = await send(rq.join(group, protocols=(("mine", b""),)), 9)
    return type_.error_code, type_.member_id, name.error_code, name.member_id


@case((82, 25, 82))
async def join_static_with_wrong_ids(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group, instance="one")
    fenced = await send(rq.join(group, "other", instance="one"), 9)
    unknown = await send(rq.join(group, member, instance="two"), 9)
    fenced_sync = await send(rq.sync(group, "other", 1, instance="one"), 5)
    return fenced.error_code, unknown.error_code, fenced_sync.error_code


@case((0, 1, True, True, 1, True))
async def static_leader_comes_back_without_rebalance(env: Env) -> Any:
    group = env.group("g")
    _, member = await stable(env, group, instance="one")
    r = await env.client()(rq.join(group, instance="one"), 9)
    return (
        r.error_code, r.generation_id, r.member_id != member, r.skip_assignment,
        len(r.members), r.leader == r.member_id,
    )  # fmt: skip


@case((0, 1, True, 0, True))
async def static_leader_comes_back_by_version_8(env: Env) -> Any:
    group = env.group("g")
    _, member = await stable(env, group, instance="one")
    r = await env.client()(rq.join(group, instance="one"), 8)
    return (
        r.error_code, r.generation_id, r.member_id != member, len(r.members), r.leader == member,
    )  # fmt: skip


@case((82, 25, 0, b"mine"))
async def replaced_static_member_is_fenced(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group, instance="one")
    back = await env.client()(rq.join(group, instance="one"), 9)
    named = await send(rq.heartbeat(group, member, 1, "one"), 4)
    unnamed = await send(rq.heartbeat(group, member, 1), 4)
    new = await send(rq.heartbeat(group, back.member_id, 1, "one"), 4)
    synced = await send(rq.sync(group, back.member_id, 1, instance="one"), 5)
    return named.error_code, unnamed.error_code, new.error_code, synced.assignment


@case((82, 0, 2))
async def static_member_back_while_its_join_waits(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group, instance="one")
    other = env.client()
    waiting = asyncio.ensure_future(other(rq.join(group, instance="two"), 9))
    await asyncio.sleep(0.3)
    again = asyncio.ensure_future(env.client()(rq.join(group, instance="two"), 9))
    fenced = await waiting
    mine = await send(rq.join(group, member, instance="one"), 9)
    second = await again
    return fenced.error_code, second.error_code, mine.generation_id


@case((0, 1, "range", [], False))
async def follower_joins_again_without_change(env: Env) -> Any:
    group = env.group("g")
    lead, leader, send, follower, generation = await two_members(env, group)
    r = await send(rq.join(group, follower), 9)
    await lead(rq.heartbeat(group, leader, generation), 4)
    return (
        r.error_code, r.generation_id - generation + 1, r.protocol_name, r.members,
        r.skip_assignment,
    )  # fmt: skip


async def two_members(env: Env, group: str) -> tuple[Send, str, Send, str, int]:
    """A stable group of a leader and a follower."""
    lead, leader = await stable(env, group)
    send = env.client()
    follower = (await send(rq.join(group), 9)).member_id
    joining = asyncio.ensure_future(send(rq.join(group, follower), 9))
    await asyncio.sleep(0.3)
    assert (await lead(rq.heartbeat(group, leader, 1), 4)).error_code == 27
    led = await lead(rq.join(group, leader), 9)
    joined = await joining
    assert led.generation_id == joined.generation_id == 2
    syncing = asyncio.ensure_future(send(rq.sync(group, follower, 2), 5))
    await asyncio.sleep(0.2)
    await lead(rq.sync(group, leader, 2, {leader: b"1", follower: b"2"}), 5)
    assert (await syncing).assignment == b"2"
    return lead, leader, send, follower, 2


@case((0, 2, 1, True))
async def leader_joins_again_and_rebalances(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group)
    r = await send(rq.join(group, member), 9)
    return r.error_code, r.generation_id, len(r.members), r.leader == member


@case(("roundrobin", ["roundrobin", "range"]))
async def protocol_with_most_votes_of_those_all_support(env: Env) -> Any:
    group = env.group("g")
    data = rq.subscription("a")
    second = (("roundrobin", data), ("range", data))
    send, member = await stable(env, group, protocols=(("range", data), ("roundrobin", data)))
    other = env.client()
    follower = (await other(rq.join(group, protocols=second), 9)).member_id
    joining = asyncio.ensure_future(other(rq.join(group, follower, protocols=second), 9))
    await asyncio.sleep(0.3)
    third = env.client()
    another = (await third(rq.join(group, protocols=second), 9)).member_id
    joining_too = asyncio.ensure_future(third(rq.join(group, another, protocols=second), 9))
    await asyncio.sleep(0.3)
    led = await send(rq.join(group, member, protocols=(("range", data), ("roundrobin", data))), 9)
    await asyncio.gather(joining, joining_too)
    return led.protocol_name, [name for name, _ in second]


@case("range")
async def protocols_with_equal_votes(env: Env) -> Any:
    group = env.group("g")
    data = rq.subscription("a")
    send, member = await stable(env, group, protocols=(("range", data), ("roundrobin", data)))
    other = env.client()
    turned = (("roundrobin", data), ("range", data))
    follower = (await other(rq.join(group, protocols=turned), 9)).member_id
    joining = asyncio.ensure_future(other(rq.join(group, follower, protocols=turned), 9))
    await asyncio.sleep(0.3)
    led = await send(rq.join(group, member, protocols=(("range", data), ("roundrobin", data))), 9)
    await joining
    return led.protocol_name


# Sync and heartbeat


@case((24, 25, 25, 22, 23, 23, 23, 0))
async def sync_refused(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group)
    requests = [
        rq.sync("", member, 1),
        rq.sync(env.group("missing"), member, 1),
        rq.sync(group, "nobody", 1),
        rq.sync(group, member, 7),
        rq.sync(group, member, 1, kind="connect"),
        rq.sync(group, member, 1, protocol="other"),
        rq.sync(group, member, 1, protocol=None),
        rq.sync(group, member, 1),
    ]
    return tuple([(await send(r, 5)).error_code for r in requests])


@case((27, 27, 25))
async def sync_and_heartbeat_while_members_join(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group)
    other = env.client()
    follower = (await other(rq.join(group), 9)).member_id
    joining = asyncio.ensure_future(other(rq.join(group, follower), 9))
    await asyncio.sleep(0.3)
    synced = await send(rq.sync(group, member, 1), 5)
    beat = await send(rq.heartbeat(group, member, 1), 4)
    await send(rq.leave(group, (member, None)), 5)
    await joining
    gone = await send(rq.heartbeat(group, member, 1), 4)
    return synced.error_code, beat.error_code, gone.error_code


@case((24, 25, 25, 22, 0, 0))
async def heartbeat_refused(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group)
    requests = [
        rq.heartbeat("", member, 1),
        rq.heartbeat(env.group("missing"), member, 1),
        rq.heartbeat(group, "nobody", 1),
        rq.heartbeat(group, member, 0),
        rq.heartbeat(group, member, 1),
    ]
    codes = [(await send(r, 4)).error_code for r in requests]
    joined = await send(rq.join(group, member), 9)
    # Between join and sync a heartbeat is fine already.
    codes.append((await send(rq.heartbeat(group, member, joined.generation_id), 4)).error_code)
    return tuple(codes)


# Leave


@case(((24, []), (0, [25]), (25, [])))
async def leave_without_or_from_missing_group(env: Env) -> Any:
    send, group = env.client(), env.group("missing")
    unnamed = await send(rq.leave("", ("m", None)), 5)
    missing = await send(rq.leave(group, ("m", None)), 5)
    old = await send(LeaveGroupRequest(group_id=group, member_id="m"), 2)
    return tuple((r.error_code, [m.error_code for m in r.members]) for r in (unnamed, missing, old))


@case((0, [("nobody", None, 25), ("", "none", 25), ("", None, 25), ("other", "one", 82)], 0))
async def leave_with_wrong_ids(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group, instance="one")
    r = await send(rq.leave(group, ("nobody", None), ("", "none"), ("", None), ("other", "one")), 5)
    beat = await send(rq.heartbeat(group, member, 1, "one"), 4)
    return (
        r.error_code,
        [(m.member_id, m.group_instance_id, m.error_code) for m in r.members],
        beat.error_code,
    )


@case((0, [0], "Empty", "consumer", ""))
async def operator_removes_static_member(env: Env) -> Any:
    group = env.group("g")
    send, _ = await stable(env, group, instance="one")
    r = await send(rq.leave(group, ("", "one")), 5)
    d = (await send(rq.describe(group), 6)).groups[0]
    return (
        r.error_code, [m.error_code for m in r.members], d.group_state, d.protocol_type,
        d.protocol_data,
    )  # fmt: skip


@case((0, [0], 25))
async def leave_while_only_a_member_id_was_given(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    member = (await send(rq.join(group), 9)).member_id
    r = await send(rq.leave(group, (member, None)), 5)
    again = await send(rq.join(group, member), 9)
    return r.error_code, [m.error_code for m in r.members], again.error_code


# Describe, list, delete


@case(((69, "Dead", True, None), (0, "Dead", False, {3, 6, 8, 10, 11})))
async def describe_missing_group(env: Env) -> Any:
    send, group = env.client(), env.group("missing")
    new = (await send(rq.describe(group, operations=True), 6)).groups[0]
    old = (await send(rq.describe(group, operations=True), 5)).groups[0]
    return tuple(
        (g.error_code, g.group_state, g.error_message == f"Group {group} not found.",
         g.authorized_operations)
        for g in (new, old)
    )  # fmt: skip


@case(("Stable", "consumer", "range", "probe", "/127.0.0.1", True, b"mine"))
async def describe_stable_group(env: Env) -> Any:
    group = env.group("g")
    send, _ = await stable(env, group)
    g = (await send(rq.describe(group), 6)).groups[0]
    m = g.members[0]
    return (
        g.group_state, g.protocol_type, g.protocol_data, m.client_id, m.client_host,
        m.member_metadata == rq.subscription("a"), m.member_assignment,
    )  # fmt: skip


@case(("CompletingRebalance", "consumer", "", b"", b""))
async def describe_group_that_waits_for_assignments(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    member = (await send(rq.join(group), 9)).member_id
    await send(rq.join(group, member), 9)
    g = (await send(rq.describe(group), 6)).groups[0]
    m = g.members[0]
    return g.group_state, g.protocol_type, g.protocol_data, m.member_metadata, m.member_assignment


@case(([True, True, True, False, False], ["Stable", "consumer", "classic"]))
async def list_with_filters(env: Env) -> Any:
    group = env.group("g")
    send, _ = await stable(env, group)
    seen = []
    filters = [([], []), (["stable"], ["CLASSIC"]), ([" StAble", "Dead"], []),
               (["Empty"], []), ([], ["consumer"])]  # fmt: skip
    for states, types in filters:
        r = await send(rq.list_groups(states, types), 5)
        seen.append(group in [g.group_id for g in r.groups])
    g = next(g for g in (await send(rq.list_groups(), 5)).groups if g.group_id == group)
    return seen, [g.group_state, g.protocol_type, g.group_type]


@case((0, 0))
async def list_with_unknown_filters(env: Env) -> Any:
    send = env.client()
    states = await send(rq.list_groups(["bogus"], []), 5)
    types = await send(rq.list_groups([], ["bogus"]), 5)
    return states.error_code + types.error_code, len(states.groups) + len(types.groups)


@case(({"missing": 69, "stable": 68, "empty": 0}, 69, 69))
async def delete_groups(env: Env) -> Any:
    names = {name: env.group(name) for name in ("missing", "stable", "empty")}
    send, _ = await stable(env, names["stable"])
    other, member = await stable(env, names["empty"])
    await other(rq.commit(names["empty"], {"a": {0: 1}}, member=member, generation=1), 9)
    await other(rq.leave(names["empty"], (member, None)), 5)
    r = await send(rq.delete_groups(*names.values()), 2)
    codes = {g.group_id: g.error_code for g in r.results}
    again = await send(rq.delete_groups(names["empty"]), 2)
    described = await send(rq.describe(names["empty"]), 6)
    return (
        {name: codes[group] for name, group in names.items()},
        again.results[0].error_code,
        described.groups[0].error_code,
    )


@case((69,))
async def delete_group_without_name(env: Env) -> Any:
    r = await env.client()(rq.delete_groups(""), 2)
    return tuple(g.error_code for g in r.results)


# Offsets


def _codes(response: Any) -> list[int]:
    return [p.error_code for t in response.topics for p in t.partitions]


@case(([0], [("Empty", "")], (5, 3, "hi"), (-1, -1, "")))
async def commit_without_group_membership(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    r = await send(rq.commit(group, {"a": {0: 5}}, metadata="hi", leader_epoch=3), 9)
    d = (await send(rq.describe(group), 6)).groups
    f = (await send(rq.fetch(group, {"a": [0, 1]}), 9)).groups[0].topics[0].partitions
    seen = [(p.committed_offset, p.committed_leader_epoch, p.metadata) for p in f]
    return _codes(r), [(g.group_state, g.protocol_type) for g in d], *seen


@case(([69], [22], [22], 0))
async def commit_of_a_generation_in_a_missing_group(env: Env) -> Any:
    send, group = env.client(), env.group("missing")
    codes = [
        _codes(await send(rq.commit(group, {"a": {0: 5}}, member="m", generation=1), version))
        for version in (9, 8, 2)
    ]
    listed = (await send(rq.list_groups(), 5)).groups
    return *codes, sum(g.group_id == group for g in listed)


@case(([25], [22], [22], [25], [25], [0]))
async def commit_to_stable_group(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group)
    tries = [("nobody", 1), (member, 2), (member, -1), ("", -1), ("", 1), (member, 1)]
    return tuple(
        [
            _codes(await send(rq.commit(group, {"a": {0: 5}}, member=m, generation=g), 9))
            for m, g in tries
        ]
    )


@case(([82], [25], [0]))
async def commit_of_static_members(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group, instance="one")
    tries = [("other", "one"), (member, "two"), (member, "one")]
    return tuple(
        [
            _codes(
                await send(rq.commit(group, {"a": {0: 5}}, member=m, generation=1, instance=i), 9)
            )
            for m, i in tries
        ]
    )


@case([27])
async def commit_between_join_and_sync(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    member = (await send(rq.join(group), 9)).member_id
    await send(rq.join(group, member), 9)
    return _codes(await send(rq.commit(group, {"a": {0: 5}}, member=member, generation=1), 9))


@case(([0], [25], [22], [25]))
async def commit_while_members_join(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group)
    other = env.client()
    follower = (await other(rq.join(group), 9)).member_id
    joining = asyncio.ensure_future(other(rq.join(group, follower), 9))
    await asyncio.sleep(0.3)
    tries = [(member, 1), ("x", 1), (member, 2), ("", -1)]
    codes = [
        _codes(await send(rq.commit(group, {"a": {0: 5}}, member=m, generation=g), 9))
        for m, g in tries
    ]
    await send(rq.leave(group, (member, None)), 5)
    await joining
    return tuple(codes)


@case(([0], [25], [25]))
async def commit_to_group_that_became_empty(env: Env) -> Any:
    group = env.group("g")
    send, member = await stable(env, group)
    await send(rq.leave(group, (member, None)), 5)
    tries = [("", -1), (member, 1), (member, 2)]
    return tuple(
        [
            _codes(await send(rq.commit(group, {"a": {0: 5}}, member=m, generation=g), 9))
            for m, g in tries
        ]
    )


@case(([("zz", [3]), ("a", [3, 0])], [12], [0], [0]))
async def commit_with_bad_partitions(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    r = await send(rq.commit(group, {"zz": {0: 1}, "a": {0: 1, 9: 1}}), 9)
    seen = [(t.name, [p.error_code for p in t.partitions]) for t in r.topics]
    long = _codes(await send(rq.commit(group, {"a": {0: 1}}, metadata="x" * 4097), 9))
    fits = _codes(await send(rq.commit(group, {"a": {0: 1}}, metadata="x" * 4096), 9))
    null = _codes(await send(rq.commit(group, {"a": {0: 1}}, metadata=None), 9))
    return seen, long, fits, null


@case([("zz", [3])])
async def commit_of_unknown_topics_only_asks_no_group(env: Env) -> Any:
    group = env.group("missing")
    r = await env.client()(rq.commit(group, {"zz": {0: 1}}, member="m", generation=4), 9)
    return [(t.name, [p.error_code for p in t.partitions]) for t in r.topics]


@case(([0], [100], [3], (7, 0), (-1, 100), 1))
async def offsets_by_topic_id(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    known, unknown = env.topic_id("a"), UUID(int=0x12345)
    good = await send(rq.commit_by_id(group, {known: {0: 7}}), 10)
    bad = await send(rq.commit_by_id(group, {unknown: {0: 7}}), 10)
    index = await send(rq.commit_by_id(group, {known: {9: 7}}), 10)
    f = (await send(rq.fetch_by_id(group, {known: [0], unknown: [0]}), 10)).groups[0]
    by_id = {t.topic_id: t.partitions[0] for t in f.topics}
    seen = [(p.committed_offset, p.error_code) for p in (by_id[known], by_id[unknown])]
    everything = (await send(rq.fetch_by_id(group, None), 10)).groups[0].topics
    return _codes(good), _codes(bad), _codes(index), *seen, len(everything)


@case((0, [(-1, -1, "", 0)], 0, []))
async def fetch_from_missing_group(env: Env) -> Any:
    send, group = env.client(), env.group("missing")
    some = (await send(rq.fetch(group, {"a": [0]}), 9)).groups[0]
    everything = (await send(rq.fetch(group, None, require_stable=True), 9)).groups[0]
    return (
        some.error_code,
        [
            (p.committed_offset, p.committed_leader_epoch, p.metadata, p.error_code)
            for t in some.topics
            for p in t.partitions
        ],
        everything.error_code,
        everything.topics,
    )


@case([(1, 0, 5, "m"), (2, 0, 5, "m"), (5, 0, 5, "m"), (7, 0, 5, "m")])
async def fetch_by_old_versions(env: Env) -> Any:
    send, group = env.client(), env.group("g")
    await send(rq.commit(group, {"a": {0: 5}}, metadata="m"), 2)
    seen = []
    for version in (1, 2, 5, 7):
        r = await send(rq.fetch_one(group, {"a": [0]}), version)
        p = r.topics[0].partitions[0]
        seen.append((version, r.error_code, p.committed_offset, p.metadata))
    return seen


@case([-1])
async def fetch_of_unknown_topic_is_no_error(env: Env) -> Any:
    f = (await env.client()(rq.fetch(env.group("g"), {"zz": [0]}), 9)).groups[0]
    return [p.committed_offset + p.error_code for t in f.topics for p in t.partitions]


@case((24, 69, [("a", [86]), ("b", [0]), ("zz", [3])], [("b", [3, 0])], -1, 68, (0, [])))
async def delete_offsets(env: Env) -> Any:
    group, other = env.group("g"), env.group("other")
    send, member = await stable(env, group)
    await send(rq.commit(group, {"b": {0: 5}}, member=member, generation=1), 9)
    unnamed = await send(rq.delete_offsets("", {"a": [0]}), 0)
    missing = await send(rq.delete_offsets(env.group("missing"), {"a": [0]}), 0)
    mixed = await send(rq.delete_offsets(group, {"a": [0], "b": [0], "zz": [0]}), 0)
    again = await send(rq.delete_offsets(group, {"b": [0, 9]}), 0)
    left = (await send(rq.fetch(group, {"b": [0]}), 9)).groups[0].topics[0].partitions[0]
    connect, _ = await stable(env, other, kind="connect")
    full = await connect(rq.delete_offsets(other, {"a": [0]}), 0)
    nothing = await send(rq.delete_offsets(group, {}), 0)

    def sorted_topics(r: Any) -> Any:
        return sorted((t.name, [p.error_code for p in t.partitions]) for t in r.topics)

    return (
        unnamed.error_code, missing.error_code, sorted_topics(mixed), sorted_topics(again),
        left.committed_offset, full.error_code, (nothing.error_code, nothing.topics),
    )  # fmt: skip


# FindCoordinator


@case((42, 42, 42, 0, 0))
async def find_coordinator_of_what(env: Env) -> Any:
    send = env.client()
    share = await send(FindCoordinatorRequest(key_type=2, coordinator_keys=["x"]), 5)
    unknown = await send(FindCoordinatorRequest(key_type=5, coordinator_keys=["x"]), 6)
    old = await send(FindCoordinatorRequest(key="x", key_type=5), 2)
    group = await send(FindCoordinatorRequest(key_type=0, coordinator_keys=["g", ""]), 6)
    return (
        share.coordinators[0].error_code, unknown.coordinators[0].error_code, old.error_code,
        *[c.error_code for c in group.coordinators],
    )  # fmt: skip


@case((0, None, 0, "NONE", ""))
async def find_coordinator_words(env: Env) -> Any:
    send = env.client()
    oldest = await send(FindCoordinatorRequest(key="g"), 0)
    old = await send(FindCoordinatorRequest(key="g", key_type=0), 2)
    new = await send(FindCoordinatorRequest(key_type=0, coordinator_keys=["g"]), 4)
    return (
        oldest.error_code, None, old.error_code, old.error_message,
        new.coordinators[0].error_message,
    )  # fmt: skip
