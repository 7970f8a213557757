"""What the coordinator asks of one partition of `__consumer_offsets`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol


class LogRecord(Protocol):
    """A record of a decoded batch; `value` is None in a tombstone."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class CoordinatorLog(Protocol):
    """One led partition; the coordinator is its only writer."""

    @property
    def log_start_offset(self) -> int: ...

    @property
    def high_watermark(self) -> int: ...

    async def read(self, offset: int) -> tuple[Sequence[LogRecord], int]:
        """The data records of the next batches from `offset` on, and where to read next.

        Control batches are left out. Raises KafkaError: the partition cannot be read now.
        """
        ...

    async def confirm(self) -> None:
        """Return once it is certain that this process led a moment ago.

        Raises KafkaError: it does not lead any more, or cannot tell.
        """
        ...

    def append(self, records: list[tuple[bytes, bytes | None]]) -> asyncio.Future[int]:
        """Append the records as one batch, after all that was appended before it.

        records: key and value, 1 or more. The future gives the batch's base offset once it is
        durable, however long that takes: a slow store is no failure. It fails with KafkaError
        exactly if the batch is not in the log and never will be. Nobody but the partition may
        cancel it. Raises KafkaError: refused at once (too large, not the leader).
        """
        ...
