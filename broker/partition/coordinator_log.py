"""A partition of `__consumer_offsets` as its coordinator sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from broker.coordinator import LogRecord
from objectstore.errors import StoreError
from protocol.errors import ErrorCode, KafkaError

from .partition import Partition

_READ_BYTES = 1 << 20


class PartitionLog:
    """Implements broker.coordinator.CoordinatorLog. confirm_leader: see broker.confirmation."""

    def __init__(self, partition: Partition, confirm_leader: Callable[[], Awaitable[None]]) -> None:
        self._partition = partition
        self._confirm = confirm_leader

    @property
    def log_start_offset(self) -> int:
        return self._partition.log_start_offset

    @property
    def high_watermark(self) -> int:
        return self._partition.high_watermark

    async def read(self, offset: int) -> tuple[Sequence[LogRecord], int]:
        try:
            return await self._partition.read_records(offset, _READ_BYTES)
        except StoreError as error:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, detail=str(error)) from error

    async def confirm(self) -> None:
        try:
            await self._confirm()
        except KafkaError as error:
            raise KafkaError(ErrorCode.NOT_COORDINATOR, detail=str(error)) from error
        except StoreError as error:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, detail=str(error)) from error

    def append(self, records: list[tuple[bytes, bytes | None]]) -> asyncio.Future[int]:
        base_offset, durable = self._partition.append_internal(records)
        return _then_offset(durable, base_offset)


def _then_offset(durable: asyncio.Future[int], base_offset: int) -> asyncio.Future[int]:
    """The outcome of the log object's future, told as the batch's base offset."""
    told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(future: asyncio.Future[int]) -> None:
        if told.done():
            return
        if future.cancelled() or future.exception() is not None:
            told.set_exception(KafkaError(ErrorCode.NOT_COORDINATOR))
            told.exception()  # whoever waits is told; nobody has to
        else:
            told.set_result(base_offset)

    durable.add_done_callback(done)
    return told
