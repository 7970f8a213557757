"""A partition that another broker leads, and that this one serves to consumers of its rack.

To Fetch it looks as a partition does; what it knows is what its leader told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

from broker.partition.leader_epochs import EpochEnd, end_offset_for_epoch
from broker.partition.partition import READ_COMMITTED
from broker.partition.purgatory import MovementSignal
from objectstore.errors import Corrupt, NotFound, StoreError
from protocol.errors import ErrorCode, KafkaError
from s3stream.errors import OffsetOutOfRange
from s3stream.told_stream import ToldStream

log = logging.getLogger(__name__)

# Since the leader's last word: after that the end of what is known is not taken for the end.
STALE_AFTER_S = 2.0
# What is read may be merged and deleted again while it is told anew.
ATTEMPTS = 4
# Reads that bring nothing for so long mean that the leader may do better.
STUCK_S = 3.0
# Who could not read here is not to be sent here again for so long.
UNREADABLE_S = 10.0

Ask = Callable[["FollowedPartition"], Awaitable[bool]]


class FollowedPartition:
    """leader: its incarnation. leader_epoch: both as the image says.

    ask: has the leader asked anew, and returns whether it answered; by then that was taken over.
    hurry: the leader is to know at once how it stands here.
    """

    is_led = False

    def __init__(
        self,
        topic: str,
        topic_id: UUID,
        index: int,
        leader: int,
        leader_epoch: int,
        told: ToldStream,
        ask: Ask,
        hurry: Callable[[FollowedPartition], None],
    ) -> None:
        self.topic = topic
        self.topic_id = topic_id
        self.index = index
        self.leader = leader
        self.leader_epoch = leader_epoch
        self.told = told
        self._ask = ask
        self._hurry = hurry
        self.last_stable_offset = -1
        self.leader_epochs: list[tuple[int, int]] = []
        self.moved = MovementSignal()
        self.closed = False
        self.bytes_out = 0
        # Loop time: of the newest question that the leader answered; of a client's last read.
        self.fresh_at = float("-inf")
        self.read_at = asyncio.get_running_loop().time()
        # Loop time: the first read since the last good one that the store did not answer in time;
        # until when the leader is told to send nobody here.
        self._stuck_since: float | None = None
        self._unreadable_until = float("-inf")
        # The leader is to tell all of its ranges: none are known, or some do not lead anywhere.
        self.wants_whole = True

    @property
    def high_watermark(self) -> int:
        return self.told.high_watermark

    @property
    def log_end_offset(self) -> int:
        """What lies above is not known here."""
        return self.told.high_watermark

    @property
    def log_start_offset(self) -> int:
        return self.told.log_start_offset

    @property
    def is_known(self) -> bool:
        return self.told.high_watermark >= 0

    @property
    def is_fresh(self) -> bool:
        return asyncio.get_running_loop().time() - self.fresh_at <= STALE_AFTER_S

    @property
    def is_readable(self) -> bool:
        """The store gave what was wanted of late, as far as is known."""
        return asyncio.get_running_loop().time() >= self._unreadable_until

    def visible_end(self, isolation: int) -> int:
        """The offset that a consumer of this isolation level reads up to."""
        return self.last_stable_offset if isolation == READ_COMMITTED else self.high_watermark

    # -- what Fetch asks

    async def ready(self, offset: int, patience_s: float) -> None:
        """Ask the leader first, where what is known does not do."""
        self.read_at = asyncio.get_running_loop().time()
        if self.is_known and (
            offset < self.high_watermark or (offset == self.high_watermark and self.is_fresh)
        ):
            return
        try:
            async with asyncio.timeout(max(patience_s, 0.0)):
                await self._ask(self)
        except TimeoutError:
            pass

    def check_leader_epoch(self, current_leader_epoch: int) -> None:
        """As `Partition.check_leader_epoch`, by the epoch of the image."""
        if self.closed:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if current_leader_epoch in (-1, self.leader_epoch):
            return
        if current_leader_epoch < self.leader_epoch:
            raise KafkaError(ErrorCode.FENCED_LEADER_EPOCH)
        raise KafkaError(ErrorCode.UNKNOWN_LEADER_EPOCH)

    def end_offset_for_epoch(self, epoch: int) -> EpochEnd:
        """As `Partition.end_offset_for_epoch`, up to what is known."""
        if not self.leader_epochs or self.leader_epochs[-1][0] < self.leader_epoch:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)  # not told since it was appointed
        return end_offset_for_epoch(
            epoch, self.leader_epochs, self.log_start_offset, self.high_watermark
        )

    def check_fetch_offset(self, offset: int) -> None:
        """Raises OFFSET_OUT_OF_RANGE: below the log start, which the leader told and which never
        goes back. OFFSET_NOT_AVAILABLE: above what is known. NOT_LEADER_OR_FOLLOWER: ask there.
        """
        if not self.is_known:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if offset < self.log_start_offset:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        if offset > self.high_watermark:
            raise KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE)
        if offset == self.high_watermark and not self.is_fresh:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        if not self.is_readable:
            # The leader has the newest in memory, and another way to the store.
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def read_cached(self, offset: int, max_bytes: int, isolation: int) -> list[memoryview] | None:
        """[] where there is nothing to read; None: storage must be asked."""
        return [] if offset >= self.visible_end(isolation) else None

    async def read(
        self, offset: int, max_bytes: int, isolation: int, within_s: float | None = None
    ) -> list[memoryview]:
        """As `Partition.read`. Raises KafkaError NOT_LEADER_OR_FOLLOWER: the leader may know."""
        for attempt in range(ATTEMPTS):
            end = self.visible_end(isolation)
            try:
                if offset >= end:
                    return []
                found = await self.told.fetch(offset, end, max_bytes, within_s)
            except asyncio.CancelledError:
                self._timed_out()
                raise
            except OffsetOutOfRange:
                raise
            except (NotFound, Corrupt) as error:
                level = logging.DEBUG if attempt == 0 else logging.WARNING
                log.log(level, "%s-%d: told anew: %s", self.topic, self.index, error)
            except StoreError as error:
                log.debug("%s-%d: reading failed: %s", self.topic, self.index, error)
                self._unreadable()
                break
            else:
                self._stuck_since = None
                return found
            self.wants_whole = True
            if self.closed or not await self._ask(self):
                break
        raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)

    def _timed_out(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > STUCK_S:
            self._unreadable()

    def _unreadable(self) -> None:
        self._stuck_since = None
        self._unreadable_until = asyncio.get_running_loop().time() + UNREADABLE_S
        self._hurry(self)

    # -- what its leader tells

    def lead_by(self, leader: int, leader_epoch: int) -> None:
        """The image names another leader, or the same anew. What is known stays true."""
        self.leader, self.leader_epoch = leader, leader_epoch
        self.fresh_at = float("-inf")
        self.wants_whole = True
        self.moved.fire()

    def close(self) -> None:
        """Not served here any more; whoever waits is woken and finds out."""
        self.closed = True
        self.moved.fire()
