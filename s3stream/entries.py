"""The durable state of one stream: what the chain says about it, bounded in size.

`fold` alone changes an entry, for a live log and for one that is being recovered alike. In memory
an entry is mutable and has one owner, the registry; `index_pages` writes and reads it.

Sums (PROTOCOL, proof): live plus trimmed equals total, modulo 2^128. A range leaves `live` when
its last batch leaves the index; a range still to be uploaded stays there until the next upload.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from wal.format import LargeBatchRef, ProducerBatch

from .refs import SUM_BYTES, SUM_MODULUS, ObjectRange, add_sums

ZERO_SUM = bytes(SUM_BYTES)
NO_TRANSACTION = -1
PRODUCER_BATCHES = 5

Appointment = tuple[int, int, int]
"""(term, sequence, number in the object) of the metadata record that made the leader."""


class Tally(msgspec.Struct, array_like=True, gc=False):
    """What belongs together: a sum over batches, and how much they are."""

    sum: bytes = ZERO_SUM
    batch_count: int = 0
    record_count: int = 0
    size_bytes: int = 0

    @classmethod
    def of(cls, ranges: Sequence[ObjectRange]) -> Tally:
        total = sum(int.from_bytes(one.sum, "big") for one in ranges) % SUM_MODULUS
        return cls(
            total.to_bytes(SUM_BYTES, "big"),
            sum(one.batch_count for one in ranges),
            sum(one.record_count for one in ranges),
            sum(one.size_bytes for one in ranges),
        )

    def add(self, one: ObjectRange | Tally) -> None:
        self.sum = add_sums(self.sum, one.sum)
        self.batch_count += one.batch_count
        self.record_count += one.record_count
        self.size_bytes += one.size_bytes

    def subtract(self, one: ObjectRange | Tally) -> None:
        self.sum = subtract_sums(self.sum, one.sum)
        self.batch_count -= one.batch_count
        self.record_count -= one.record_count
        self.size_bytes -= one.size_bytes


class ProducerEntry(msgspec.Struct, array_like=True):
    """An idempotent producer in one stream.

    batches: its last five of `epoch`, oldest first. last_timestamp: the broker's wall clock at
    its newest batch or marker, Unix ms, for expiry. txn_first_offset: of its open transaction.
    """

    producer_id: int
    epoch: int
    batches: list[ProducerBatch]
    last_timestamp: int
    txn_first_offset: int = NO_TRANSACTION
    coordinator_epoch: int = -1


class AbortedTransaction(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """last_offset: of the abort marker."""

    producer_id: int
    first_offset: int
    last_offset: int


class LargeBatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A batch that a range of the log refers to out of line, until the next upload."""

    base_offset: int
    reference: LargeBatchRef


class StreamEntry(msgspec.Struct, array_like=True):
    """history, ranges: by offset, without a gap, from the one that holds start_offset to
    next_offset; one of the history stands for all ranges in the index object that it names.

    uploaded_to: ranges from here on lie in objects of a log and await upload.
    leader_epochs: (epoch, its first offset), both rising.
    closed: nothing is appended here any more; kept until the stream is dropped.
    """

    stream_id: int
    epoch: int
    appointment: Appointment
    start_offset: int = 0
    next_offset: int = 0
    uploaded_to: int = 0
    ranges: list[ObjectRange] = []
    producers: dict[int, ProducerEntry] = {}
    aborted: list[AbortedTransaction] = []
    leader_epochs: list[tuple[int, int]] = []
    live: Tally = msgspec.field(default_factory=Tally)
    trimmed: Tally = msgspec.field(default_factory=Tally)
    total: Tally = msgspec.field(default_factory=Tally)
    large: list[LargeBatch] = []
    closed: bool = False
    history: list[ObjectRange] = []

    def archived(self, offset: int) -> ObjectRange | None:
        """The one of the history that holds `offset`; None: none does."""
        position = bisect_right(self.history, offset, key=_end_offset)
        return self.history[position] if position < len(self.history) else None

    def first_range(self, offset: int) -> int:
        """Index of the range that holds `offset`; len(ranges) when none does.

        offset: below what is in line, the first of that.
        """
        return bisect_right(self.ranges, offset, key=_end_offset)

    def ranges_between(self, offset: int, end_offset: int) -> list[ObjectRange]:
        """Those that overlap [offset, end_offset)."""
        found = []
        for position in range(self.first_range(offset), len(self.ranges)):
            one = self.ranges[position]
            if one.base_offset >= end_offset:
                break
            found.append(one)
        return found

    def tail(self) -> list[ObjectRange]:
        """Ranges that await upload."""
        return self.ranges[self.first_range(self.uploaded_to) :]

    def first_open_transaction(self) -> int | None:
        """The lowest offset of a transaction that is open; None without one."""
        offsets = [
            one.txn_first_offset for one in self.producers.values() if one.txn_first_offset >= 0
        ]
        return min(offsets, default=None)


def _end_offset(one: ObjectRange) -> int:
    return one.end_offset


def subtract_sums(total: bytes, part: bytes) -> bytes:
    """16 bytes each."""
    left = int.from_bytes(total, "big") - int.from_bytes(part, "big")
    return (left % SUM_MODULUS).to_bytes(SUM_BYTES, "big")


class PageRef(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An index page (or a part of one): the entries of some streams from `low` to `high`.

    Both stream ids inclusive. size_bytes: the whole object.
    """

    key: str
    write_id: bytes
    size_bytes: int
    low: int
    high: int
