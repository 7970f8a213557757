"""Fetch (key 1), served 4-18.

Versions: see protocol.fetch. Sessions: broker.partition.fetch_session (KIP-227).

- At least one whole batch comes back where there is one, whatever the limits (KIP-74); after the
  first, `max_bytes` and `partition_max_bytes` hold.
- The answer comes when `min_bytes` are there, when a partition has an error, or after `max_wait`,
  never later: what storage has not brought by then is left for the next fetch.
- Partitions are served in the order of the session, and one that gave data goes to its end.
- A leader answers only while it is confirmed (no other process may have taken over).
- A consumer that tells another rack is sent there, without records, where that can be (KIP-392);
  a partition that another broker leads is read here for consumers of this rack (broker.racks).
"""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from broker.api.led_on import is_between
from broker.partition.fetch_session import SessionPartition
from broker.partition.partition import Partition
from broker.partition.purgatory import Waiter
from broker.racks.followed import FollowedPartition
from broker.request_context import Raw, RequestContext
from broker.response_memory import Grant
from objectstore.errors import Corrupt, NotFound, StoreError
from protocol.errors import ErrorCode, KafkaError
from protocol.fetch import (
    FetchPartitionResponse,
    FetchRequest,
    encode_fetch_response,
)
from s3stream.errors import OffsetOutOfRange

from .fetch_answer import Read, answer

log = logging.getLogger(__name__)

# A fetch that waits for less than this would never get anything that storage has to bring; Kafka's
# remote reads have the same bound (`remote.fetch.max.wait.ms`).
_LEAST_READ_S = 0.5


async def handle(ctx: RequestContext, request: FetchRequest, version: int) -> Raw:
    """Find the session, read, wait for more where there is too little, answer."""
    loop = asyncio.get_running_loop()
    wait_s = max(request.max_wait_ms, 0) / 1000
    deadline = loop.time() + wait_s
    read_deadline = loop.time() + max(wait_s, _LEAST_READ_S)
    by_id = version >= 13
    try:
        context = ctx.services.sessions.context(
            request.session_id,
            request.session_epoch,
            _wanted(request, by_id),
            [
                (t.topic_id if by_id else t.name or "", i)  # type: ignore[misc]
                for t in request.forgotten
                for i in t.partitions
            ],
            by_id,
            ctx.services.now_ms(),
        )
    except KafkaError as error:
        return Raw(encode_fetch_response(version, [], error_code=int(error.code)))
    max_bytes = min(request.max_bytes, ctx.services.config.int("fetch.max.bytes"))
    reads = [_locate(ctx, wanted, request) for wanted in context.partitions()]
    if any(r.partition is not None and r.partition.is_led for r in reads):
        await _confirm(ctx, reads, read_deadline - loop.time())
    if ctx.services.racks.followed:
        await _prepare(reads, read_deadline - loop.time())
    grant = ctx.services.responses.grant()
    ctx.connection.hold(grant)
    reading = _Reading(ctx, request, reads, max_bytes, read_deadline, grant)
    total = await reading.read()
    while total < request.min_bytes and not reading.failed and loop.time() < deadline:
        watched = [r.partition.moved for r in reads if r.partition is not None]
        if not watched:
            break
        waiter = Waiter(watched)
        try:
            # One that moved while another was read will not move for us again.
            if reading.is_current and not await waiter.wait(deadline - loop.time()):
                break
        finally:
            waiter.close()
        total = await reading.read()
    if is_between(ctx.services, ((r.wanted.topic, r.wanted.index) for r in reads if r.error)):
        await ctx.services.led_on()
    return answer(ctx, request, context, reads, version)


def _wanted(request: FetchRequest, by_id: bool) -> list[SessionPartition]:
    wanted = []
    for topic in request.topics:
        key: str | UUID = (topic.topic_id or UUID(int=0)) if by_id else (topic.name or "")
        for p in topic.partitions:
            wanted.append(
                SessionPartition(
                    key,
                    p.index,
                    p.fetch_offset,
                    p.max_bytes,
                    p.current_leader_epoch,
                    p.last_fetched_epoch,
                    p.log_start_offset,
                )
            )
    return wanted


def _locate(ctx: RequestContext, wanted: SessionPartition, request: FetchRequest) -> Read:
    read = Read(wanted, FetchPartitionResponse(wanted.index))
    partitions = ctx.services.partitions
    try:
        if isinstance(wanted.topic, UUID):
            topic_id = wanted.topic if wanted.topic.int else None
            read.partition = partitions.leading_by_id(topic_id, wanted.index)
        else:
            read.partition = partitions.leading(wanted.topic, wanted.index)
        if request.replica_id >= 0:
            # No broker follows another here: whoever asks is none of the partition's replicas.
            read.partition = None
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
    except KafkaError as error:
        if error.code is ErrorCode.NOT_LEADER_OR_FOLLOWER and request.replica_id < 0:
            racks = ctx.services.racks
            read.partition = racks.find(request.rack_id, wanted.topic, wanted.index)
        if read.partition is None:
            read.error = error
    return read


async def _prepare(reads: list[Read], patience_s: float) -> None:
    """What is served here for another leader may have to ask that one first."""
    asking = [
        read.partition.ready(read.wanted.fetch_offset, patience_s)
        for read in reads
        if isinstance(read.partition, FollowedPartition)
    ]
    if asking:
        await asyncio.gather(*asking)


async def _confirm(ctx: RequestContext, reads: list[Read], patience_s: float) -> None:
    """Only a confirmed leader answers (DESIGN: reads too come only from a confirmed leader).

    When the store cannot be reached, cached records below the known high watermark still go out:
    they cannot disappear. What claims to be the newest waits for the confirmation, and is not told.
    """
    try:
        await ctx.services.confirmation.confirm(patience_s)
    except KafkaError as error:
        for read in reads:
            if read.partition is not None and read.partition.is_led:
                read.error, read.partition = error, None
    except StoreError:
        for read in reads:
            partition = read.partition
            if partition is None or not partition.is_led:
                continue
            offset = read.wanted.fetch_offset
            read.confirmed = False
            if not partition.log_start_offset <= offset <= partition.high_watermark:
                read.error = KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
                read.partition = None


class _Reading:
    """The partitions of one request, read once and again until there is enough."""

    def __init__(
        self,
        ctx: RequestContext,
        request: FetchRequest,
        reads: list[Read],
        max_bytes: int,
        deadline: float,
        grant: Grant,
    ) -> None:
        self._ctx = ctx
        self._request = request
        self._reads = reads
        self._max_bytes = max_bytes
        self._deadline = deadline
        self._grant = grant

    @property
    def failed(self) -> bool:
        """A partition has something to tell at once: an error, where the logs part, or who else
        serves it.
        """
        return any(
            read.error or read.told.diverging_epoch or read.told.preferred_read_replica >= 0
            for read in self._reads
        )

    @property
    def is_current(self) -> bool:
        """Whether no partition has moved since it was looked at."""
        return all(
            read.told.high_watermark == read.partition.high_watermark and not read.partition.closed
            for read in self._reads
            if read.partition is not None
        )

    async def read(self) -> int:
        """Read every partition anew, within the memory that there is; the bytes found."""
        least = 0
        while True:
            room = await self._grant.room(self._max_bytes, least, self._deadline)
            total = await self._read_all(room)
            if self._grant.settle(total):
                return total
            # A batch larger than all that was free: again when there is room for it.
            least = total
            for read in self._reads:
                read.told.records = ()
                read.size_bytes = 0

    async def _read_all(self, room: int | None) -> int:
        """room: bytes; None: nothing can be read now, errors and watermarks are told."""
        total = 0
        for read in self._reads:
            if read.partition is not None and read.partition.closed:
                # While we waited: gone, or led elsewhere, or opened anew.
                self._locate_anew(read)
            partition = read.partition
            if partition is None:
                continue
            read.error = None
            read.told.records = ()
            read.size_bytes = 0
            # As of now: what comes while it is read is for the next look.
            read.told.high_watermark = partition.high_watermark
            read.told.last_stable_offset = partition.last_stable_offset
            read.told.log_start_offset = partition.log_start_offset
            try:
                _check(partition, read)
                if self._is_sent_elsewhere(partition, read):
                    continue
                if read.told.diverging_epoch is None and room is not None:
                    total += await _read_one(
                        partition, read, room - total, total, self._request, self._deadline
                    )
            except KafkaError as error:
                read.error = error
                if partition.is_led and read.wanted.fetch_offset > partition.log_end_offset:
                    await self._confirm_end(read)
            except OffsetOutOfRange:
                # The log start moved past it while it was read.
                read.error = KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
            except NotFound as error:
                # What our own index names is gone: only a successor may have dropped it.
                log.error("%s-%d: %s", partition.topic, partition.index, error)
                read.error = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
                await self._confirm_end(read)
            except Corrupt as error:
                log.error("%s-%d: %s", partition.topic, partition.index, error)
                read.error = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
            except StoreError as error:
                # Clients ask again, so it would be a line for each of their attempts.
                log.debug("%s-%d: reading failed: %s", partition.topic, partition.index, error)
                read.error = KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
            except Exception:
                # One partition's trouble stays its own.
                log.exception("%s-%d: reading failed", partition.topic, partition.index)
                read.error = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
        return total

    def _is_sent_elsewhere(self, partition: Partition | FollowedPartition, read: Read) -> bool:
        read.told.preferred_read_replica = -1
        if not self._request.rack_id or not isinstance(partition, Partition):
            return False
        if read.told.diverging_epoch is None:
            read.told.preferred_read_replica = self._ctx.services.racks.preferred(
                self._request.rack_id, partition, read.wanted.fetch_offset
            )
        return read.told.preferred_read_replica >= 0

    def _locate_anew(self, read: Read) -> None:
        found = _locate(self._ctx, read.wanted, self._request)
        read.partition, read.error = found.partition, found.error
        read.told.records = ()
        read.size_bytes = 0

    async def _confirm_end(self, read: Read) -> None:
        """Before a client is told that nothing is there: a successor may have written it."""
        patience_s = self._deadline - asyncio.get_running_loop().time()
        try:
            await self._ctx.services.confirmation.confirm_anew(max(patience_s, 0))
        except (KafkaError, StoreError):
            read.error = KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)


def _check(partition: Partition | FollowedPartition, read: Read) -> None:
    wanted = read.wanted
    # Here Kafka takes every negative epoch for none, elsewhere only -1.
    partition.check_leader_epoch(max(wanted.current_leader_epoch, -1))
    read.told.diverging_epoch = None
    if wanted.last_fetched_epoch >= 0:
        # Source: KIP-320, KIP-595: where the logs part is told instead of records.
        end = partition.end_offset_for_epoch(wanted.last_fetched_epoch)
        if end.epoch < 0:
            raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
        if end.epoch < wanted.last_fetched_epoch or end.end_offset < wanted.fetch_offset:
            read.told.diverging_epoch = (end.epoch, end.end_offset)
            read.told.records = ()
            return
    partition.check_fetch_offset(wanted.fetch_offset)


async def _read_one(
    partition: Partition | FollowedPartition,
    read: Read,
    room: int,
    found_so_far: int,
    request: FetchRequest,
    deadline: float,
) -> int:
    wanted = read.wanted
    limit = min(wanted.max_bytes, room)
    if limit <= 0 and found_so_far > 0:
        read.told.records = ()
        return 0
    # After the first batch of a response, one that does not fit is left out (KIP-74).
    records = partition.read_cached(wanted.fetch_offset, max(limit, 0), request.isolation_level)
    if records is None:
        left_s = max(deadline - asyncio.get_running_loop().time(), 0.0)
        try:
            # With half of the time gone, what was found is the answer: at its end it would be lost.
            async with asyncio.timeout_at(deadline):
                records = await partition.read(
                    wanted.fetch_offset, max(limit, 0), request.isolation_level, left_s / 2
                )
        except TimeoutError:
            records = []
    size = sum(len(r) for r in records)
    if found_so_far and size > limit:
        records, size = [], 0
    read.told.records = records
    read.size_bytes = size
    if request.isolation_level:
        read.told.aborted_transactions = ()
    return size
