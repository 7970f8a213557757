"""Rebalances in virtual time: who waits for whom, and for how long."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from broker.coordinator import GroupConfig
from protocol.errors import ErrorCode
from tests.unit.broker.coordinator import requests as rq
from tests.unit.broker.coordinator.broker_double import BrokerDouble
from tests.unit.broker.coordinator.virtual_loop import run

CONFIG = GroupConfig(group_initial_rebalance_delay_ms=0, offsets_topic_num_partitions=1)


async def started(config: GroupConfig = CONFIG) -> BrokerDouble:
    return await BrokerDouble(config=config).start()


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def member_of(broker: BrokerDouble, group: str = "g", **how: Any) -> str:
    """One member, in a stable group of its own."""
    static = how.get("instance") is not None
    member = "" if static else (await broker(rq.join(group, **how), 9)).member_id
    joined = await broker(rq.join(group, member, **how), 9)
    assert joined.error_code == 0
    synced = await broker(
        rq.sync(
            group,
            joined.member_id,
            joined.generation_id,
            {joined.member_id: b"all"},
            instance=how.get("instance"),
        ),
        5,
    )
    assert synced.error_code == 0
    return str(joined.member_id)


async def state_of(broker: BrokerDouble, group: str = "g") -> tuple[str, int]:
    d = (await broker(rq.describe(group), 6)).groups[0]
    return d.group_state, len(d.members)


def test_first_generation_waits_for_the_initial_delay() -> None:
    async def main() -> None:
        broker = await started(replace(CONFIG, group_initial_rebalance_delay_ms=3_000))
        joined = await broker(rq.join("g"), 3)
        assert joined.generation_id == 1
        assert round(now_s(), 3) == 3.0

    run(main())


def test_initial_delay_is_extended_by_later_members_up_to_the_rebalance_timeout() -> None:
    async def main() -> None:
        broker = await started(replace(CONFIG, group_initial_rebalance_delay_ms=3_000))
        joins = []
        for _ in range(5):
            joins.append(asyncio.ensure_future(broker(rq.join("g", rebalance_ms=7_000), 3)))
            await asyncio.sleep(2)
        answers = await asyncio.gather(*joins)
        # 3 s, 3 s more, and the 1 s that is left of 7 s.
        assert [a.generation_id for a in answers[:4]] == [1] * 4
        assert max(len(a.members) for a in answers[:4]) == 4

    run(main())


def test_rebalance_ends_without_the_member_that_does_not_join_in_time() -> None:
    async def main() -> None:
        broker = await started()
        old = await member_of(broker, rebalance_ms=10_000, session_ms=60_000)
        begun = now_s()
        joined = await broker(rq.join("g", rebalance_ms=20_000, session_ms=60_000), 3)
        assert round(now_s() - begun) == 20
        assert (joined.generation_id, len(joined.members)) == (2, 1)
        assert (await broker(rq.heartbeat("g", old, 2), 4)).error_code == 25

    run(main())


def test_static_member_keeps_its_place_when_it_does_not_join_in_time() -> None:
    async def main() -> None:
        broker = await started()
        old = await member_of(broker, instance="one", rebalance_ms=5_000, session_ms=60_000)
        joined = await broker(rq.join("g", rebalance_ms=5_000, session_ms=60_000), 3)
        # The leader did not join, so the new member leads; it is told of both.
        assert joined.leader == joined.member_id
        assert old in [m.member_id for m in joined.members]

    run(main())


def test_session_ends_without_heartbeats_and_lives_with_them() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, session_ms=6_000)
        for _ in range(5):
            await asyncio.sleep(5)
            assert (await broker(rq.heartbeat("g", member, 1), 4)).error_code == 0
        await asyncio.sleep(5.9)
        assert await state_of(broker) == ("Stable", 1)
        await asyncio.sleep(0.2)
        assert await state_of(broker) == ("Empty", 0)

    run(main())


def test_commit_counts_as_heartbeat() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, session_ms=6_000)
        await asyncio.sleep(5)
        await broker(rq.commit("g", {"a": {0: 1}}, member=member, generation=1), 9)
        await asyncio.sleep(5)
        assert await state_of(broker) == ("Stable", 1)

    run(main())


def test_member_id_that_nobody_uses_is_forgotten_after_its_session() -> None:
    async def main() -> None:
        broker = await started()
        member = (await broker(rq.join("g", session_ms=6_000), 9)).member_id
        await asyncio.sleep(6.1)
        assert (await broker(rq.join("g", member), 9)).error_code == 25

    run(main())


def test_pending_member_holds_a_rebalance_until_it_is_forgotten() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, session_ms=30_000, rebalance_ms=60_000)
        await broker(rq.join("g", session_ms=6_000), 9)
        begun = now_s()
        joined = await broker(rq.join("g", member, session_ms=30_000, rebalance_ms=60_000), 9)
        assert joined.generation_id == 2
        assert round(now_s() - begun) == 6

    run(main())


def test_member_that_does_not_sync_in_time_is_removed() -> None:
    async def main() -> None:
        broker = await started()
        first = (await broker(rq.join("g", session_ms=60_000, rebalance_ms=5_000), 9)).member_id
        await broker(rq.join("g", first, session_ms=60_000, rebalance_ms=5_000), 9)
        for _ in range(4):
            await asyncio.sleep(1)
            assert (await broker(rq.heartbeat("g", first, 1), 4)).error_code == 0
        await asyncio.sleep(1.1)
        assert (await broker(rq.heartbeat("g", first, 1), 4)).error_code == 25
        assert await state_of(broker) == ("Empty", 0)

    run(main())


def test_follower_waiting_for_the_leaders_assignment_is_not_expelled() -> None:
    async def main() -> None:
        broker = await started()
        how: dict[str, Any] = {"session_ms": 6_000, "rebalance_ms": 60_000}
        leading = asyncio.ensure_future(broker(rq.join("g", **how), 3))
        following = asyncio.ensure_future(broker(rq.join("g", **how), 3))
        lead, follow = await asyncio.gather(leading, following)
        if lead.leader != lead.member_id:
            lead, follow = follow, lead
        syncing = asyncio.ensure_future(broker(rq.sync("g", follow.member_id, 1), 5))
        for _ in range(4):
            await asyncio.sleep(4)
            assert (await broker(rq.heartbeat("g", lead.member_id, 1), 4)).error_code == 0
        await broker(rq.sync("g", lead.member_id, 1, {follow.member_id: b"f"}), 5)
        assert (await syncing).assignment == b"f"

    run(main())


def test_new_member_waits_five_minutes_at_most() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, rebalance_ms=900_000)
        begun = now_s()
        joining = asyncio.ensure_future(broker(rq.join("g", rebalance_ms=900_000), 3))
        while not joining.done():
            assert (await broker(rq.heartbeat("g", member, 1), 4)).error_code in (0, 27)
            await asyncio.sleep(5)
        assert (await joining).error_code == 25
        assert 300 <= now_s() - begun <= 310

    run(main())


def test_new_member_makes_waiting_followers_join_again() -> None:
    async def main() -> None:
        broker = await started()
        both = await asyncio.gather(broker(rq.join("g"), 3), broker(rq.join("g"), 3))
        follow = next(j for j in both if j.leader != j.member_id)
        syncing = asyncio.ensure_future(broker(rq.sync("g", follow.member_id, 1), 5))
        await asyncio.sleep(0.1)
        newcomer = asyncio.ensure_future(broker(rq.join("g"), 3))
        assert (await syncing).error_code == ErrorCode.REBALANCE_IN_PROGRESS
        again = await asyncio.gather(*(broker(rq.join("g", j.member_id), 9) for j in both))
        assert {j.generation_id for j in [*again, await newcomer]} == {2}

    run(main())


def test_group_does_not_grow_beyond_its_maximum() -> None:
    async def main() -> None:
        broker = await started(replace(CONFIG, group_max_size=1))
        await member_of(broker)
        refused = await broker(rq.join("g"), 9)
        assert (refused.error_code, refused.member_id) == (81, "")

    run(main())


def test_group_above_a_lowered_maximum_shrinks_after_a_restart() -> None:
    async def main() -> None:
        broker = await started()
        both = await asyncio.gather(broker(rq.join("g"), 3), broker(rq.join("g"), 3))
        lead = next(j for j in both if j.leader == j.member_id)
        await broker(rq.sync("g", lead.member_id, 1, {}), 5)
        await broker.restart(replace(CONFIG, group_max_size=1))
        assert (await state_of(broker))[0] == "PreparingRebalance"
        # Nobody is refused a heartbeat, but only one finds room.
        again = [asyncio.ensure_future(broker(rq.join("g", j.member_id), 9)) for j in both]
        codes = sorted([(await a).error_code for a in again])
        assert codes == [0, 81]

    run(main())


def test_leader_that_leaves_hands_over() -> None:
    async def main() -> None:
        broker = await started()
        both = await asyncio.gather(broker(rq.join("g"), 3), broker(rq.join("g"), 3))
        lead = next(j for j in both if j.leader == j.member_id)
        follow = next(j for j in both if j.leader != j.member_id)
        await broker(rq.sync("g", lead.member_id, 1, {}), 5)
        await broker(rq.leave("g", (lead.member_id, None)), 5)
        joined = await broker(rq.join("g", follow.member_id), 9)
        assert (joined.leader, joined.generation_id) == (follow.member_id, 2)

    run(main())


def test_dropped_connection_of_a_waiting_join_harms_nobody() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, rebalance_ms=5_000)
        dropped = asyncio.ensure_future(broker(rq.join("g", rebalance_ms=5_000), 3))
        await asyncio.sleep(0.1)
        dropped.cancel()
        await asyncio.wait([dropped])
        joined = await broker(rq.join("g", member, rebalance_ms=5_000), 9)
        assert (joined.error_code, joined.generation_id) == (0, 2)

    run(main())


def test_members_survive_a_restart_and_need_no_rebalance() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, instance="one", session_ms=6_000)
        await broker(rq.commit("g", {"a": {0: 9}}, member=member, generation=1, instance="one"), 9)
        await broker.restart()
        assert (await broker(rq.heartbeat("g", member, 1, "one"), 4)).error_code == 0
        synced = await broker(rq.sync("g", member, 1, instance="one"), 5)
        assert synced.assignment == b"all"
        fetched = await broker(rq.fetch("g", {"a": [0]}), 9)
        assert fetched.groups[0].topics[0].partitions[0].committed_offset == 9
        back = await broker(rq.join("g", instance="one"), 9)
        assert (back.error_code, back.generation_id) == (0, 1)

    run(main())


def test_members_that_do_not_come_back_after_a_restart_are_expelled() -> None:
    async def main() -> None:
        broker = await started()
        await member_of(broker, session_ms=6_000)
        await broker.restart()
        await asyncio.sleep(6.1)
        assert await state_of(broker) == ("Empty", 0)
        await broker.restart()
        assert await state_of(broker) == ("Empty", 0)

    run(main())


def test_idle_coordinator_sets_no_timer() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker)
        await broker(rq.leave("g", (member, None)), 5)
        await broker(rq.commit("simple", {"a": {0: 1}}), 9)
        assert len(broker.groups._shards[0][1].timers) == 0

    run(main())
