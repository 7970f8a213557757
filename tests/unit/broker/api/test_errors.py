"""An error that concerns a whole request is said in the way of each API, as Kafka says it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

import pytest

from broker.api.errors import error_response
from broker.request_context import Raw
from protocol import codec, messages
from protocol.api_versions import SERVED, ApiKey
from protocol.errors import ErrorCode, KafkaError
from protocol.fetch import decode_fetch
from protocol.produce import decode_produce

from ..node_rig import Rig, batch, run
from .requests import fetch, produce

CODE = int(ErrorCode.KAFKA_STORAGE_ERROR)
ID = UUID(int=7)

PARTITIONS = {"topics": [{"name": "a", "partitions": [{"partition_index": 3}]}]}
# (api, version, what is asked, where the code is expected and beside which names)
CASES: list[tuple[ApiKey, int, dict[str, Any], list[tuple[Any, ...]]]] = [
    (ApiKey.LIST_OFFSETS, 11, PARTITIONS, [("a", 3)]),
    (ApiKey.METADATA, 12, {"topics": [{"name": "a", "topic_id": ID}]}, [("a", ID)]),
    (ApiKey.METADATA, 12, {"topics": None}, []),
    (ApiKey.METADATA, 13, {"topics": [{"name": "a"}]}, [("top",), ("a",)]),
    (ApiKey.OFFSET_COMMIT, 9, PARTITIONS, [("a", 3)]),
    (
        ApiKey.OFFSET_FETCH,
        1,
        {"topics": [{"name": "a", "partition_indexes": [3, 4]}]},
        [("a", 3), ("a", 4)],
    ),
    (ApiKey.OFFSET_FETCH, 7, {"topics": None}, [("top",)]),
    (ApiKey.OFFSET_FETCH, 8, {"groups": [{"group_id": "g"}]}, [("g",)]),
    (ApiKey.FIND_COORDINATOR, 3, {"key": "g"}, [("top",)]),
    (ApiKey.FIND_COORDINATOR, 6, {"coordinator_keys": ["g", "h"]}, [("g",), ("h",)]),
    (ApiKey.DESCRIBE_GROUPS, 6, {"groups": ["g"]}, [("g",)]),
    (ApiKey.CREATE_TOPICS, 7, {"topics": [{"name": "a"}, {"name": "b"}]}, [("a",), ("b",)]),
    (ApiKey.DELETE_TOPICS, 5, {"topic_names": ["a"]}, [("a",)]),
    (ApiKey.DELETE_TOPICS, 6, {"topics": [{"name": None, "topic_id": ID}]}, [(ID,)]),
    (ApiKey.DELETE_RECORDS, 2, PARTITIONS, [("a", 3)]),
    (
        ApiKey.OFFSET_FOR_LEADER_EPOCH,
        4,
        {"topics": [{"topic": "a", "partitions": [{"partition": 3}]}]},
        [("a", 3)],
    ),
    (
        ApiKey.DESCRIBE_CONFIGS,
        4,
        {"resources": [{"resource_type": 2, "resource_name": "a"}]},
        [(2, "a")],
    ),
    (
        ApiKey.ALTER_CONFIGS,
        2,
        {"resources": [{"resource_type": 2, "resource_name": "a"}]},
        [(2, "a")],
    ),
    (
        ApiKey.INCREMENTAL_ALTER_CONFIGS,
        1,
        {"resources": [{"resource_type": 2, "resource_name": "a"}]},
        [(2, "a")],
    ),
    (ApiKey.CREATE_PARTITIONS, 3, {"topics": [{"name": "a"}]}, [("a",)]),
    (ApiKey.DELETE_GROUPS, 2, {"groups_names": ["g"]}, [("g",)]),
    (
        ApiKey.ELECT_LEADERS,
        2,
        {"topic_partitions": [{"topic": "a", "partitions": [3]}]},
        [("top",), ("a", 3)],
    ),
    (ApiKey.ALTER_PARTITION_REASSIGNMENTS, 1, PARTITIONS, [("top",), ("a", 3)]),
    (
        ApiKey.DESCRIBE_PRODUCERS,
        0,
        {"topics": [{"name": "a", "partition_indexes": [3]}]},
        [("a", 3)],
    ),
    (ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, {"topics": [{"name": "a"}]}, [("a",)]),
    (ApiKey.DESCRIBE_LOG_DIRS, 1, {"topics": None}, []),
    (ApiKey.UNREGISTER_BROKER, 0, {"broker_id": 7}, [("top",)]),
]
NAMES = ("name", "topic", "group_id", "key", "resource_type", "resource_name")
INNER = ("topic_id", "partition_index", "partition", "partition_id")


def built(kind: Any, fields: Any, values: dict[str, Any], version: int) -> Any:
    message = kind(version=version)
    for name, value in values.items():
        field = fields[name]
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = [built(field.data_class, field.fields, one, version) for one in value]
        setattr(message, name, value)
    return message


def told(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a decoded answer has the code."""
    if not path and getattr(value, "error_code", 0) == CODE:
        found: list[tuple[Any, ...]] = [("top",)]
    else:
        found = []
    for name in dir(value):
        inner = getattr(value, name, None)
        if not name.startswith("_") and isinstance(inner, list):
            for element in inner:
                here = path
                for label in (*NAMES, *INNER):
                    seen = getattr(element, label, None)
                    if seen is not None and seen != UUID(int=0):
                        here = (*here, seen)
                if getattr(element, "error_code", 0) == CODE:
                    found.append(here)
                elif not isinstance(element, str | int | bytes):
                    found += told(element, here)
    return found


@pytest.mark.parametrize(("key", "version", "asked", "expected"), CASES)
def test_the_code_is_told_of_everything_that_was_asked(
    key: ApiKey, version: int, asked: dict[str, Any], expected: list[tuple[Any, ...]]
) -> None:
    kind = codec.request_class(key)
    body = built(kind, kind.fields, asked, version).encode(version=version)
    request = codec.decode_request(key, version, memoryview(bytes(body)))
    answer = error_response(key, version, request, KafkaError(ErrorCode.KAFKA_STORAGE_ERROR))
    read = codec.response_class(key).decode(codec.encode_response(answer, version), version=version)
    assert told(read) == expected


def test_every_api_has_an_answer_in_every_version() -> None:
    for key, (first, last) in SERVED.items():
        for version in range(max(first, 3) if key == ApiKey.PRODUCE else first, last + 1):
            request: Any
            if key == ApiKey.PRODUCE:
                body = produce([("t", 0, batch())], acks=1).encode(version=version)
                request = decode_produce(memoryview(bytes(body)), version)
            elif key == ApiKey.FETCH:
                body = fetch([("t", 0, 0)]).encode(version=version)
                request = decode_fetch(memoryview(bytes(body)), version)
            else:
                body = codec.request_class(key)(version=version).encode(version=version)
                request = codec.decode_request(key, version, memoryview(bytes(body)))
            answer = error_response(
                key, version, request, KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
            )
            assert answer is not None, (key, version)
            if isinstance(answer, Raw):
                data = b"".join(bytes(part) for part in answer.buffers)
            else:
                data = codec.encode_response(answer, version)
            if key == ApiKey.API_VERSIONS:
                # Its reader takes an error for an answer in version 0.
                assert data[:2] == CODE.to_bytes(2, "big")
                continue
            read = codec.response_class(key).decode(data, version=version)
            if key in (ApiKey.PRODUCE, ApiKey.FETCH):
                assert str(read).count(f"error_code={CODE}") >= 1, (key, version)


def test_an_unforeseen_error_is_answered_and_the_connection_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client()
        dispatcher = rig.node._dispatcher
        assert dispatcher is not None

        async def broken(*_: object) -> None:
            raise RuntimeError("a bug of the test")

        for key in (ApiKey.LIST_OFFSETS, ApiKey.PRODUCE, ApiKey.FETCH):
            monkeypatch.setitem(dispatcher._handlers, key, broken)  # type: ignore[arg-type]
        asked = messages.ListOffsetsRequest(
            topics=[
                messages.ListOffsetsRequest.ListOffsetsTopic(
                    name="t",
                    partitions=[
                        messages.ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition(
                            partition_index=0
                        )
                    ],
                )
            ]
        )
        unknown = int(ErrorCode.UNKNOWN_SERVER_ERROR)
        answer = await client.ask(asked, 7)
        assert answer.topics[0].partitions[0].error_code == unknown
        answer = await client.ask(produce([("t", 0, batch())], acks=1), 9)
        assert answer.responses[0].partition_responses[0].error_code == unknown
        answer = await client.ask(fetch([("t", 0, 0)]), 11)
        assert answer.error_code == unknown
        client.send(produce([("t", 0, batch())], acks=0), 9)
        await asyncio.sleep(1)
        assert client.transport.closing

    logging.getLogger("broker").setLevel(logging.CRITICAL + 1)
    try:
        run(body)
    finally:
        logging.getLogger("broker").setLevel(logging.NOTSET)
