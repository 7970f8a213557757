"""Idempotent producers of one partition: sequences as they are given out, before they are durable.

The durable state is folded by s3stream from the log; this is the leader's view, which runs ahead
of it by what is in flight, and from which duplicates and gaps are told.
Source: KIP-98; the answers follow Apache Kafka's ProducerStateManager and ProducerAppendInfo.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.errors import ErrorCode, KafkaError

NO_PRODUCER_ID = -1
NO_SEQUENCE = -1
MAX_SEQUENCE = 2**31 - 1
BATCHES_KEPT = 5


class SequencedBatch(NamedTuple):
    """One of the last batches of a producer. durable: None when it was durable before we led.

    base_offset, last_offset: -1 when it had none yet; then `durable` gives the base offset.
    """

    first_sequence: int
    last_sequence: int
    base_offset: int
    last_offset: int
    timestamp_ms: int
    durable: asyncio.Future[int] | None


@dataclass(slots=True)
class ProducerEntry:
    """What is known of one producer id."""

    producer_id: int
    epoch: int
    coordinator_epoch: int = -1
    last_timestamp_ms: int = -1
    txn_first_offset: int = -1
    batches: deque[SequencedBatch] = field(default_factory=lambda: deque(maxlen=BATCHES_KEPT))

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE


def last_sequence_of(first_sequence: int, record_count: int) -> int:
    """Sequences wrap from 2**31 - 1 to 0."""
    return (first_sequence + record_count - 1) & MAX_SEQUENCE


class ProducerStates:
    """All producers of one partition."""

    def __init__(self, expiration_ms: int) -> None:
        self.expiration_ms = expiration_ms
        self._entries: dict[int, ProducerEntry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[ProducerEntry]:
        """By producer id."""
        return [self._entries[key] for key in sorted(self._entries)]

    def restore(self, entry: ProducerEntry) -> None:
        """Take over durable state when the partition opens."""
        self._entries[entry.producer_id] = entry

    def _live(self, producer_id: int, now_ms: int) -> ProducerEntry | None:
        entry = self._entries.get(producer_id)
        if entry is None:
            return None
        if (
            entry.txn_first_offset < 0
            and entry.last_timestamp_ms >= 0
            and now_ms - entry.last_timestamp_ms >= self.expiration_ms
        ):
            del self._entries[producer_id]
            return None
        return entry

    def duplicate_of(
        self, producer_id: int, epoch: int, first_sequence: int, last_sequence: int, now_ms: int
    ) -> SequencedBatch | None:
        """The earlier batch that this one repeats, if it is among the last five."""
        entry = self._live(producer_id, now_ms)
        if entry is None or entry.epoch != epoch:
            return None
        for batch in entry.batches:
            if batch.first_sequence == first_sequence and batch.last_sequence == last_sequence:
                return batch
        return None

    def check(self, producer_id: int, epoch: int, first_sequence: int, now_ms: int) -> None:
        """Raises INVALID_PRODUCER_EPOCH or OUT_OF_ORDER_SEQUENCE_NUMBER."""
        entry = self._live(producer_id, now_ms)
        if entry is None:
            return
        if epoch < entry.epoch:
            raise KafkaError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                detail=f"Epoch of producer {producer_id} is {epoch}, "
                f"which is smaller than the last seen epoch {entry.epoch}",
            )
        if epoch != entry.epoch:
            if first_sequence != 0:
                raise KafkaError(
                    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                    detail=f"Invalid sequence number for new epoch of producer {producer_id}: "
                    f"{epoch} (request epoch), {first_sequence} (seq. number), "
                    f"{entry.epoch} (current producer epoch)",
                )
            return
        last = entry.last_sequence
        if first_sequence != (last + 1) & MAX_SEQUENCE:
            raise KafkaError(
                ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
                detail=f"Out of order sequence number for producer {producer_id}: "
                f"{first_sequence} (incoming seq. number), {last} (current end sequence number)",
            )

    def record(self, producer_id: int, epoch: int, batch: SequencedBatch) -> None:
        """Take note of a batch that was given its offsets."""
        entry = self._entries.get(producer_id)
        if entry is None:
            entry = self._entries[producer_id] = ProducerEntry(producer_id, epoch)
        elif entry.epoch != epoch:
            entry.epoch = epoch
            entry.batches.clear()
        entry.batches.append(batch)
        entry.last_timestamp_ms = batch.timestamp_ms

    def undo(self, producer_id: int) -> Callable[[], None]:
        """What takes back all that is recorded of a producer from now on."""
        entry = self._entries.get(producer_id)
        if entry is None:
            return lambda: self._forget(producer_id)
        epoch, last_timestamp_ms, batches = entry.epoch, entry.last_timestamp_ms, [*entry.batches]

        def back() -> None:
            entry.epoch, entry.last_timestamp_ms = epoch, last_timestamp_ms
            entry.batches.clear()
            entry.batches.extend(batches)
            self._entries[producer_id] = entry

        return back

    def _forget(self, producer_id: int) -> None:
        self._entries.pop(producer_id, None)

    def expire(self, now_ms: int) -> None:
        """Drop those not heard of for the expiration time."""
        for producer_id in list(self._entries):
            self._live(producer_id, now_ms)
