"""How long offsets and groups are kept, and what of the log is still needed."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from broker.coordinator.records import encode_record
from protocol.errors import ErrorCode, KafkaError
from protocol.internal_records import OffsetCommitKey, OffsetCommitValue
from tests.unit.broker.coordinator import requests as rq
from tests.unit.broker.coordinator.broker_double import (
    START_MS,
    BrokerDouble,
    LogRecordDouble,
    MemoryLog,
)
from tests.unit.broker.coordinator.test_rebalances import member_of, started, state_of
from tests.unit.broker.coordinator.virtual_loop import run

DAY_MS = 24 * 3_600_000
WEEK_MS = 7 * DAY_MS


async def offsets_of(broker: BrokerDouble, group: str = "g") -> dict[tuple[str, int], int]:
    topics = (await broker(rq.fetch(group, None), 9)).groups[0].topics
    return {(t.name, p.partition_index): p.committed_offset for t in topics for p in t.partitions}


async def groups_of(broker: BrokerDouble) -> list[str]:
    return [g.group_id for g in (await broker(rq.list_groups(), 5)).groups]


def test_offset_of_who_is_in_no_group_lives_a_retention_from_its_commit() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 1}}), 9)
        broker.wall_ms += DAY_MS
        await broker(rq.commit("g", {"a": {1: 2}}), 9)
        broker.wall_ms += WEEK_MS - DAY_MS - 1_000
        await broker.groups.expire()
        assert len(await offsets_of(broker)) == 2
        broker.wall_ms += 1_000
        await broker.groups.expire()
        assert await offsets_of(broker) == {("a", 1): 2}
        broker.wall_ms += DAY_MS
        await broker.groups.expire()
        assert await groups_of(broker) == []
        assert (await broker(rq.describe("g"), 6)).groups[0].error_code == 69

    run(main())


def test_offsets_of_an_empty_group_live_a_retention_from_when_it_became_empty() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, session_ms=1_800_000)
        await broker(rq.commit("g", {"a": {0: 1}}, member=member, generation=1), 9)
        broker.wall_ms += 3 * WEEK_MS
        await broker(rq.leave("g", (member, None)), 5)
        broker.wall_ms += WEEK_MS - 1_000
        await broker.restart()
        await broker.groups.expire()
        assert await offsets_of(broker) == {("a", 0): 1}
        broker.wall_ms += 2_000
        await broker.groups.expire()
        assert await groups_of(broker) == []
        await broker.restart()
        assert await offsets_of(broker) == {}

    run(main())


def test_stable_group_keeps_what_it_subscribes_to_and_loses_the_rest() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker)
        await broker(rq.commit("g", {"a": {0: 1}, "b": {0: 1}}, member=member, generation=1), 9)
        broker.wall_ms += WEEK_MS + 1
        await broker.groups.expire()
        assert await offsets_of(broker) == {("a", 0): 1}
        assert await state_of(broker) == ("Stable", 1)

    run(main())


def test_group_of_unknown_subscriptions_loses_nothing_while_it_lives() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker, protocols=(("range", b"\x00"),))
        await broker(rq.commit("g", {"a": {0: 1}}, member=member, generation=1), 9)
        broker.wall_ms += 2 * WEEK_MS
        await broker.groups.expire()
        assert await offsets_of(broker) == {("a", 0): 1}

    run(main())


def test_retention_asked_for_by_an_old_commit_counts() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 1}}, retention_ms=60_000), 4)
        await broker(rq.commit("g", {"a": {1: 1}}, retention_ms=10 * WEEK_MS), 2)
        await broker.restart()
        broker.wall_ms += 60_000
        await broker.groups.expire()
        assert await offsets_of(broker) == {("a", 1): 1}
        broker.wall_ms += 2 * WEEK_MS
        await broker.groups.expire()
        assert await offsets_of(broker) == {("a", 1): 1}

    run(main())


def test_group_that_just_gave_out_a_member_id_is_not_swept_away() -> None:
    async def main() -> None:
        broker = await started()
        member = (await broker(rq.join("g"), 9)).member_id
        await broker.groups.expire()
        assert (await broker(rq.join("g", member), 9)).error_code == 0

    run(main())


def test_expiry_that_cannot_be_written_is_found_again() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 1}}), 9)
        broker.wall_ms += WEEK_MS
        broker.log.lose = ErrorCode.KAFKA_STORAGE_ERROR
        with pytest.raises(KafkaError):
            await broker.groups.expire()
        assert await offsets_of(broker) == {("a", 0): 1}
        broker.log.lose = None
        await broker.groups.expire()
        assert await offsets_of(broker) == {}

    run(main())


def test_many_tombstones_are_spread_over_batches() -> None:
    async def main() -> None:
        broker = await started()
        records = [
            encode_record(OffsetCommitKey("g", "a", index), OffsetCommitValue(1, "", START_MS))
            for index in range(2_500)
        ]
        broker.log.records.extend(LogRecordDouble(key, value) for key, value in records)
        await broker.restart()
        await broker(rq.delete_groups("g"), 2)
        assert broker.log.appends == 3
        assert await groups_of(broker) == []
        assert await offsets_of(broker) == {}

    run(main())


def test_offsets_of_deleted_topics_go_but_those_of_their_successors_stay() -> None:
    async def main() -> None:
        broker = await started()
        old = broker.topics["a"]
        await broker(rq.commit("g", {"a": {0: 1}, "b": {0: 2}}), 9)
        broker.topics["a"] = UUID(int=99)
        # The same name, another topic: by id the old offset is not its own.
        by_id = (await broker(rq.fetch_by_id("g", {UUID(int=99): [0]}), 10)).groups[0]
        assert by_id.topics[0].partitions[0].committed_offset == -1
        await broker(rq.commit("h", {"a": {0: 7}}), 9)
        await broker.groups.topics_deleted({"a": old})
        assert await offsets_of(broker) == {("b", 0): 2}
        assert await offsets_of(broker, "h") == {("a", 0): 7}
        await broker.restart()
        assert await offsets_of(broker) == {("b", 0): 2}

    run(main())


def test_all_offsets_by_id_leave_out_topics_that_are_gone() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 1}, "b": {0: 2}}), 9)
        kept = broker.topics["b"]
        del broker.topics["a"]
        everything = (await broker(rq.fetch_by_id("g", None), 10)).groups[0]
        assert [t.topic_id for t in everything.topics] == [kept]

    run(main())


def test_snapshot_for_compaction_says_all_that_the_log_says() -> None:
    async def main() -> None:
        broker = await started()
        member = await member_of(broker)
        for offset in range(5):
            await broker(rq.commit("g", {"a": {0: offset}}, member=member, generation=1), 9)
        await broker(rq.commit("gone", {"b": {0: 1}}), 9)
        await broker(rq.delete_groups("gone"), 2)
        end, live = broker.groups.compaction_snapshot(0)
        assert end == broker.log.high_watermark
        assert len(live) == 2
        # Another log that begins with the snapshot and goes on with what came after it.
        await broker(rq.commit("later", {"b": {1: 4}}), 9)
        rest = broker.log.records[end:]
        compacted = BrokerDouble(
            log=MemoryLog([LogRecordDouble(k, v) for k, v in live] + rest), config=broker.config
        )
        await compacted.start()
        for group in ("g", "gone", "later"):
            assert await offsets_of(compacted, group) == await offsets_of(broker, group)
        assert (await compacted(rq.heartbeat("g", member, 1), 4)).error_code == 0

    run(main())


def test_offset_without_topic_id_is_anybodys_of_that_name() -> None:
    async def main() -> None:
        key, value = encode_record(OffsetCommitKey("g", "a", 0), OffsetCommitValue(5, "", START_MS))
        log = MemoryLog([LogRecordDouble(key, value)])
        broker = await BrokerDouble(log=log).start()
        by_id = (await broker(rq.fetch_by_id("g", {broker.topics["a"]: [0]}), 10)).groups[0]
        assert by_id.topics[0].partitions[0].committed_offset == 5

    run(main())


def test_records_of_unknown_kinds_are_passed_over() -> None:
    async def main() -> None:
        # Kind 3 belongs to the newer consumer protocol.
        log = MemoryLog(
            [LogRecordDouble(b"\x00\x03\x00\x01g", b"\x00\x00"), LogRecordDouble(None, b"")]
        )
        broker = await BrokerDouble(log=log).start()
        assert await groups_of(broker) == []

    run(main())


def test_expiry_leaves_no_timer_behind() -> None:
    async def main() -> None:
        broker = await started()
        await broker(rq.commit("g", {"a": {0: 1}}), 9)
        broker.wall_ms += WEEK_MS
        await broker.groups.expire()
        assert len(asyncio.all_tasks()) == 1

    run(main())
