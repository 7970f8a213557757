"""A partition that a whole broker leads: sequencing, times, epochs, large batches."""

from __future__ import annotations

import asyncio

import pytest

from broker.partition.partition import Partition, PendingAppend
from protocol import record_batch
from protocol.errors import ErrorCode, KafkaError
from protocol.records import decode_records

from ..node_rig import Rig, batch, run, settle

T0 = 1_750_000_000_000


def append(partition: Partition, data: bytearray) -> PendingAppend:
    header = record_batch.check_produced(memoryview(data), 12)
    return partition.append_as_leader(memoryview(data), header)


async def landed(pending: PendingAppend) -> int:
    assert pending.durable is not None
    result = await asyncio.shield(pending.durable)
    return pending.base_offset if pending.base_offset >= 0 else result


async def read_all(partition: Partition) -> list[tuple[int, bytes | None]]:
    found: list[tuple[int, bytes | None]] = []
    offset = partition.log_start_offset
    while offset < partition.high_watermark:
        records, offset = await partition.read_records(offset, 1 << 20)
        found += [(r.offset, r.value) for r in records]
    return found


def refused(partition: Partition, data: bytearray) -> ErrorCode:
    end = partition.log_end_offset
    with pytest.raises(KafkaError) as caught:
        append(partition, data)
    assert partition.log_end_offset == end
    return caught.value.code


def test_offsets_follow_each_other_and_the_watermark_moves_when_it_is_durable() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        rig.store.held.append("wal/")
        first, second = append(partition, batch(3)), append(partition, batch(2))
        assert (first.base_offset, second.base_offset) == (0, 3)
        await asyncio.sleep(1)
        assert (partition.high_watermark, partition.log_end_offset) == (0, 5)
        assert partition.read_cached(0, 1000, 0) == []
        rig.store.let_go()
        await landed(second)
        assert partition.high_watermark == 5
        assert [offset for offset, _ in await read_all(partition)] == [0, 1, 2, 3, 4]

    run(body)


def test_a_duplicate_waits_for_its_original_and_gets_its_offset() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        rig.store.held.append("wal/")
        original = append(partition, batch(2, producer=(7, 0, 0)))
        append(partition, batch(2, producer=(7, 0, 2)))
        again = append(partition, batch(2, producer=(7, 0, 0)))
        assert again.base_offset == original.base_offset == 0
        assert again.durable is not None and not again.durable.done()
        assert partition.log_end_offset == 4
        rig.store.let_go()
        await landed(again)
        assert partition.high_watermark >= 2

    run(body)


def test_gaps_and_old_epochs_are_refused() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        append(partition, batch(1, producer=(7, 1, 0)))
        assert refused(partition, batch(1, producer=(7, 1, 2))) is (
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        )
        assert refused(partition, batch(1, producer=(7, 0, 1))) is (
            ErrorCode.INVALID_PRODUCER_EPOCH
        )
        assert refused(partition, batch(1, producer=(7, 2, 5))) is (
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        )
        append(partition, batch(1, producer=(7, 2, 0)))

    run(body)


def test_create_time_drops_the_claim_of_broker_time_and_keeps_the_records() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        pending = append(partition, batch(2, timestamp_type=1))
        assert pending.log_append_time_ms == -1
        await landed(pending)
        (stored,) = await partition.read(0, 1 << 20, 0)
        header = record_batch.parse_header(stored)
        assert header.timestamp_type == 0
        assert record_batch.crc_ok(stored, header)

    run(body)


def test_log_append_time_stamps_every_record_with_the_brokers_time() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(message_timestamp_type="LogAppendTime")
        await asyncio.sleep(5)
        pending = append(partition, batch(2, timestamp=1))
        assert pending.log_append_time_ms == rig.loop.now_ms()
        await landed(pending)
        (stored,) = await partition.read(0, 1 << 20, 0)
        assert record_batch.crc_ok(stored, record_batch.parse_header(stored))
        assert {r.timestamp for r in decode_records(stored)} == {pending.log_append_time_ms}

    run(body)


def test_a_claim_of_broker_time_is_refused_where_the_broker_gives_the_time() -> None:
    # As Apache Kafka 4.3.1 answered the same bytes.
    async def body(rig: Rig) -> None:
        partition = await rig.topic(message_timestamp_type="LogAppendTime")
        with pytest.raises(KafkaError) as caught:
            append(partition, batch(2, timestamp=T0, timestamp_type=1))
        assert caught.value.code is ErrorCode.INVALID_TIMESTAMP
        assert [text for _, text in caught.value.record_errors] == [  # type: ignore[attr-defined]
            f"Invalid timestamp type in message DefaultRecord(offset={n}, timestamp={T0 + 1}, "
            "key=1 bytes, value=1 bytes). Producer should not set timestamp type to LogAppendTime."
            for n in (0, 1)
        ]

    run(body)


def test_timestamps_out_of_bounds_are_refused_by_record() -> None:
    async def body(rig: Rig) -> None:
        for validate in ("false", "true"):
            partition = await rig.topic(
                f"bounds-{validate}",
                message_timestamp_before_max_ms="1000000",
                message_timestamp_after_max_ms="1000",
            )
            partition._validate = validate == "true"
            late = batch(3, timestamp=rig.loop.now_ms() + 999)
            with pytest.raises(KafkaError) as caught:
                append(partition, late)
            assert caught.value.code is ErrorCode.INVALID_TIMESTAMP
            if validate == "true":
                assert [i for i, _ in caught.value.record_errors] == [2]  # type: ignore[attr-defined]
            old = batch(1, timestamp=rig.loop.now_ms() - 1_000_001)
            assert refused(partition, old) is ErrorCode.INVALID_TIMESTAMP
            append(partition, batch(1, timestamp=rig.loop.now_ms()))

    run(body)


def test_the_brokers_own_records_are_held_to_the_size_limit() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic(max_message_bytes="500")
        with pytest.raises(KafkaError) as caught:
            partition.append_internal([(b"k", bytes(500))])
        assert caught.value.code is ErrorCode.MESSAGE_TOO_LARGE
        base, durable = partition.append_internal([(b"k", bytes(300)), (b"l", None)])
        assert base == 0
        await durable
        assert await read_all(partition) == [(0, bytes(300)), (1, None)]

    run(body)


def test_the_brokers_own_records_are_refused_when_memory_is_full() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        rig.store.held.append("wal/")
        written = 0
        with pytest.raises(KafkaError) as caught:
            while written < 200:
                partition.append_internal([(b"k", bytes(500_000))])
                written += 1
        assert caught.value.code is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert 20 <= written <= 40
        rig.store.let_go()
        await asyncio.sleep(60)
        partition.append_internal([(b"k", bytes(500_000))])

    run(body, log_cache_bytes=str(16 << 20), upload_trigger_bytes=str(4 << 20))


def test_offsets_are_found_by_time_to_the_record() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        for start in (T0, T0 + 10, T0 + 5):
            pending = append(partition, batch(3, timestamp=start))
        await landed(pending)
        for wanted, offset in ((0, 0), (T0 + 1, 1), (T0 + 2, 2), (T0 + 3, 3), (T0 + 12, 5)):
            found = await partition.offset_for_timestamp(wanted, 0)
            assert found is not None and found.offset == offset, wanted
        assert await partition.offset_for_timestamp(T0 + 13, 0) is None
        await partition.delete_records(5)
        found = await partition.offset_for_timestamp(T0 + 1, 0)
        assert found is not None and (found.offset, found.timestamp_ms) == (5, T0 + 12)
        newest = await partition.max_timestamp()
        assert newest is not None and (newest.offset, newest.timestamp_ms) == (5, T0 + 12)
        await partition.delete_records(6)
        found = await partition.offset_for_timestamp(T0 + 6, 0)
        assert found is not None and (found.offset, found.timestamp_ms) == (7, T0 + 6)

    run(body)


def test_the_end_of_each_epoch_is_known() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        await landed(append(partition, batch(3)))
        epoch = partition.leader_epoch
        assert partition.end_offset_for_epoch(epoch) == (epoch, 3)
        assert partition.end_offset_for_epoch(epoch + 1) == (-1, -1)
        assert partition.end_offset_for_epoch(-1) == (-1, -1)
        assert partition.epoch_of(2) == epoch

    run(body)


def test_a_closed_partition_takes_nothing_and_wakes_who_waits() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        partition.close()
        assert refused(partition, batch()) is ErrorCode.NOT_LEADER_OR_FOLLOWER
        with pytest.raises(KafkaError):
            partition.append_internal([(b"k", b"v")])
        with pytest.raises(KafkaError):
            partition.check_leader_epoch(-1)

    run(body)


# -- large batches

LARGE = {"large_batch_bytes": str(64 << 10)}
BIG = bytes(100_000)


def test_later_batches_wait_behind_a_large_one_and_other_partitions_do_not() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic("t")
        other = await rig.topic("other")
        rig.store.held.append("data/")
        large = append(partition, batch(2, BIG, producer=(7, 0, 0)))
        small = append(partition, batch(3, b"s", producer=(7, 0, 2)))
        assert (large.base_offset, small.base_offset) == (-1, -1)
        await landed(append(other, batch()))
        await asyncio.sleep(5)
        assert partition.log_end_offset == 0
        again = append(partition, batch(2, BIG, producer=(7, 0, 0)))
        assert again.durable is large.durable, "a resend joins the wait"
        rig.store.let_go()
        assert await landed(small) == 2
        assert await landed(large) == 0
        assert [value for _, value in await read_all(partition)] == [BIG, BIG, b"s", b"s", b"s"]
        assert await landed(append(partition, batch(2, BIG, producer=(7, 0, 0)))) == 0
        assert append(partition, batch(1, producer=(7, 0, 5))).base_offset == 5

    run(body, **LARGE)


def test_two_large_batches_keep_their_order_whichever_object_is_there_first() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        rig.store.held.append("data/")
        first = append(partition, batch(1, b"1" + BIG))
        await settle()
        second = append(partition, batch(1, b"2" + BIG))
        rig.store.let_go()
        assert (await landed(second), await landed(first)) == (1, 0)
        assert [v[:1] for _, v in await read_all(partition) if v] == [b"1", b"2"]

    run(body, **LARGE)


def test_what_waits_behind_a_large_batch_that_fails_was_never_in_the_log() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        await landed(append(partition, batch(1, producer=(7, 0, 0))))
        rig.store.denied.append("data/")
        large = append(partition, batch(1, BIG, producer=(7, 0, 1)))
        behind = append(partition, batch(1, producer=(7, 0, 2)))
        another = append(partition, batch(1, producer=(8, 0, 40)))
        for pending in (large, behind, another):
            with pytest.raises(KafkaError) as caught:
                await landed(pending)
            assert caught.value.code is ErrorCode.KAFKA_STORAGE_ERROR
        assert partition.log_end_offset == 1
        rig.store.denied.clear()
        assert refused(partition, batch(1, producer=(7, 0, 2))) is (
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        )
        large = append(partition, batch(1, BIG, producer=(7, 0, 1)))
        behind = append(partition, batch(1, producer=(7, 0, 2)))
        assert (await landed(large), await landed(behind)) == (1, 2)
        assert await landed(append(partition, batch(1, producer=(8, 0, 40)))) == 3

    run(body, **LARGE)


def test_a_partition_that_closes_lets_go_of_its_line() -> None:
    async def body(rig: Rig) -> None:
        partition = await rig.topic()
        rig.store.held.append("data/")
        large = append(partition, batch(1, BIG))
        behind = append(partition, batch(1))
        await settle()
        partition.close()
        for pending in (large, behind):
            with pytest.raises(KafkaError) as caught:
                await landed(pending)
            assert caught.value.code is ErrorCode.NOT_LEADER_OR_FOLLOWER
        rig.store.let_go()
        await asyncio.sleep(1)
        assert partition.log_end_offset == 0
        numbers = rig.node.storage.numbers
        assert numbers.lowest_unsettled >= 1, "the collector may have the object"

    run(body, **LARGE)
