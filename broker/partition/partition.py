"""A partition that this broker leads: gives records their offsets, and reads them back.

Sequencing has no await: from the check of a batch to its place in the write-ahead log nothing
else runs, so producers' sequences, offsets and the log agree. What is answered, and when, is up
to the caller: a batch counts once `PendingAppend.durable` has its result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from broker.config.topic import TopicConfig
from protocol import record_batch
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BatchHeader
from protocol.records import (
    Record,
    UnreadableRecords,
    decode_records,
    encode_batch,
    recompress,
    validate_records,
)
from s3stream.batches import entry_of
from s3stream.errors import StreamError
from s3stream.node_log import StreamStorage
from s3stream.stream import Stream
from wal.errors import LogError
from wal.format import BatchEntry, LargeBatchRef

from .leader_epochs import EpochEnd, end_offset_for_epoch
from .producer_state import (
    NO_PRODUCER_ID,
    ProducerEntry,
    ProducerStates,
    SequencedBatch,
    last_sequence_of,
)
from .purgatory import MovementSignal
from .waiting_line import Place, WaitingLine

READ_UNCOMMITTED = 0
READ_COMMITTED = 1


class PendingAppend(NamedTuple):
    """What a produce is answered with once `durable` is done (None: it is durable already).

    base_offset: -1 where it is the result of `durable`, which may fail with KafkaError then.
    """

    base_offset: int
    log_append_time_ms: int
    log_start_offset: int
    durable: asyncio.Future[int] | None


class FoundOffset(NamedTuple):
    """An answer of ListOffsets; offset -1: none."""

    offset: int
    timestamp_ms: int
    leader_epoch: int


class Partition:
    """One partition that this broker leads, with an open stream.

    storage: of the stream. large_batch_bytes: a larger batch goes to an object of its own.
    """

    is_led = True

    def __init__(
        self,
        topic: str,
        topic_id: UUID,
        index: int,
        stream: Stream,
        config: TopicConfig,
        *,
        internal: bool,
        producer_expiration_ms: int,
        validate_records: bool,
        now_ms: Callable[[], int],
        storage: StreamStorage,
        large_batch_bytes: int,
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.stream = stream
        self.config = config
        self.internal = internal
        self.moved = MovementSignal()
        self.closed = False
        self.bytes_in = 0
        self.bytes_out = 0
        self._validate = validate_records
        self._now_ms = now_ms
        self._storage = storage
        self._large_batch_bytes = large_batch_bytes
        self._line = WaitingLine(storage, self._draft, self._leave_line)
        self._opened_at = stream.next_offset
        self.producers = ProducerStates(producer_expiration_ms)
        for producer_id in sorted(stream.entry.producers):
            state = stream.entry.producers[producer_id]
            entry = ProducerEntry(
                producer_id,
                state.epoch,
                coordinator_epoch=state.coordinator_epoch,
                last_timestamp_ms=state.last_timestamp,
                txn_first_offset=state.txn_first_offset,
            )
            for batch in state.batches:
                entry.batches.append(SequencedBatch(*batch, durable=None))
            self.producers.restore(entry)
        stream.on_advance.append(self._advanced)

    # -- offsets

    @property
    def leader_epoch(self) -> int:
        return self.stream.epoch

    @property
    def log_start_offset(self) -> int:
        return self.stream.start_offset

    @property
    def log_end_offset(self) -> int:
        """As sequenced; what lies at and above the high watermark is not durable yet."""
        return self.stream.next_offset

    @property
    def high_watermark(self) -> int:
        return self.stream.high_watermark

    @property
    def last_stable_offset(self) -> int:
        """Without transactions every durable record is stable."""
        return self.stream.high_watermark

    def visible_end(self, isolation: int) -> int:
        """The offset that a consumer of this isolation level reads up to."""
        return self.last_stable_offset if isolation == READ_COMMITTED else self.high_watermark

    def _advanced(self, stream: Stream) -> None:
        self.moved.fire()

    def check_leader_epoch(self, current_leader_epoch: int) -> None:
        """Raises FENCED_LEADER_EPOCH or UNKNOWN_LEADER_EPOCH; -1 is not checked."""
        if self.closed:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch in (-1, self.leader_epoch):
            return
        if current_leader_epoch < self.leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    # -- appending

    def append_as_leader(self, records: memoryview, header: BatchHeader) -> PendingAppend:
        """Give a client's batch its offsets and a place in the log.

        records: one batch in writable memory that stays unchanged from here on; header: as
        `record_batch.check_produced` returned it. Raises KafkaError.
        """
        if self.closed:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        now_ms = self._now_ms()
        self._check_size(header)
        if header.is_transactional:
            raise KafkaError(
                ErrorCode.INVALID_TXN_STATE, "transactions are not served by this version"
            )
        log_append_time = self._apply_timestamps(records, header, now_ms)
        if log_append_time >= 0 or header.timestamp_type != 0:
            header = record_batch.parse_header(records)
        producer_id, epoch, sequence = header.producer_id, header.producer_epoch, -1
        if producer_id != NO_PRODUCER_ID:
            sequence = header.base_sequence
            last = last_sequence_of(sequence, header.record_count)
            earlier = self.producers.duplicate_of(producer_id, epoch, sequence, last, now_ms)
            if earlier is not None:
                # The original's time, as Kafka answers (a repeated batch has the same one); and
                # only once the original is durable.
                stamped = log_append_time >= 0
                time_ms = earlier.timestamp_ms if stamped else header.max_timestamp
                return PendingAppend(
                    earlier.base_offset, time_ms, self.log_start_offset, earlier.durable
                )
            self.producers.check(producer_id, epoch, sequence, now_ms)
        codec = self.config.target_codec
        if codec is not None and codec != header.codec:
            records = memoryview(_recompressed(records, codec, self.config.compression_level))
            header = record_batch.parse_header(records)
            self._check_size(header)
        large = header.size_bytes > self._large_batch_bytes
        if large or self._line:
            base_offset = last_offset = -1
            undo = self.producers.undo(producer_id)
            durable = self._line.join(records, header, now_ms, undo, large=large)
        else:
            base_offset = self.stream.next_offset
            last_offset = base_offset + header.last_offset_delta
            durable = self._append(records, header, base_offset, now_ms)
        if producer_id != NO_PRODUCER_ID:
            last = last_sequence_of(sequence, header.record_count)
            batch = SequencedBatch(sequence, last, base_offset, last_offset, now_ms, durable)
            self.producers.record(producer_id, epoch, batch)
        return PendingAppend(base_offset, log_append_time, self.log_start_offset, durable)

    def _leave_line(self, place: Place) -> tuple[int, asyncio.Future[int]]:
        base_offset = self.stream.next_offset
        durable = self._append(
            place.records, place.header, base_offset, place.now_ms, place.reference
        )
        return base_offset, durable

    def _draft(self, place: Place) -> BatchEntry:
        """As it is written before it has its offset."""
        return entry_of(self.stream.stream_id, place.records, place.header)

    def append_internal(
        self, records: Sequence[tuple[bytes | None, bytes | None]]
    ) -> tuple[int, asyncio.Future[int]]:
        """Append the broker's own records as one batch; (base offset, done when durable).

        Raises KafkaError: not the leader, no room in memory (COORDINATOR_NOT_AVAILABLE), or too
        large by the topic's `max.message.bytes`.
        """
        if self.closed:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        now_ms = self._now_ms()
        base_offset = self.stream.next_offset
        batch = encode_batch(
            [
                Record(base_offset + i, now_ms, key, value, [])
                for i, (key, value) in enumerate(records)
            ],
            base_offset=base_offset,
        )
        view = memoryview(batch)
        header = record_batch.parse_header(view)
        self._check_size(header)
        admission = self._storage.try_admit(header.size_bytes, own=True)
        if admission is None:
            # The store is away for long. Better a client that tries again than endless memory.
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, detail="the log cache is full")
        with admission:
            return base_offset, self._append(view, header, base_offset, now_ms)

    def _append(
        self,
        records: memoryview,
        header: BatchHeader,
        base_offset: int,
        now_ms: int,
        reference: LargeBatchRef | None = None,
    ) -> asyncio.Future[int]:
        record_batch.assign(records, base_offset, self.stream.epoch)
        assert not header.is_control, (self.topic, self.index, base_offset)
        entry = self._entry(records, header, base_offset, now_ms)
        entry.reference = reference
        try:
            durable = self.stream.append(entry)
        except (StreamError, LogError) as error:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, detail=str(error)) from error
        self.bytes_in += len(records)
        return durable

    def _entry(
        self, records: memoryview, header: BatchHeader, base_offset: int, now_ms: int
    ) -> BatchEntry:
        return BatchEntry(
            stream_id=self.stream.stream_id,
            base_offset=base_offset,
            last_offset=base_offset + header.last_offset_delta,
            leader_epoch=self.stream.epoch,
            record_count=header.record_count,
            max_timestamp=header.max_timestamp,
            size_bytes=len(records),
            crc=header.crc,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
            is_transactional=header.is_transactional,
            marker=None,
            buffer=records,
            timestamp_ms=now_ms,
        )

    def _check_size(self, header: BatchHeader) -> None:
        limit = self.config.max_message_bytes
        if header.size_bytes > limit:
            raise KafkaError(
                ErrorCode.MESSAGE_TOO_LARGE,
                detail=f"a batch of {header.size_bytes} bytes for {self.topic}-{self.index}; "
                f"the limit is {limit}",
            )

    def _apply_timestamps(self, records: memoryview, header: BatchHeader, now_ms: int) -> int:
        """Check or set the time of a batch, and its records where that is asked for.

        Gives the append time that was set, or -1. Source: KIP-32, KIP-937, KIP-467.
        """
        config = self.config
        if not config.log_append_time and header.timestamp_type != 0:
            # Only the log may say that; Kafka takes the batch and drops the claim.
            record_batch.clear_log_append_time(records)
            header = record_batch.parse_header(records)
        before_ms, after_ms = config.timestamp_before_max_ms, config.timestamp_after_max_ms

        def fault(record: Record) -> str | None:
            return record_batch.timestamp_fault(
                record.timestamp, record.offset, now_ms, before_ms, after_ms
            )

        claims = config.log_append_time and header.timestamp_type != 0
        if self._validate or config.compacts or claims:
            judge = fault if not config.log_append_time else _claim if claims else None
            validate_records(
                records,
                compacted_as=f"{self.topic}-{self.index}" if config.compacts else None,
                timestamp_fault=judge,
            )
        elif not config.log_append_time:
            record_batch.check_timestamps(header, now_ms, before_ms, after_ms)
        if config.log_append_time:
            record_batch.set_log_append_time(records, now_ms)
            return now_ms
        return -1

    # -- reading

    def check_fetch_offset(self, offset: int) -> None:
        """Raises OFFSET_OUT_OF_RANGE."""
        if offset < self.log_start_offset or offset > self.log_end_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"Received request for offset {offset} for partition {self.topic}-{self.index}, "
                f"but we only have log segments in the range "
                f"{self.log_start_offset} to {self.log_end_offset}.",
            )

    def read_cached(self, offset: int, max_bytes: int, isolation: int) -> list[memoryview] | None:
        """Batches from memory; [] where there is nothing to read; None: storage must be asked."""
        end = self.visible_end(isolation)
        if offset >= end:
            return []
        return self.stream.fetch_cached(offset, end, max_bytes)

    async def read(
        self, offset: int, max_bytes: int, isolation: int, within_s: float | None = None
    ) -> list[memoryview]:
        """Whole batches from the one that holds `offset` on; see Stream.fetch."""
        end = self.visible_end(isolation)
        if offset >= end:
            return []
        return await self.stream.fetch(offset, end, max_bytes, within_s)

    async def read_records(self, offset: int, max_bytes: int) -> tuple[list[Record], int]:
        """Decoded data records from `offset` up to the high watermark; (records, next offset)."""
        records: list[Record] = []
        next_offset = offset
        for buffer in await self.read(offset, max_bytes, READ_UNCOMMITTED):
            for position, header in record_batch.iter_headers(buffer):
                next_offset = header.next_offset
                if header.is_control:
                    continue
                batch = buffer[position : position + header.size_bytes]
                records.extend(r for r in decode_records(batch) if r.offset >= offset)
        return records, next_offset

    # -- looking up

    def leader_epochs(self) -> list[tuple[int, int]]:
        """(leader epoch, its first offset), ascending; ours last."""
        epochs = [e for e in self.stream.entry.leader_epochs if e[0] < self.leader_epoch]
        return [*epochs, (self.leader_epoch, self._opened_at)]

    def end_offset_for_epoch(self, epoch: int) -> EpochEnd:
        """The end of the largest epoch that is not above `epoch`."""
        return end_offset_for_epoch(
            epoch, self.leader_epochs(), self.log_start_offset, self.log_end_offset
        )

    def epoch_of(self, offset: int) -> int:
        """The leader epoch that `offset` was, or will be, written in; -1: unknown."""
        found = -1
        for epoch, start in self.leader_epochs():
            if start <= offset:
                found = epoch
        return found

    def earliest(self) -> FoundOffset:
        start = self.log_start_offset
        return FoundOffset(start, -1, self.epoch_of(start))

    def latest(self, isolation: int) -> FoundOffset:
        end = self.visible_end(isolation)
        return FoundOffset(end, -1, self.leader_epoch)

    async def offset_for_timestamp(self, timestamp_ms: int, isolation: int) -> FoundOffset | None:
        """The first record at or after a time, exact to the record."""
        batch = await self.stream.find_batch_by_timestamp(timestamp_ms)
        end = self.visible_end(isolation)
        while batch is not None:
            header = record_batch.parse_header(batch)
            if header.base_offset >= end:
                return None
            for record in decode_records(batch):
                if record.timestamp >= timestamp_ms and record.offset >= self.log_start_offset:
                    if record.offset >= end:
                        return None
                    return FoundOffset(record.offset, record.timestamp, header.leader_epoch)
            # Its newest record lies below the log start: go on behind it.
            found = await self.stream.find_batch_by_timestamp(timestamp_ms, header.next_offset)
            batch = found
        return None

    async def max_timestamp(self) -> FoundOffset | None:
        """The first record that has the partition's largest timestamp. Source: KIP-734."""
        found = await self.stream.max_timestamp()
        if found is None:
            return None
        timestamp, last_offset, batch = found
        header = record_batch.parse_header(batch)
        if header.timestamp_type == 1:
            return FoundOffset(last_offset, timestamp, header.leader_epoch)
        for record in decode_records(batch):
            if record.timestamp == timestamp:
                return FoundOffset(record.offset, timestamp, header.leader_epoch)
        return FoundOffset(last_offset, timestamp, header.leader_epoch)

    # -- ending

    async def delete_records(self, offset: int) -> int:
        """Move the log start up to `offset` (-1: the high watermark); the new one, durable."""
        high_watermark = self.high_watermark
        if offset == -1:
            offset = high_watermark
        if offset < 0 or offset > high_watermark:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"The requested offset {offset} is beyond the high watermark {high_watermark}",
            )
        if offset > self.log_start_offset:
            try:
                await self.stream.trim(offset)
            except (StreamError, LogError) as error:
                raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, detail=str(error)) from error
        return self.log_start_offset

    def close(self) -> None:
        """Serve no more; whoever waits is woken and finds out."""
        self.closed = True
        self._line.close()
        if self._advanced in self.stream.on_advance:
            self.stream.on_advance.remove(self._advanced)
        self.moved.fire()


def _recompressed(records: memoryview, codec: int, level: int | None) -> bytearray:
    """Raises KafkaError, with Kafka's code, for records that cannot be expanded."""
    try:
        return recompress(records, codec, level)
    except UnreadableRecords as error:
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, detail=str(error)) from None


def _claim(record: Record) -> str:
    """Kafka's words for a batch that says itself that the log gave it its time."""
    key, value = len(record.key or b""), len(record.value or b"")
    return (
        f"Invalid timestamp type in message DefaultRecord(offset={record.offset}, "
        f"timestamp={record.timestamp}, key={key} bytes, value={value} bytes). "
        "Producer should not set timestamp type to LogAppendTime."
    )
