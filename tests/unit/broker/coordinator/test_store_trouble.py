"""A log that is slow, that loses a batch, that is taken away."""

from __future__ import annotations

import asyncio
from typing import Any

from protocol.errors import ErrorCode
from tests.unit.broker.coordinator import requests as rq
from tests.unit.broker.coordinator.broker_double import BrokerDouble
from tests.unit.broker.coordinator.test_rebalances import (
    member_of,
    now_s,
    started,
    state_of,
)
from tests.unit.broker.coordinator.virtual_loop import run


async def offset_of(broker: BrokerDouble, group: str = "g", **how: Any) -> tuple[int, int]:
    """The committed offset of a-0, and the group's error."""
    answer = (await broker(rq.fetch(group, {"a": [0]}, **how), 9)).groups[0]
    offsets = [p.committed_offset for t in answer.topics for p in t.partitions]
    return (offsets or [-2])[0], answer.error_code


def code_of(commit_response: Any) -> int:
    return int(commit_response.topics[0].partitions[0].error_code)


def test_offset_is_not_shown_before_it_is_durable() -> None:
    async def main() -> None:
        broker = await started()
        broker.log.hold = True
        committing = asyncio.ensure_future(broker(rq.commit("g", {"a": {0: 5}}), 9))
        await asyncio.sleep(0.5)
        assert not committing.done()
        assert await offset_of(broker) == (-1, 0)
        assert (await broker(rq.list_groups(), 5)).groups == []
        broker.log.release()
        assert code_of(await committing) == 0
        assert await offset_of(broker) == (5, 0)

    run(main())


def test_stable_fetch_waits_for_commits_on_their_way() -> None:
    async def main() -> None:
        broker = await started()
        broker.log.hold = True
        committing = asyncio.ensure_future(broker(rq.commit("g", {"a": {0: 5}}), 9))
        await asyncio.sleep(0)
        fetching = asyncio.ensure_future(offset_of(broker, require_stable=True))
        await asyncio.sleep(1)
        assert not fetching.done()
        broker.log.release()
        assert await fetching == (5, 0)
        await committing

    run(main())


def test_slow_commit_gets_a_retriable_error_and_becomes_durable_all_the_same() -> None:
    async def main() -> None:
        broker = await started()
        broker.log.hold = True
        answer = await broker(rq.commit("g", {"a": {0: 5}}), 9)
        assert code_of(answer) == ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert now_s() == 5
        stable = asyncio.ensure_future(offset_of(broker, require_stable=True))
        assert await stable == (-2, ErrorCode.NOT_COORDINATOR)
        broker.log.release()
        await asyncio.sleep(0)
        assert await offset_of(broker) == (5, 0)

    run(main())


def test_nobody_is_expelled_while_the_log_stalls() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, session_ms=6_000)
        broker.log.hold = True
        slow = asyncio.ensure_future(broker(rq.commit("other", {"a": {0: 5}}), 9))
        await asyncio.sleep(60)
        assert await state_of(broker) == ("Stable", 1)
        await slow
        broker.log.release()
        await asyncio.sleep(5.9)
        assert (await broker(rq.heartbeat("g", member, 1), 4)).error_code == 0
        await asyncio.sleep(6.1)
        assert await state_of(broker) == ("Empty", 0)

    run(main())


def test_heartbeats_are_answered_while_the_log_stalls() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker)
        broker.log.hold = True
        slow = asyncio.ensure_future(
            broker(rq.commit("g", {"a": {0: 5}}, member=member, generation=1), 9)
        )
        await asyncio.sleep(0.01)
        before = now_s()
        assert (await broker(rq.heartbeat("g", member, 1), 4)).error_code == 0
        assert now_s() == before
        await slow

    run(main())


def test_rebalance_waits_for_members_while_the_log_stalls() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, rebalance_ms=5_000, session_ms=6_000)
        broker.log.hold = True
        slow = asyncio.ensure_future(broker(rq.commit("other", {"a": {0: 5}}), 9))
        joining = asyncio.ensure_future(broker(rq.join("g", rebalance_ms=5_000), 3))
        await asyncio.sleep(30)
        assert await state_of(broker) == ("PreparingRebalance", 2)
        broker.log.release()
        await slow
        rejoined = await broker(rq.join("g", member, rebalance_ms=5_000), 9)
        assert rejoined.generation_id == (await joining).generation_id == 2

    run(main())


def test_assignments_are_not_handed_out_before_they_are_durable() -> None:
    async def main() -> None:
        broker = await started()
        joined = await broker(rq.join("g"), 3)
        await asyncio.sleep(0.1)
        broker.log.hold = True
        request = rq.sync("g", joined.member_id, 1, {joined.member_id: b"1"})
        first = asyncio.ensure_future(broker(request, 5))
        await asyncio.sleep(30)
        assert await state_of(broker) == ("CompletingRebalance", 1)
        # The client gave up its connection and asks again; the first answer is still written.
        written = broker.log.appends
        second = asyncio.ensure_future(broker(request, 5))
        await asyncio.sleep(1)
        assert broker.log.appends == written
        broker.log.release()
        assert (await second).assignment == b"1"
        assert (await first).error_code == ErrorCode.REBALANCE_IN_PROGRESS
        assert await state_of(broker) == ("Stable", 1)

    run(main())


def test_group_whose_assignments_cannot_be_written_joins_again() -> None:
    async def main() -> None:
        broker = await started()
        joined = await broker(rq.join("g"), 3)
        await asyncio.sleep(0.1)
        broker.log.refuse = ErrorCode.MESSAGE_TOO_LARGE
        synced = await broker(rq.sync("g", joined.member_id, 1, {}), 5)
        assert synced.error_code == ErrorCode.UNKNOWN_SERVER_ERROR
        assert await state_of(broker) == ("PreparingRebalance", 1)
        broker.log.refuse = None
        again = await broker(rq.join("g", joined.member_id), 9)
        assert again.generation_id == 2

    run(main())


def test_lost_commit_leaves_the_last_durable_offset() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 1}}), 9)
        broker.log.lose = ErrorCode.NOT_LEADER_OR_FOLLOWER
        lost = await broker(rq.commit("g", {"a": {0: 2}}), 9)
        assert code_of(lost) == ErrorCode.NOT_COORDINATOR
        broker.log.lose = None
        assert await offset_of(broker) == (1, 0)
        deleted = await broker(rq.delete_offsets("g", {"a": [0]}), 0)
        assert deleted.topics[0].partitions[0].error_code == 0
        assert await offset_of(broker) == (-1, 0)

    run(main())


def test_lost_first_commit_leaves_no_group() -> None:
    async def main() -> None:
        broker = await started()
        broker.log.lose = ErrorCode.KAFKA_STORAGE_ERROR
        assert code_of(await broker(rq.commit("g", {"a": {0: 2}}), 9)) == 16
        broker.log.lose = None
        assert (await broker(rq.describe("g"), 6)).groups[0].error_code == 69
        assert (await broker(rq.delete_groups("g"), 2)).results[0].error_code == 69

    run(main())


def test_lost_deletion_leaves_group_and_offsets() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 2}}), 9)
        broker.log.lose = ErrorCode.REQUEST_TIMED_OUT
        gone = await broker(rq.delete_groups("g"), 2)
        assert gone.results[0].error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
        broker.log.lose = None
        assert await offset_of(broker) == (2, 0)
        assert await state_of(broker) == ("Empty", 0)
        assert (await broker(rq.delete_groups("g"), 2)).results[0].error_code == 0

    run(main())


def test_second_deletion_waits_for_the_first() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 2}}), 9)
        broker.log.hold = True
        first = asyncio.ensure_future(broker(rq.delete_groups("g"), 2))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(broker(rq.delete_groups("g"), 2))
        await asyncio.sleep(1)
        # "Not found" would tell of a deletion that a crash could undo.
        assert not second.done()
        assert await offset_of(broker) == (2, 0)
        broker.log.release()
        assert (await first).results[0].error_code == 0
        assert (await second).results[0].error_code == 69

    run(main())


def test_join_behind_a_deletion_begins_a_new_group() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker)
        await broker(rq.leave("g", (member, None)), 5)
        broker.log.hold = True
        deleting = asyncio.ensure_future(broker(rq.delete_groups("g"), 2))
        await asyncio.sleep(0)
        joined = await broker(rq.join("g"), 3)
        assert joined.generation_id == 1
        broker.log.release()
        assert (await deleting).results[0].error_code == 0
        assert await state_of(broker) == ("CompletingRebalance", 1)
        await broker.restart()
        assert await state_of(broker) == ("Empty", 0)

    run(main())


def test_static_member_keeps_its_old_id_when_the_new_one_cannot_be_written() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, instance="one")
        broker.log.refuse = ErrorCode.NOT_ENOUGH_REPLICAS
        back = await broker(rq.join("g", instance="one"), 9)
        assert back.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert (await broker(rq.heartbeat("g", member, 1, "one"), 4)).error_code == 0

    run(main())


def test_all_who_wait_are_sent_away_when_the_partition_goes() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker)
        joining = asyncio.ensure_future(broker(rq.join("g"), 3))
        broker.log.hold = True
        committing = asyncio.ensure_future(broker(rq.commit("x", {"a": {0: 1}}), 9))
        await asyncio.sleep(0.1)
        broker.groups.resign(0)
        assert (await joining).error_code == ErrorCode.NOT_COORDINATOR
        assert code_of(await committing) == ErrorCode.NOT_COORDINATOR
        beat = await broker(rq.heartbeat("g", member, 1), 4)
        assert beat.error_code == ErrorCode.NOT_COORDINATOR
        assert await offset_of(broker) == (-2, ErrorCode.NOT_COORDINATOR)
        assert (await broker(rq.describe("g"), 6)).groups[0].error_code == 16
        listed = await broker(rq.list_groups(), 5)
        assert (listed.error_code, listed.groups) == (0, [])
        # What the log answers after all reaches nobody.
        broker.log.release()
        await asyncio.sleep(1)

    run(main())


def test_offsets_are_not_read_from_a_leader_that_may_have_been_replaced() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 1}}), 9)
        broker.log.lost_leadership = True
        assert await offset_of(broker) == (-2, ErrorCode.NOT_COORDINATOR)

    run(main())


async def with_twenty_groups(broker: BrokerDouble) -> str:
    """g0 to g19, and a member of g; its id."""
    for i in range(20):
        await broker(rq.commit(f"g{i}", {"a": {0: i}}), 9)
    return await member_of(broker)


def test_while_loading_heartbeats_are_welcome_and_all_else_waits() -> None:
    async def main() -> None:
        broker = await started()
        member = await with_twenty_groups(broker)
        restarting = asyncio.ensure_future(broker.restart(read_s=0.1))
        await asyncio.sleep(0.2)
        joining = asyncio.ensure_future(broker(rq.join("g", member), 9))
        committing = asyncio.ensure_future(broker(rq.commit("g1", {"a": {0: 3}}), 9))
        fetching = asyncio.ensure_future(offset_of(broker, "g19"))
        assert (await broker(rq.heartbeat("g", member, 1), 4)).error_code == 0
        loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert (await broker(rq.list_groups(), 5)).error_code == loading
        assert not (joining.done() or committing.done() or fetching.done() or restarting.done())
        await restarting
        assert (await joining).error_code == 0
        assert code_of(await committing) == 0
        assert await fetching == (19, 0)
        assert await offset_of(broker, "g1") == (3, 0)

    run(main())


def test_who_waits_for_a_long_loading_is_told() -> None:
    async def main() -> None:
        broker = await started()
        member = await with_twenty_groups(broker)
        restarting = asyncio.ensure_future(broker.restart(read_s=2.0))
        await asyncio.sleep(0.2)
        loading = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert (await broker(rq.join("g", member), 9)).error_code == loading
        assert code_of(await broker(rq.commit("g1", {"a": {0: 3}}), 9)) == loading
        assert await offset_of(broker, "g1") == (-2, loading)
        old = await broker(rq.fetch_one("g1", {"a": [0]}), 1)
        assert old.topics[0].partitions[0].error_code == loading
        assert not restarting.done()
        await restarting
        assert await offset_of(broker, "g1") == (1, 0)

    run(main())


def test_commits_that_came_while_loading_keep_their_order_also_against_later_ones() -> None:
    async def main() -> None:
        broker = await started()
        await with_twenty_groups(broker)
        restarting = asyncio.ensure_future(broker.restart(read_s=0.1))
        await asyncio.sleep(0.2)
        commits = []
        # The last ones come while those before are being let in.
        for offset in range(30, 300):
            commits.append(asyncio.ensure_future(broker(rq.commit("g1", {"a": {0: offset}}), 9)))
            await asyncio.sleep(0.005)
        await restarting
        assert [code_of(await one) for one in commits] == [0] * len(commits)
        assert await offset_of(broker, "g1") == (299, 0)

    run(main())


def test_who_comes_as_the_loading_ends_goes_behind_those_who_waited() -> None:
    async def main() -> None:
        broker = BrokerDouble()
        arriving = asyncio.Event()
        order: list[str] = []

        async def led_on(partition: int) -> None:
            await arriving.wait()

        async def come(name: str) -> None:
            await broker.groups._loaded_shard("g")
            order.append(name)

        broker.groups.led_on = led_on
        waiting = [asyncio.ensure_future(come(name)) for name in ("first", "second")]
        await asyncio.sleep(0.1)
        arriving.set()
        await broker.start()  # the log is empty: nobody else runs meanwhile
        await come("third")
        await asyncio.gather(*waiting)
        assert order == ["first", "second", "third"]
        assert broker.groups.partition_for("g") not in broker.groups._arrivals
        await come("fourth")

    run(main())


def test_a_partition_that_is_about_to_be_led_is_waited_for() -> None:
    async def main() -> None:
        broker = BrokerDouble()
        arriving = asyncio.Event()

        async def led_on(partition: int) -> None:
            await arriving.wait()

        broker.groups.led_on = led_on
        committing = asyncio.ensure_future(broker(rq.commit("g", {"a": {0: 5}}), 9))
        await asyncio.sleep(0.1)
        await broker.start()
        arriving.set()
        assert code_of(await committing) == 0
        assert await offset_of(broker) == (5, 0)

    run(main())


def test_a_partition_that_does_not_come_in_time_is_led_elsewhere() -> None:
    async def main() -> None:
        broker = BrokerDouble()

        async def led_on(partition: int) -> None:
            await asyncio.sleep(3_600)

        broker.groups.led_on = led_on
        commits = [
            asyncio.ensure_future(broker(rq.commit("g", {"a": {0: 5}}), 9)) for _ in range(3)
        ]
        told = [code_of(one) for one in await asyncio.gather(*commits)]
        assert told == [ErrorCode.NOT_COORDINATOR] * 3
        assert asyncio.get_running_loop().time() < 10, "each waits for itself, not for all"
        assert broker.groups.partition_for("g") not in broker.groups._arrivals

    run(main())


def test_who_waits_for_groups_that_leave_again_looks_elsewhere() -> None:
    async def main() -> None:
        broker = await started()
        await with_twenty_groups(broker)
        restarting = asyncio.ensure_future(broker.restart(read_s=0.1))
        await asyncio.sleep(0.2)
        committing = asyncio.ensure_future(broker(rq.commit("g1", {"a": {0: 3}}), 9))
        await asyncio.sleep(0.1)
        for partition in range(broker.config.offsets_topic_num_partitions):
            broker.groups.resign(partition, 1)
        assert code_of(await committing) == ErrorCode.NOT_COORDINATOR
        await asyncio.wait([restarting])

    run(main())


def test_silent_member_is_expelled_a_session_after_the_stall() -> None:
    async def main() -> None:
        broker = await started()
        await member_of(broker, session_ms=6_000)
        broker.log.hold = True
        slow = asyncio.ensure_future(broker(rq.commit("other", {"a": {0: 5}}), 9))
        await asyncio.sleep(20)
        await slow
        broker.log.release()
        await asyncio.sleep(5.9)
        assert await state_of(broker) == ("Stable", 1)
        await asyncio.sleep(0.2)
        assert await state_of(broker) == ("Empty", 0)

    run(main())


def test_answers_of_the_log_out_of_order_take_effect_in_order() -> None:
    async def main() -> None:
        broker = await started()
        broker.log.hold = True
        commits = [
            asyncio.ensure_future(broker(rq.commit("g", {"a": {0: offset}}), 9))
            for offset in (1, 2, 3)
        ]
        await asyncio.sleep(0.1)
        broker.log.write_last()
        await asyncio.sleep(0.1)
        assert [c.done() for c in commits] == [False] * 3
        assert await offset_of(broker) == (-1, 0)
        broker.log.answer_late()
        assert [code_of(await c) for c in commits] == [0] * 3
        assert await offset_of(broker) == (3, 0)

    run(main())


def test_assignments_of_a_generation_that_is_over_count_no_more() -> None:
    async def main() -> None:
        broker = await started()
        joined = await broker(rq.join("g"), 3)
        await asyncio.sleep(0.1)
        broker.log.hold = True
        syncing = asyncio.ensure_future(
            broker(rq.sync("g", joined.member_id, 1, {joined.member_id: b"1"}), 5)
        )
        await asyncio.sleep(0.1)
        newcomer = asyncio.ensure_future(broker(rq.join("g"), 3))
        assert (await syncing).error_code == ErrorCode.REBALANCE_IN_PROGRESS
        broker.log.release()
        await asyncio.sleep(0.1)
        assert await state_of(broker) == ("PreparingRebalance", 2)
        again = await broker(rq.join("g", joined.member_id), 9)
        assert again.generation_id == (await newcomer).generation_id == 2
        assert await state_of(broker) == ("CompletingRebalance", 2)

    run(main())


def test_static_member_that_waits_for_the_log_is_taken_along_by_a_rebalance() -> None:
    async def main() -> None:
        broker = await started()
        other = await member_of(broker)
        static = asyncio.ensure_future(broker(rq.join("g", instance="one"), 9))
        await asyncio.sleep(0.1)
        led = await broker(rq.join("g", other), 9)
        await static
        await broker(rq.sync("g", other, led.generation_id, {}), 5)
        broker.log.hold = True
        back = asyncio.ensure_future(broker(rq.join("g", instance="one"), 9))
        newcomer = asyncio.ensure_future(broker(rq.join("g"), 3))
        await asyncio.sleep(0.1)
        broker.log.release()
        await asyncio.sleep(0.1)
        # Its new id is durable, but the old generation is over.
        assert not back.done()
        led = await broker(rq.join("g", other), 9)
        assert led.generation_id == 3
        assert {(await back).generation_id, (await newcomer).generation_id} == {3}
        assert not (await back).skip_assignment

    run(main())
