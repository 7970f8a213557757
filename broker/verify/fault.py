"""What `verify` found wrong, and the sums by which it finds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from objectstore.errors import Corrupt, NotFound
from s3stream.entries import Tally
from s3stream.refs import ObjectRange
from wal.format import StreamRange

_MODULUS = 1 << 128


class Fault(Exception):
    """The first thing that does not fit; the message names the object or the partition.

    is_bookkeeping: an index object of a long history, which only says where records are.
    """

    def __init__(self, message: str, *, is_bookkeeping: bool = False) -> None:
        super().__init__(message)
        self.is_bookkeeping = is_bookkeeping


class IndexDamaged(Corrupt):
    """An index object of a long history."""


class IndexMissing(NotFound):
    """An index object of a long history; or it was replaced while this read."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much some batches are. sum: modulo 2^128."""

    sum: int = 0
    batches: int = 0
    records: int = 0
    size_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            (self.sum + other.sum) % _MODULUS,
            self.batches + other.batches,
            self.records + other.records,
            self.size_bytes + other.size_bytes,
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            (self.sum - other.sum) % _MODULUS,
            self.batches - other.batches,
            self.records - other.records,
            self.size_bytes - other.size_bytes,
        )

    @classmethod
    def of(cls, one: ObjectRange | StreamRange | Tally) -> Amount:
        return cls(
            int.from_bytes(one.sum, "big"), one.batch_count, one.record_count, one.size_bytes
        )


def total(ranges: Iterable[ObjectRange | StreamRange]) -> Amount:
    amount = Amount()
    for one in ranges:
        amount = amount + Amount.of(one)
    return amount
