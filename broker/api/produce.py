"""Produce (key 0), served 3-13; 0-2 are advertised and refused, as Kafka does.

Versions: see protocol.produce. Batches get their offsets in the order of the request before the
handler first awaits storage; the answer is a `Later`, so the connection's next request starts.

acks=1 and acks=all both wait until the batch is in object storage; acks=0 has no answer, and an
error closes the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from functools import partial
from uuid import UUID

from broker.api.led_on import is_between
from broker.leadership import endpoint_of, leader_node, partition_image
from broker.outcome import CloseConnection
from broker.partition.partition import Partition, PendingAppend
from broker.request_context import Later, LaterDone, Raw, RequestContext
from objectstore.errors import StoreError
from protocol import record_batch
from protocol.errors import ErrorCode, KafkaError, MalformedFrame
from protocol.primitives import NodeEndpoint
from protocol.produce import (
    ProducePartition,
    ProducePartitionResponse,
    ProduceRequest,
    ProduceTopic,
    ProduceTopicResponse,
    encode_produce_response,
)
from protocol.record_batch import HEADER_SIZE, MAGIC, TRANSACTIONAL_BIT, RefusedBatch
from s3stream.back_pressure import Admission
from wal.errors import LogError

log = logging.getLogger(__name__)

ADMIN_CLIENT_ID = "__admin_client"
_VALID_ACKS = (-1, 0, 1)
# Position of the byte of a batch that has the attributes' lower bits (protocol.batch_header).
_LOW_ATTRIBUTES = 22
# What a producer must believe at once, and so only a leader that nobody has replaced may say.
_CLAIMS_OF_LEADERS = (
    ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
    ErrorCode.INVALID_PRODUCER_EPOCH,
)
_FOUND_BEFORE_THE_LOG = frozenset(
    {
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        ErrorCode.INVALID_REQUIRED_ACKS,
        ErrorCode.INVALID_TXN_STATE,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.REQUEST_TIMED_OUT,
    }
)

Waiting = list[tuple[ProducePartitionResponse, asyncio.Future[int]]]


async def handle(
    ctx: RequestContext, request: ProduceRequest, version: int
) -> Later | LaterDone | Raw | None:
    """Sequence every batch, then answer when all are durable or the time is over."""
    if version < 3:
        raise MalformedFrame(f"Produce version {version} is not served")
    deadline = asyncio.get_running_loop().time() + max(request.timeout_ms, 0) / 1000
    if request.transactional_id is None and _is_transactional(request):
        # Before anything else is looked at, and for the whole request, as Kafka answers it.
        raise KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    if is_between(ctx.services, _places(request)):
        await ctx.services.led_on()
    refused: ErrorCode | None = None
    admission: Admission | None = None
    try:
        admission = await _admit(ctx, request, deadline)
        if admission is None:
            refused = ErrorCode.REQUEST_TIMED_OUT
    except LogError:
        # Somebody else took over, or this broker ends.
        refused = ErrorCode.NOT_LEADER_OR_FOLLOWER
    waiting: Waiting = []
    hints: dict[int, NodeEndpoint] = {}
    try:
        topics = [
            _append_topic(ctx, request, topic, version, refused, waiting, hints)
            for topic in request.topics
            if topic.partitions
        ]
    finally:
        if admission is not None:
            _release(admission, waiting)
    if request.acks == 0:
        failed = [p for t in topics for p in t.partitions if p.error_code]
        if failed:
            raise CloseConnection(
                f"produce with acks=0 failed: {ErrorCode(failed[0].error_code).name}"
            )
        return None
    doubtful = [p for t in topics for p in t.partitions if p.error_code in _CLAIMS_OF_LEADERS]
    if not doubtful and all(future.done() for _, future in waiting):
        _settle(waiting)
        return _encode(version, topics, hints)
    if doubtful:
        return Later(_confirm_and_finish(ctx, version, topics, waiting, doubtful, hints, deadline))
    return LaterDone(_futures(waiting), deadline, partial(_finish, version, topics, waiting, hints))


def _places(request: ProduceRequest) -> Iterator[tuple[str | UUID, int]]:
    for topic in request.topics:
        key = topic.name if topic.name is not None else topic.topic_id
        for wanted in topic.partitions:
            if key is not None:
                yield key, wanted.index


async def _admit(ctx: RequestContext, request: ProduceRequest, deadline: float) -> Admission | None:
    """Wait for room in the log cache, at most the request's timeout; acks=0 waits for ever."""
    storage = ctx.services.storage
    size = sum(len(p.records) for t in request.topics for p in t.partitions if p.records)
    admission = storage.try_admit(size)
    if admission is not None:
        return admission
    if request.acks == 0:
        return await storage.admit(size)
    try:
        async with asyncio.timeout_at(deadline):
            return await storage.admit(size)
    except TimeoutError:
        return None


def _release(admission: Admission, waiting: Waiting) -> None:
    """What was appended is counted by the log cache from here on; the rest not before it lands."""
    left = [future for told, future in waiting if told.base_offset < 0 and not future.done()]
    if not left:
        admission.release()
        return

    def landed(future: asyncio.Future[int]) -> None:
        left.remove(future)
        if not left:
            admission.release()

    for future in list(left):
        future.add_done_callback(landed)


def _is_transactional(request: ProduceRequest) -> bool:
    """Whether any record set begins with a transactional batch, whatever else is wrong with it."""
    sets = (p.records for t in request.topics for p in t.partitions if p.records is not None)
    return any(
        records[_LOW_ATTRIBUTES] & TRANSACTIONAL_BIT
        for records in sets
        if len(records) >= HEADER_SIZE and records[16] == MAGIC
    )


def _append_topic(
    ctx: RequestContext,
    request: ProduceRequest,
    topic: ProduceTopic,
    version: int,
    refused: ErrorCode | None,
    waiting: Waiting,
    hints: dict[int, NodeEndpoint],
) -> ProduceTopicResponse:
    answer = ProduceTopicResponse(topic.name, topic.topic_id)
    for wanted in topic.partitions:
        told = ProducePartitionResponse(wanted.index)
        answer.partitions.append(told)
        partition: Partition | None = None
        try:
            partition = _find(ctx, topic, wanted.index, request.acks)
            if refused is not None:
                raise KafkaError(refused)
            pending = _append(partition, wanted, version)
        except KafkaError as error:
            _refuse(ctx, topic, told, error, version, hints, partition)
            continue
        except Exception:
            # One partition's trouble stays its own.
            log.exception("%s-%d: appending failed", topic.name or topic.topic_id, wanted.index)
            unforeseen = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
            _refuse(ctx, topic, told, unforeseen, version, hints, partition)
            continue
        told.base_offset = pending.base_offset
        told.log_append_time_ms = pending.log_append_time_ms
        told.log_start_offset = pending.log_start_offset
        if pending.durable is not None:
            waiting.append((told, pending.durable))
    return answer


def _find(ctx: RequestContext, topic: ProduceTopic, index: int, acks: int) -> Partition:
    if acks not in _VALID_ACKS:
        raise KafkaError(ErrorCode.INVALID_REQUIRED_ACKS)
    partitions = ctx.services.partitions
    if topic.name is not None:
        partition = partitions.leading(topic.name, index)
    else:
        partition = partitions.leading_by_id(topic.topic_id, index)
    if partition.internal and ctx.client_id != ADMIN_CLIENT_ID:
        raise KafkaError(
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            detail=f"Cannot append to internal topic {partition.topic}",
        )
    return partition


def _append(partition: Partition, wanted: ProducePartition, version: int) -> PendingAppend:
    records = wanted.records
    header = record_batch.check_produced(records, version, partition.config.max_message_bytes)
    assert records is not None
    if header.size_bytes < len(records):
        records = records[: header.size_bytes]
    return partition.append_as_leader(records, header)


def _refuse(
    ctx: RequestContext,
    topic: ProduceTopic,
    told: ProducePartitionResponse,
    error: KafkaError,
    version: int,
    hints: dict[int, NodeEndpoint],
    partition: Partition | None,
) -> None:
    told.error_code = int(error.code)
    if partition is not None and _names_log_start(error):
        told.log_start_offset = partition.log_start_offset
    told.error_message = error.message
    told.record_errors = list(getattr(error, "record_errors", ()))
    if version >= 10 and error.code is ErrorCode.NOT_LEADER_OR_FOLLOWER:
        image = ctx.services.image
        found = (
            image.topics.get(topic.name)
            if topic.name is not None
            else image.topic_by_id(topic.topic_id or UUID(int=0))
        )
        led = partition_image(found, told.index)
        if led is not None:
            node_id = leader_node(image, led)
            told.current_leader = (node_id, led.leader_epoch)
            endpoint = endpoint_of(image, node_id, ctx.listener)
            if endpoint is not None:
                hints[node_id] = endpoint


def _names_log_start(error: KafkaError) -> bool:
    """Whether the answer has the log start offset: with what Kafka finds out in the log."""
    if isinstance(error, RefusedBatch):
        return error.names_log_start
    return error.code not in _FOUND_BEFORE_THE_LOG


def _settle(waiting: Waiting) -> None:
    """Turn the futures' outcomes into codes; one that is not done timed out."""
    for told, future in waiting:
        if not future.done():
            code = ErrorCode.REQUEST_TIMED_OUT
        elif future.cancelled():
            code = ErrorCode.NOT_LEADER_OR_FOLLOWER
        elif (error := future.exception()) is not None:
            # The log was ended by somebody else: whether the batch counts, they decide.
            code = ErrorCode.NOT_LEADER_OR_FOLLOWER
            if isinstance(error, KafkaError):
                code = error.code
        else:
            if told.base_offset < 0:
                told.base_offset = future.result()
            continue
        told.error_code = int(code)
        told.base_offset = told.log_append_time_ms = told.log_start_offset = -1


def _futures(waiting: Waiting) -> list[asyncio.Future[int]]:
    # One future for each log object, so there are few; a dict, since a set has no order.
    return list(dict.fromkeys(future for _, future in waiting))


def _finish(
    version: int,
    topics: list[ProduceTopicResponse],
    waiting: Waiting,
    hints: dict[int, NodeEndpoint],
) -> Raw:
    _settle(waiting)
    return _encode(version, topics, hints)


async def _confirm_and_finish(
    ctx: RequestContext,
    version: int,
    topics: list[ProduceTopicResponse],
    waiting: Waiting,
    doubtful: list[ProducePartitionResponse],
    hints: dict[int, NodeEndpoint],
    deadline: float,
) -> Raw:
    await _confirm(ctx, doubtful, deadline)
    left = deadline - asyncio.get_running_loop().time()
    if waiting:
        await asyncio.wait(_futures(waiting), timeout=max(left, 0))
    return _finish(version, topics, waiting, hints)


async def _confirm(
    ctx: RequestContext, doubtful: list[ProducePartitionResponse], deadline: float
) -> None:
    """A leader that was replaced knows old sequences: what it takes for a gap may be none.

    Clients give up their producer id at such an answer, and then send what is there again.
    """
    try:
        async with asyncio.timeout_at(deadline):
            await ctx.services.confirmation.confirm_anew()
    except KafkaError as error:
        code = error.code
    except (StoreError, TimeoutError):
        code = ErrorCode.REQUEST_TIMED_OUT
    else:
        return
    for told in doubtful:
        told.error_code = int(code)
        told.error_message = None


def _encode(
    version: int, topics: list[ProduceTopicResponse], hints: dict[int, NodeEndpoint]
) -> Raw:
    endpoints = [hints[node_id] for node_id in sorted(hints)]
    return Raw([encode_produce_response(version, topics, 0, endpoints)])
