"""CreateTopics (19, served 2-7), DeleteTopics (20, 1-6), CreatePartitions (37, 0-3).

The checks of a request's form are here, in Kafka's order; what needs the metadata is decided by
the controller, whose answer is durable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from broker.controller import NewTopic
from broker.request_context import RequestContext
from protocol.errors import ErrorCode, KafkaError
from protocol.messages import (
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteTopicsResponse,
)
from s3stream.metadata.image import MetadataImage, TopicImage

_ZERO_ID = UUID(int=0)
_Result = CreateTopicsResponse.CreatableTopicResult


async def create_topics(ctx: RequestContext, request: Any, version: int) -> Any:
    """A topic named twice is refused and created not once."""
    names = Counter(topic.name for topic in request.topics)
    results: dict[str, TopicImage | KafkaError] = {}
    wanted: list[NewTopic] = []
    for topic in request.topics:
        if names[topic.name] > 1:
            results[topic.name] = KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
            continue
        results[topic.name] = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
        wanted.append(
            NewTopic(
                name=topic.name,
                partitions=topic.num_partitions,
                replication_factor=topic.replication_factor,
                assignments=[(a.partition_index, tuple(a.broker_ids)) for a in topic.assignments],
                configs={c.name: c.value for c in topic.configs},
            )
        )
    decided: Sequence[TopicImage | KafkaError]
    try:
        decided = await ctx.services.controller.create_topics(
            wanted, validate_only=request.validate_only
        )
    except KafkaError as error:
        # What concerns the whole request is told of each topic, since there is no other place.
        decided = [error] * len(wanted)
    for new, outcome in zip(wanted, decided, strict=True):
        results[new.name] = outcome
    if not request.validate_only:
        await ctx.services.settled()
    answers = [
        _created(ctx, name, outcome, request.validate_only, version)
        for name, outcome in results.items()
    ]
    return CreateTopicsResponse(topics=answers, version=version)


def _created(
    ctx: RequestContext,
    name: str,
    outcome: TopicImage | KafkaError,
    validate_only: bool,
    version: int,
) -> Any:
    if isinstance(outcome, KafkaError):
        return _Result(
            name=name,
            topic_id=_ZERO_ID,
            error_code=int(outcome.code),
            error_message=outcome.message,
            num_partitions=-1,
            replication_factor=-1,
            configs=[] if version >= 5 else None,
            version=version,
        )
    answer = _Result(
        name=name,
        topic_id=_ZERO_ID if validate_only else outcome.topic_id,
        error_code=0,
        error_message=None,
        version=version,
    )
    if version >= 5:
        answer.num_partitions = len(outcome.partitions)
        answer.replication_factor = outcome.replication_factor
        config = ctx.services.topic_config(outcome)
        answer.configs = [
            _Result.CreatableTopicConfigs(
                name=entry.name,
                value=entry.value,
                read_only=entry.read_only,
                config_source=int(entry.source),
                is_sensitive=entry.sensitive,
                version=version,
            )
            for entry in sorted(config.describe(), key=lambda entry: entry.name)
        ]
    return answer


async def delete_topics(ctx: RequestContext, request: Any, version: int) -> Any:
    """By name, and from v6 on by id. What is named twice is refused, and told once."""
    if version >= 6:
        asked = [(t.name, t.topic_id or _ZERO_ID) for t in request.topics]
    else:
        asked = [(name, _ZERO_ID) for name in request.topic_names]
    if not ctx.services.config.flag("delete.topic.enable"):
        return _deletion_disabled(asked, version)
    times = Counter(asked)
    answers: list[tuple[str | None, UUID, KafkaError | None]] = []
    wanted: dict[UUID, str] = {}
    if not all(_is_known(ctx.services.image, name, topic_id) for name, topic_id in times):
        try:
            # Made a moment ago elsewhere, perhaps: who decides knows what there is.
            await ctx.services.controller.delete_topics([])
        except KafkaError as error:
            return _delete_response([(*one, error) for one in times], version)
    image = ctx.services.image
    by_name: list[str] = []
    for name, topic_id in times:
        refused = _form_error(name, topic_id, times[name, topic_id])
        if refused is not None:
            answers.append((name, topic_id, refused))
        elif name is not None:
            by_name.append(name)
        else:
            topic = image.topic_by_id(topic_id)
            if topic is None:
                answers.append((None, topic_id, _unknown(ErrorCode.UNKNOWN_TOPIC_ID)))
            else:
                wanted[topic_id] = topic.name
    for name in by_name:
        topic = image.topics.get(name)
        if topic is None:
            answers.append((name, _ZERO_ID, _unknown(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)))
        elif topic.topic_id in wanted:
            del wanted[topic.topic_id]
            answers.append((name, topic.topic_id, KafkaError(ErrorCode.INVALID_REQUEST, _BOTH)))
        else:
            wanted[topic.topic_id] = name
    if wanted:
        outcomes: Sequence[TopicImage | KafkaError]
        try:
            outcomes = await ctx.services.controller.delete_topics(list(wanted))
        except KafkaError as error:
            outcomes = [error] * len(wanted)
        for (topic_id, name), outcome in zip(wanted.items(), outcomes, strict=True):
            failed = outcome if isinstance(outcome, KafkaError) else None
            answers.append((name, topic_id, failed))
    return _delete_response(answers, version)


def _is_known(image: MetadataImage, name: str | None, topic_id: UUID) -> bool:
    return image.topic_by_id(topic_id) is not None if name is None else name in image.topics


def _delete_response(
    answers: list[tuple[str | None, UUID, KafkaError | None]], version: int
) -> Any:
    return DeleteTopicsResponse(
        responses=[
            DeleteTopicsResponse.DeletableTopicResult(
                name=name,
                topic_id=topic_id,
                error_code=int(error.code) if error is not None else 0,
                error_message=error.message if error is not None else None,
                version=version,
            )
            for name, topic_id, error in answers
        ],
        version=version,
    )


def _deletion_disabled(asked: list[tuple[str | None, UUID]], version: int) -> Any:
    """`delete.topic.enable=false`: one code for all; v1 and v2 have no code of its own for it."""
    disabled = ErrorCode.TOPIC_DELETION_DISABLED if version >= 3 else ErrorCode.INVALID_REQUEST
    return DeleteTopicsResponse(
        responses=[
            DeleteTopicsResponse.DeletableTopicResult(
                name=name,
                topic_id=topic_id,
                error_code=int(disabled),
                error_message=None,
                version=version,
            )
            for name, topic_id in asked
        ],
        version=version,
    )


def _form_error(name: str | None, topic_id: UUID, times: int) -> KafkaError | None:
    message = None
    if name is not None and topic_id.int:
        message = "You may not specify both topic name and topic id."
    elif name is None and not topic_id.int:
        message = "Neither topic name nor id were specified."
    elif times > 1:
        message = "Duplicate topic id." if name is None else "Duplicate topic name."
    return None if message is None else KafkaError(ErrorCode.INVALID_REQUEST, message)


def _unknown(code: ErrorCode) -> KafkaError:
    return KafkaError(code, _UNKNOWN[code])


_BOTH = "The provided topic name maps to an ID that was already supplied."
_UNKNOWN = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "This server does not host this topic-partition.",
    ErrorCode.UNKNOWN_TOPIC_ID: "This server does not host this topic ID.",
}


async def create_partitions(ctx: RequestContext, request: Any, version: int) -> Any:
    """Only ever more partitions."""
    names = Counter(topic.name for topic in request.topics)
    results: dict[str, KafkaError | None] = {}
    for topic in request.topics:
        if names[topic.name] > 1:
            results[topic.name] = KafkaError(ErrorCode.INVALID_REQUEST, "Duplicate topic name.")
            continue
        assignments = None
        if topic.assignments is not None:
            assignments = [list(a.broker_ids) for a in topic.assignments]
        try:
            await ctx.services.controller.create_partitions(
                topic.name, topic.count, assignments, validate_only=request.validate_only
            )
            results[topic.name] = None
        except KafkaError as error:
            results[topic.name] = error
    await ctx.services.settled()
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsResponse.CreatePartitionsTopicResult(
                name=name,
                error_code=int(error.code) if error is not None else 0,
                error_message=error.message if error is not None else None,
                version=version,
            )
            for name, error in results.items()
        ],
        version=version,
    )
