"""The answer of an API to an error that concerns the whole request.

Kafka gives each request class a `getErrorResponse`: some answers have one code at their top, some
repeat it for every element that was asked for, two do both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.request_context import Raw
from protocol import codec
from protocol.api_versions import ApiKey
from protocol.errors import KafkaError
from protocol.fetch import (
    FetchPartitionResponse,
    FetchRequest,
    FetchTopicResponse,
    encode_fetch_response,
)
from protocol.produce import (
    ProducePartitionResponse,
    ProduceRequest,
    ProduceTopicResponse,
    encode_produce_response,
)


@dataclass(frozen=True, slots=True)
class _Level:
    """answered: an array of the response. asked: the one of the request that it repeats.

    bare: where an element of the request is no struct but one value, the field that it is.
    """

    answered: str
    asked: tuple[str, ...]
    bare: str = ""


_TOPICS = _Level("topics", ("topics",))
_PARTITIONS = _Level("partitions", ("partitions",))
_INDEXES = _Level("partitions", ("partition_indexes",), "partition_index")

# From the outermost array to the one whose elements have the code.
_ELEMENTS: Mapping[int, tuple[_Level, ...]] = {
    ApiKey.LIST_OFFSETS: (_TOPICS, _PARTITIONS),
    ApiKey.METADATA: (_TOPICS,),
    ApiKey.OFFSET_COMMIT: (_TOPICS, _PARTITIONS),
    ApiKey.FIND_COORDINATOR: (_Level("coordinators", ("coordinator_keys",), "key"),),
    ApiKey.DESCRIBE_GROUPS: (_Level("groups", ("groups",), "group_id"),),
    ApiKey.CREATE_TOPICS: (_TOPICS,),
    ApiKey.DELETE_TOPICS: (_Level("responses", ("topics", "topic_names"), "name"),),
    ApiKey.DELETE_RECORDS: (_TOPICS, _PARTITIONS),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: (_TOPICS, _PARTITIONS),
    ApiKey.DESCRIBE_CONFIGS: (_Level("results", ("resources",)),),
    ApiKey.ALTER_CONFIGS: (_Level("responses", ("resources",)),),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: (_Level("responses", ("resources",)),),
    ApiKey.CREATE_PARTITIONS: (_Level("results", ("topics",)),),
    ApiKey.DELETE_GROUPS: (_Level("results", ("groups_names",), "group_id"),),
    ApiKey.ELECT_LEADERS: (
        _Level("replica_election_results", ("topic_partitions",)),
        _Level("partition_result", ("partitions",), "partition_id"),
    ),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: (_Level("responses", ("topics",)), _PARTITIONS),
    ApiKey.DESCRIBE_PRODUCERS: (_TOPICS, _INDEXES),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: (_TOPICS,),
}
# With a code at the top too.
_BOTH = (ApiKey.METADATA, ApiKey.ELECT_LEADERS, ApiKey.ALTER_PARTITION_REASSIGNMENTS)

# What says which element it is; everything else that an element was asked with is not repeated.
_NAMES = (
    "name",
    "topic",
    "topic_id",
    "partition",
    "partition_index",
    "resource_type",
    "resource_name",
    "group_id",
)
# Where "there is none" is not what the schema has as its default.
_NONE: Mapping[int, Mapping[str, Any]] = {
    ApiKey.FIND_COORDINATOR: {"node_id": -1, "port": -1},
    ApiKey.OFFSET_FETCH: {"committed_offset": -1},
    ApiKey.DELETE_RECORDS: {"low_watermark": -1},
    ApiKey.INIT_PRODUCER_ID: {"producer_epoch": -1},
}


def error_response(api_key: int, version: int, request: Any, error: KafkaError) -> Any | None:
    """A message or Raw that says the error; None where a closed connection says it."""
    if api_key == ApiKey.PRODUCE:
        return _produce(request, version, error)
    if api_key == ApiKey.FETCH:
        return _fetch(request, version, error)
    response_class = codec.response_class(api_key)
    response = response_class(version=version)
    has_top = _tell(response, response_class.fields, api_key, version, error)
    if not has_top or api_key in _BOTH:
        levels = _levels(api_key, version)
        if levels:
            _repeat(response, response_class.fields, levels, request, api_key, version, error)
    return response


def _levels(api_key: int, version: int) -> tuple[_Level, ...]:
    if api_key == ApiKey.OFFSET_FETCH:
        # Between the two its code is at the top.
        return (_Level("groups", ("groups",)),) if version >= 8 else (_TOPICS, _INDEXES)
    return _ELEMENTS.get(api_key, ())


def _tell(
    said: Any, fields: Mapping[str, Any], api_key: int, version: int, error: KafkaError
) -> bool:
    """Whether there is a place for the code."""
    code = fields.get("error_code")
    if code is None or not code.for_version_q(version):
        return False
    said.error_code = int(error.code)
    message = fields.get("error_message")
    if message is not None and message.for_version_q(version):
        said.error_message = error.message
    for name, value in _NONE.get(api_key, {}).items():
        if name in fields:
            setattr(said, name, value)
    return True


def _repeat(
    said: Any,
    fields: Mapping[str, Any],
    levels: tuple[_Level, ...],
    asked: Any,
    api_key: int,
    version: int,
    error: KafkaError,
) -> None:
    level = levels[0]
    array = fields[level.answered]
    elements = []
    for wanted in _asked(asked, level):
        element = array.data_class(version=version)
        if isinstance(wanted, str | int):
            setattr(element, level.bare, wanted)
        else:
            for name in _NAMES:
                if name in array.fields and hasattr(wanted, name):
                    setattr(element, name, getattr(wanted, name))
        if len(levels) > 1:
            _repeat(element, array.fields, levels[1:], wanted, api_key, version, error)
        else:
            _tell(element, array.fields, api_key, version, error)
        elements.append(element)
    setattr(said, level.answered, elements)


def _asked(asked: Any, level: _Level) -> list[Any]:
    """Elements of the array that this version of the request has; null asks for none by name."""
    for name in level.asked:
        if elements := getattr(asked, name, None):
            return list(elements)
    return []


def _produce(request: ProduceRequest, version: int, error: KafkaError) -> Raw | None:
    if request.acks == 0:
        return None
    topics = []
    for topic in request.topics:
        answer = ProduceTopicResponse(topic.name, topic.topic_id)
        for partition in topic.partitions:
            told = ProducePartitionResponse(partition.index, int(error.code))
            told.error_message = error.message
            answer.partitions.append(told)
        topics.append(answer)
    return Raw([encode_produce_response(version, topics)])


def _fetch(request: FetchRequest, version: int, error: KafkaError) -> Raw:
    topics = []
    # From 13 on the code at the top says it all.
    for topic in request.topics if version < 13 else ():
        answer = FetchTopicResponse(topic.name, topic.topic_id)
        for partition in topic.partitions:
            answer.partitions.append(FetchPartitionResponse(partition.index, int(error.code)))
        topics.append(answer)
    return Raw(encode_fetch_response(version, topics, error_code=int(error.code)))
