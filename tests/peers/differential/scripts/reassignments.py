"""Reassigning partitions, as far as one broker can: to itself, to nobody, and not at all."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

A = ApiKey.ALTER_PARTITION_REASSIGNMENTS
L = ApiKey.LIST_PARTITION_REASSIGNMENTS

Wish = tuple[str, int, Sequence[int] | None]


def alter(*wishes: Wish, factor: bool | None = None) -> Values:
    """wishes: topic, partition, brokers (None cancels). factor: whether it may change."""
    topics: dict[str, list[Values]] = {}
    for topic, index, brokers in wishes:
        replicas = None if brokers is None else list(brokers)
        topics.setdefault(topic, []).append({"partitionIndex": index, "replicas": replicas})
    body: Values = {
        "timeoutMs": 10_000,
        "topics": [{"name": name, "partitions": found} for name, found in topics.items()],
    }
    return body if factor is None else {**body, "allowReplicationFactorChange": factor}


@script
def alter_partition_reassignments(s: Session) -> None:
    topic, _ = s.topic(partitions=3)
    missing = s.name("missing")
    s.connection.send(ApiKey.METADATA, 4, {"topics": []})
    (broker,) = s.connection.receive()["brokers"]
    me = broker["nodeId"]
    for v in versions(A):
        s.valid(A, v, alter((topic, 0, [me])))
        s.valid(A, v, alter((topic, 0, [me]), (topic, 2, [me])), "two partitions")
        s.valid(A, v, alter((topic, 0, [me]), (topic, 0, [me])), "a partition twice")
        s.valid(A, v, alter(), "no topics")
        s.valid(A, v, {"timeoutMs": 10_000, "topics": [{"name": topic}]}, "no partitions")
        if v >= 1:
            s.valid(A, v, alter((topic, 0, [me]), factor=False), "the same factor")
            s.error(A, v, "unknown broker, same factor", alter((topic, 0, [99]), factor=False))
        s.error(A, v, "nothing to cancel", alter((topic, 0, None)))
        s.error(A, v, "no brokers", alter((topic, 0, [])))
        s.error(A, v, "a broker twice", alter((topic, 0, [me, me])))
        s.error(A, v, "unknown broker", alter((topic, 0, [99])))
        s.error(A, v, "one unknown broker of two", alter((topic, 0, [me, 99])))
        s.error(A, v, "negative broker", alter((topic, 0, [-1])))
        s.error(A, v, "unknown partition", alter((topic, 9, [me])))
        s.error(A, v, "negative partition", alter((topic, -1, [me])))
        s.error(A, v, "unknown topic", alter((missing, 0, [me])))
        s.error(A, v, "cancel for an unknown topic", alter((missing, 0, None)))
        s.error(A, v, "empty name", alter(("", 0, [me])))
        three = alter((topic, 0, [me]), (topic, 1, None), (missing, 0, [me]))
        s.error(A, v, "one good of three", three)


@script
def list_partition_reassignments(s: Session) -> None:
    topic, _ = s.topic(partitions=2)

    def asked(*named: tuple[str, list[int]]) -> Values:
        topics = [{"name": name, "partitionIndexes": indexes} for name, indexes in named]
        return {"timeoutMs": 10_000, "topics": topics}

    for v in versions(L):
        s.valid(L, v, asked((topic, [0, 1])))
        s.valid(L, v, {**asked(), "topics": None}, "everything")
        s.valid(L, v, asked(), "no topics")
        s.valid(L, v, asked((topic, [9])), "unknown partition")
        s.valid(L, v, asked((s.name("missing"), [0])), "unknown topic")
        s.valid(L, v, asked(("", [0])), "empty name")
