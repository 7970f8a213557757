"""Produce and Fetch through a connection of a whole broker, its store held up and let go."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.group_loading import GroupLoading
from objectstore.errors import StoreUnavailable
from protocol.errors import ErrorCode
from protocol.messages import DeleteTopicsRequest
from protocol.record_batch import TRANSACTIONAL_BIT, seal_crc

from ..node_rig import Client, Rig, batch, run, settle
from .requests import FETCH, PRODUCE, fetch, produce

V = 12


def codes(answer: Any) -> list[int]:
    return [p.error_code for t in answer.responses for p in t.partition_responses]


def offsets(answer: Any) -> list[int]:
    return [p.base_offset for t in answer.responses for p in t.partition_responses]


def fetched(answer: Any) -> list[tuple[int, int]]:
    """(error, bytes) of each partition."""
    return [(p.error_code, len(p.records or b"")) for t in answer.responses for p in t.partitions]


async def produced(client: Client, *, topic: str = "t", count: int = 1, value: bytes = b"v") -> int:
    answer = await client.ask(produce([(topic, 0, batch(count, value))]), V)
    assert codes(answer) == [0]
    return offsets(answer)[0]


def test_one_bad_partition_fails_no_other() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(partitions=2)
        bad = batch()
        bad[-1] ^= 1
        answer = await rig.client().ask(
            produce([("t", 0, batch(2)), ("t", 1, bad), ("none", 0, batch()), ("t", 7, batch())]), V
        )
        assert codes(answer) == [0, 2, 3, 3]
        assert offsets(answer) == [0, -1, -1, -1]

    run(body)


def test_a_bug_in_one_partition_is_told_of_that_partition() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(partitions=2)

        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        partition.append_as_leader = broken  # type: ignore[method-assign, assignment]
        answer = await rig.client().ask(produce([("t", 0, batch()), ("t", 1, batch())]), V)
        assert codes(answer) == [int(ErrorCode.UNKNOWN_SERVER_ERROR), 0]

    run(body)


def test_a_produce_is_answered_when_it_is_durable_or_its_time_is_over() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        rig.store.held.append("wal/")
        client.send(produce([("t", 0, batch(producer=(5, 0, 0)))], timeout_ms=2000), V)
        await asyncio.sleep(1.9)
        assert client.answers(PRODUCE, V) == []
        await asyncio.sleep(0.2)
        (late,) = client.answers(PRODUCE, V)
        assert codes(late) == [int(ErrorCode.REQUEST_TIMED_OUT)]
        client.send(produce([("t", 0, batch(producer=(5, 0, 0)))]), V)
        await asyncio.sleep(5)
        assert client.answers(PRODUCE, V) == [], "the retry joins the wait"
        rig.store.let_go()
        await asyncio.sleep(1)
        (answer,) = client.answers(PRODUCE, V)
        assert (codes(answer), offsets(answer)) == ([0], [0])

    run(body)


def test_pipelined_produces_wait_together_and_are_answered_in_order() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        client = rig.client()
        rig.store.held.append("wal/")
        for n in range(10):
            client.send(produce([("t", 0, batch(value=b"%d" % n))]), V)
        await settle()
        assert partition.log_end_offset == 10
        rig.store.let_go()
        await asyncio.sleep(1)
        answers = client.answers(PRODUCE, V)
        assert [offsets(a)[0] for a in answers] == list(range(10))

    run(body)


def test_no_answer_for_acks_zero_and_a_closed_connection_for_its_errors() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        client = rig.client()
        client.send(produce([("t", 0, batch())], acks=0), V)
        await asyncio.sleep(1)
        assert client.transport.sent == b"" and not client.transport.closing
        assert partition.high_watermark == 1
        client.send(produce([("none", 0, batch())], acks=0), V)
        await asyncio.sleep(1)
        assert client.transport.sent == b"" and client.transport.lost

    run(body)


def test_acks_zero_is_held_back_by_not_reading() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        client = rig.client()
        rig.store.held.append("wal/")
        big = batch(value=bytes(900_000))
        sent = 0
        while not client.backlog:
            client.send(produce([("t", 0, big)], acks=0), V)
            await settle()
            sent += 1
        assert 10 < sent < 60
        assert rig.node.storage.cache.total_bytes <= 16 << 20
        rig.store.let_go()
        for _ in range(60):
            await asyncio.sleep(1)
            client.push()
        assert not client.backlog and client.transport.reading
        assert partition.high_watermark == sent

    run(body, log_cache_bytes=str(16 << 20), in_flight_produce_per_connection="8")


def test_transactional_batches_without_an_id_are_refused_before_all_else() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(partitions=2)
        data = batch(producer=(5, 0, 0))
        data[22] |= TRANSACTIONAL_BIT
        seal_crc(data)
        client = rig.client()
        both = [("t", 0, batch()), ("t", 1, data)]
        answer = await client.ask(produce(both), V)
        refused = int(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        assert codes(answer) == [refused, refused]
        answer = await client.ask(produce(both, transactional_id="tx"), V)
        assert codes(answer)[1] == int(ErrorCode.INVALID_TXN_STATE)
        assert partition.log_end_offset == 1

    run(body)


def test_a_large_batch_is_answered_with_its_offset_once_it_has_one() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        client = rig.client()
        await produced(client)
        rig.store.held.append("data/")
        client.send(produce([("t", 0, batch(value=bytes(100_000)))]), V)
        client.send(produce([("t", 0, batch())]), V)
        await asyncio.sleep(3)
        assert client.answers(PRODUCE, V) == []
        assert rig.node.storage.pressure.admitted_bytes > 100_000
        rig.store.let_go()
        await asyncio.sleep(1)
        assert [offsets(a) for a in client.answers(PRODUCE, V)] == [[1], [2]]
        assert partition.high_watermark == 3
        assert rig.node.storage.pressure.admitted_bytes == 0

    run(body, large_batch_bytes=str(64 << 10))


def test_a_log_that_was_ended_by_another_answers_not_leader() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        rig.node.storage.pressure.fail(rig.node.storage.wal._why_stopped())
        answer = await client.ask(produce([("t", 0, batch())]), V)
        assert codes(answer) == [int(ErrorCode.NOT_LEADER_OR_FOLLOWER)]

    run(body)


# -- fetching


def test_an_empty_fetch_waits_for_its_time_and_gives_empty_bytes() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        client.send(fetch([("t", 0, 0)], max_wait_ms=500), V)
        await asyncio.sleep(0.49)
        assert client.answers(FETCH, V) == []
        await asyncio.sleep(0.02)
        (answer,) = client.answers(FETCH, V)
        (told,) = answer.responses[0].partitions
        assert (told.error_code, told.records) == (0, b"")

    run(body)


def test_a_waiting_fetch_is_woken_by_what_becomes_durable() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        reader, writer = rig.client(), rig.client()
        reader.send(fetch([("t", 0, 0)], max_wait_ms=60_000), V)
        await settle()
        rig.store.held.append("wal/")
        writer.send(produce([("t", 0, batch())]), V)
        await asyncio.sleep(5)
        assert reader.answers(FETCH, V) == [], "what is not durable is nobody's to see"
        rig.store.let_go()
        await asyncio.sleep(0.1)
        (answer,) = reader.answers(FETCH, V)
        assert fetched(answer) == [(0, len(batch()))]

    run(body)


def test_what_comes_to_one_partition_while_another_is_read_wakes_the_fetch() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(partitions=2)
        writer, reader = rig.client(), rig.client()
        second = rig.node.partitions.get("t", 1)
        assert second is not None
        reading = asyncio.Event()

        async def slow(*_: object) -> list[memoryview]:
            reading.set()
            await asyncio.sleep(0.3)
            return []

        second.read_cached = lambda *_: None  # type: ignore[method-assign]
        second.read = slow  # type: ignore[method-assign, assignment]
        reader.send(fetch([("t", 0, 0), ("t", 1, 0)], max_wait_ms=60_000), V)
        await reading.wait()
        await produced(writer)
        await asyncio.sleep(2)
        (answer,) = reader.answers(FETCH, V)
        assert fetched(answer) == [(0, len(batch())), (0, 0)]

    run(body)


def test_a_partition_that_is_opened_anew_wakes_the_fetch_that_waited_for_it() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        reader, writer = rig.client(), rig.client()
        reader.send(fetch([("t", 0, 0)], max_wait_ms=60_000), V)
        await settle()
        leading = rig.node._leading
        assert leading is not None
        leading._close(partition.stream.stream_id)
        await leading.reconcile()
        assert rig.node.partitions.get("t", 0) not in (None, partition)
        await settle()
        answers = reader.answers(FETCH, V)
        if not answers:
            await produced(writer)
            await asyncio.sleep(0.1)
            answers = reader.answers(FETCH, V)
            assert fetched(answers[0]) == [(0, len(batch()))]
        else:
            assert fetched(answers[0])[0][0] == int(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    run(body)


def test_min_bytes_are_waited_for() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        reader, writer = rig.client(), rig.client()
        size = len(batch())
        reader.send(fetch([("t", 0, 0)], max_wait_ms=60_000, min_bytes=size + 1), V)
        await produced(writer)
        await asyncio.sleep(1)
        assert reader.answers(FETCH, V) == []
        await produced(writer)
        await asyncio.sleep(0.1)
        (answer,) = reader.answers(FETCH, V)
        assert fetched(answer) == [(0, 2 * size)]

    run(body)


def test_a_deleted_topic_ends_the_wait_of_its_readers() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        reader = rig.client()
        reader.send(fetch([("t", 0, 0)], max_wait_ms=60_000), V)
        reader_by_id = rig.client()
        reader_by_id.send(fetch([(partition.topic_id, 0, 0)], max_wait_ms=60_000), 13)
        await settle()
        await rig.node.controller.delete_topics([partition.topic_id])
        await asyncio.sleep(0.1)
        (answer,) = reader.answers(FETCH, V)
        assert fetched(answer) == [(int(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), 0)]
        (answer,) = reader_by_id.answers(FETCH, 13)
        assert fetched(answer) == [(int(ErrorCode.UNKNOWN_TOPIC_ID), 0)]

    run(body)


def test_the_first_batch_comes_whole_whatever_the_limits() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(partitions=2)
        client = rig.client()
        for index in (0, 1):
            await client.ask(produce([("t", index, batch(value=bytes(5000)))]), V)
        size = len(batch(value=bytes(5000)))
        for limits in ({"max_bytes": 0}, {"partition_max_bytes": 0}, {"max_bytes": 1}):
            answer = await client.ask(fetch([("t", 0, 0), ("t", 1, 0)], **limits), V)  # type: ignore[arg-type]
            assert fetched(answer) == [(0, size), (0, 0)], limits
        answer = await client.ask(fetch([("t", 0, 0), ("t", 1, 0)]), V)
        assert fetched(answer) == [(0, size), (0, size)]

    run(body)


def test_a_batch_larger_than_all_response_memory_is_still_served() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(max_message_bytes=str(20 << 20))
        client = rig.client()
        await produced(client, value=bytes(6 << 20))
        readers = [rig.client(f"10.0.1.{n}") for n in range(3)]
        for reader in readers:
            reader.transport.slow = True
            reader.send(fetch([("t", 0, 0)], max_wait_ms=30_000), V)
        await asyncio.sleep(1)
        memory = rig.node.services.responses
        assert memory.used_bytes == len(batch(value=bytes(6 << 20))), "one at a time"
        for reader in readers * 2:
            reader.transport.slow = False
            if reader.transport.unsent:
                reader.transport.take()
            await asyncio.sleep(0.1)
        for reader in readers:
            (answer,) = reader.answers(FETCH, V)
            assert fetched(answer)[0][1] > 6 << 20
        assert memory.used_bytes == 0

    run(body, memory_response_bytes=str(4 << 20))


def test_many_slow_readers_do_not_hold_more_than_the_bound() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        writer = rig.client()
        for _ in range(12):
            await produced(writer, value=bytes(900_000))
        readers = [rig.client(f"10.0.1.{n}") for n in range(40)]
        memory = rig.node.services.responses
        for reader in readers:
            reader.transport.slow = True
            reader.send(fetch([("t", 0, 0)], max_wait_ms=20_000, partition_max_bytes=50 << 20), V)
            await settle()
            assert memory.used_bytes <= 8 << 20
        assert memory.waiting > 20
        await asyncio.sleep(100)
        assert memory.waiting == 0
        # In time everybody has an answer, with what there was room for, or none; who did not
        # read while others waited was closed.
        for reader in readers:
            reader.transport.slow = False
            if not reader.transport.lost:
                reader.transport.take()
        await asyncio.sleep(1)
        assert memory.used_bytes == 0

    run(body, memory_response_bytes=str(8 << 20))


def test_beyond_the_end_a_leader_asks_whether_it_still_leads() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        await produced(client)
        asked = 0
        confirm = rig.node.storage.confirm

        async def counted() -> None:
            nonlocal asked
            asked += 1
            await confirm()

        rig.node.storage.confirm = counted  # type: ignore[method-assign]
        answer = await client.ask(fetch([("t", 0, 1)]), V)
        assert (fetched(answer), asked) == ([(0, 0)], 0)
        answer = await client.ask(fetch([("t", 0, 2)]), V)
        assert (fetched(answer), asked) == ([(int(ErrorCode.OFFSET_OUT_OF_RANGE), 0)], 1)

    run(body)


def test_a_leader_that_cannot_ask_serves_what_it_knows_and_claims_no_end() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        await produced(client)

        async def away() -> None:
            raise StoreUnavailable("the store is away")

        confirm, rig.node.storage.confirm = rig.node.storage.confirm, away  # type: ignore[method-assign]
        await asyncio.sleep(60)
        answer = await client.ask(fetch([("t", 0, 0)]), V)
        told = answer.responses[0].partitions[0]
        assert told.records
        assert (told.high_watermark, told.last_stable_offset, told.log_start_offset) == (-1, -1, -1)
        rig.node.storage.confirm = confirm  # type: ignore[method-assign]
        answer = await client.ask(fetch([("t", 0, 0)]), V)
        assert answer.responses[0].partitions[0].high_watermark == 1

    run(body)


def test_an_older_epoch_that_ended_earlier_is_told_at_once() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        client = rig.client()
        await produced(client)
        epoch = partition.leader_epoch
        before = rig.loop.time()
        answer = await client.ask(
            fetch([("t", 0, 5)], max_wait_ms=30_000, last_fetched_epoch=epoch), V
        )
        told = answer.responses[0].partitions[0]
        assert told.diverging_epoch.epoch == epoch
        assert told.diverging_epoch.end_offset == 1
        assert rig.loop.time() - before < 1

    run(body)


def test_a_session_tells_only_what_changed_and_ends_when_it_is_told_to() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic(partitions=2)
        client = rig.client()
        await client.ask(produce([("t", 1, batch())]), V)
        answer = await client.ask(fetch([("t", 0, 0), ("t", 1, 1)], session=(0, 0)), V)
        session = answer.session_id
        assert session and fetched(answer) == [(0, 0), (0, 0)]
        answer = await client.ask(fetch([], session=(session, 1)), V)
        assert answer.responses == []
        await client.ask(produce([("t", 1, batch())]), V)
        answer = await client.ask(fetch([], session=(session, 2)), V)
        assert fetched(answer) == [(0, len(batch()))]
        answer = await client.ask(fetch([], session=(session, 2)), V)
        assert answer.error_code == int(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        answer = await client.ask(fetch([("t", 0, 0)], session=(session, -1)), V)
        assert answer.session_id == 0
        answer = await client.ask(fetch([], session=(session, 3)), V)
        assert answer.error_code == int(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)

    run(body)


# -- deleting


def test_deleting_is_refused_where_it_is_switched_off() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        for version, code in ((1, 42), (3, 73)):
            request = DeleteTopicsRequest(topic_names=["t", "none"], timeout_ms=1000)
            answer = await client.ask(request, version)
            assert [(r.name, r.error_code) for r in answer.responses] == [
                ("t", code),
                ("none", code),
            ]
        assert "t" in rig.node.controller.image.topics

    run(body, delete_topic_enable="false")


def test_groups_forget_a_topic_whose_deletion_is_durable() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        told: list[dict[str, object]] = []

        async def topics_deleted(topics: dict[str, object]) -> None:
            told.append(topics)

        rig.node.groups.topics_deleted = topics_deleted  # type: ignore[method-assign, assignment]
        await rig.node.controller.delete_topics([partition.topic_id])
        await asyncio.sleep(1)
        assert told == [{"t": partition.topic_id}]

    run(body)


def test_a_partition_of_groups_that_cannot_be_loaded_is_tried_again_and_told_once(
    caplog: Any,
) -> None:
    class Groups:
        def __init__(self) -> None:
            self.tried = 0

        async def lead(self, *_: object) -> None:
            self.tried += 1
            if self.tried < 5:
                raise ValueError("a record that nobody can read")

        def resign(self, index: int) -> None:
            pass

    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        groups = Groups()

        async def confirm() -> None: ...

        loading = GroupLoading(groups, confirm)  # type: ignore[arg-type]
        task = asyncio.create_task(loading.run())
        loading.lead(partition)
        await asyncio.sleep(30)
        assert groups.tried == 1
        await asyncio.sleep(1000)
        assert groups.tried == 5
        lines = [r for r in caplog.records if "cannot be loaded" in r.getMessage()]
        assert len(lines) == 1
        task.cancel()
        await asyncio.wait([task])

    run(body)
