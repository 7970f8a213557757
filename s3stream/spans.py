"""What retention and look-ups by time ask of a part of a stream, however small the part is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from protocol.record_batch import iter_headers
from wal.format import BatchEntry


class Aged(Protocol):
    """A range, a block's part of it, or a batch. max_timestamp: Unix ms; negative: none is known.

    end_offset: exclusive. size_bytes: of its batches.
    """

    @property
    def base_offset(self) -> int: ...

    @property
    def end_offset(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def batch_count(self) -> int: ...

    @property
    def max_timestamp(self) -> int: ...


class Span(NamedTuple):
    """As `Aged` says: one batch, or a run of them."""

    base_offset: int
    end_offset: int
    size_bytes: int
    batch_count: int
    max_timestamp: int


def spans_of_entries(entries: Iterable[BatchEntry]) -> list[Span]:
    """Of batches in memory."""
    return [
        Span(one.base_offset, one.last_offset + 1, one.size_bytes, 1, one.max_timestamp)
        for one in entries
    ]


def spans_of_batches(views: Iterable[memoryview]) -> list[Span]:
    """Of whole batches, read back. Raises ValueError where a view is no run of batches."""
    return [
        Span(one.base_offset, one.next_offset, one.size_bytes, 1, one.max_timestamp)
        for view in views
        for _, one in iter_headers(view)
    ]
