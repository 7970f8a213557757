"""Batches that have no offset yet: a large one until its object is durable, later ones behind it.

A batch above `large.batch.bytes` goes to an object of its own first, so that no other partition
waits while it travels; the log then carries a reference (PROTOCOL 3.9). Offsets are given when a
batch leaves the line. Until then its producer's sequences count, so that a resend joins the wait.
When the object cannot be written, it and all behind it were never in the log: they get an error
that clients try again after, and the producers are as they were before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from objectstore.errors import StoreError
from protocol.errors import ErrorCode, KafkaError
from protocol.record_batch import BatchHeader
from wal.errors import LogError
from wal.format import BatchEntry, LargeBatchRef

log = logging.getLogger(__name__)

# As long as a producer by default waits for one request, twice.
GIVE_UP_S = 60.0


class LargeBatchStore(Protocol):
    """What s3stream offers for them."""

    async def write_large_batch(
        self, entry: BatchEntry, give_up_after_s: float | None = None
    ) -> LargeBatchRef: ...

    def forget_large_batch(self, reference: LargeBatchRef) -> None: ...


@dataclass(slots=True, eq=False)
class Place:
    """One batch in the line. landed: its base offset, once it is durable.

    undo: forgets its sequences, and those of its producer that came after.
    """

    records: memoryview
    header: BatchHeader
    now_ms: int
    landed: asyncio.Future[int]
    undo: Callable[[], None]
    upload: asyncio.Task[None] | None = None
    reference: LargeBatchRef | None = None

    @property
    def may_go(self) -> bool:
        return self.upload is None or self.reference is not None


class WaitingLine:
    """Of one partition.

    draft: the entry of a batch that has no offset yet. append: gives it its offset and its place
    in the log; the base offset, and the log's future. Raises KafkaError.
    """

    def __init__(
        self,
        store: LargeBatchStore,
        draft: Callable[[Place], BatchEntry],
        append: Callable[[Place], tuple[int, asyncio.Future[int]]],
    ) -> None:
        self._store = store
        self._draft = draft
        self._append = append
        self._line: deque[Place] = deque()

    def __len__(self) -> int:
        return len(self._line)

    def join(
        self,
        records: memoryview,
        header: BatchHeader,
        now_ms: int,
        undo: Callable[[], None],
        *,
        large: bool,
    ) -> asyncio.Future[int]:
        """At the end of the line. The future gives the base offset, or fails with KafkaError."""
        loop = asyncio.get_running_loop()
        place = Place(records, header, now_ms, loop.create_future(), undo)
        self._line.append(place)
        if large:
            place.upload = loop.create_task(self._upload(place), name="large batch")
        return place.landed

    def close(self) -> None:
        """Nothing more is appended here."""
        if self._line:
            self._fail_from(self._line[0], KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER))

    async def _upload(self, place: Place) -> None:
        try:
            place.reference = await self._store.write_large_batch(self._draft(place), GIVE_UP_S)
        except (StoreError, LogError) as error:
            log.warning("a batch of %d bytes could not be written: %s", len(place.records), error)
            self._fail_from(place, KafkaError(ErrorCode.KAFKA_STORAGE_ERROR, detail=str(error)))
        else:
            self._advance()

    def _advance(self) -> None:
        while self._line and self._line[0].may_go:
            place = self._line[0]
            try:
                base_offset, durable = self._append(place)
            except KafkaError as error:
                self._fail_from(place, error)
                return
            self._line.popleft()
            durable.add_done_callback(partial(_land, place, base_offset))

    def _fail_from(self, place: Place, error: KafkaError) -> None:
        """It and all behind it leave the line without an offset."""
        failed: list[Place] = []
        while self._line and (not failed or failed[-1] is not place):
            failed.append(self._line.pop())
        # From the back, so that the producers end as they were before the first.
        for one in failed:
            one.undo()
            if one.reference is not None:
                self._store.forget_large_batch(one.reference)
            elif one.upload is not None and one.upload is not asyncio.current_task():
                one.upload.cancel()
            one.landed.set_exception(error)
            one.landed.exception()  # seen: nobody may be waiting, and that is no mistake


def _land(place: Place, base_offset: int, durable: asyncio.Future[int]) -> None:
    if durable.cancelled() or durable.exception() is not None:
        # The log was ended by somebody else: whether the batch counts, they decide.
        place.landed.set_exception(KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER))
        place.landed.exception()
    else:
        place.landed.set_result(base_offset)
