"""Metadata and DescribeTopicPartitions: what there is, and what comes to be by asking."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

from .groups import ready

M = ApiKey.METADATA
T = ApiKey.DESCRIBE_TOPIC_PARTITIONS
NOBODY = UUID("11111111-2222-4333-8444-555555555555")


def named(*names: str, create: bool = False, **more: Any) -> Values:
    topics = [{"name": name} for name in names]
    return {"topics": topics, "allowAutoTopicCreation": create, **more}


def cluster(s: Session, answer: Values) -> Values:
    s.names.learn_word(answer.get("clusterId") or "", "cluster id")
    return answer


@script
def metadata_every_version(s: Session) -> None:
    ready(s)
    first, first_id = s.topic("first", 3)
    second, _ = s.topic("second")

    def known(answer: Values) -> Values:
        """The topics of this script only."""
        cluster(s, answer)
        answer["topics"] = [t for t in answer["topics"] if (t["name"] or "").startswith(s.prefix)]
        return answer

    for v in versions(M):
        keep: Any = {"only": lambda a: cluster(s, a)}
        s.valid(M, v, named(first, second), **keep)
        s.valid(M, v, named(first, first), "a topic twice", **keep)
        everything: Values = {"topics": [] if v == 0 else None}
        s.valid(M, v, everything, "all topics", only=known)
        if v > 0:
            s.valid(M, v, named(), "no topics", **keep)
        if v >= 8:
            body = named(first, includeTopicAuthorizedOperations=True)
            s.valid(M, v, body, "topic operations", **keep)
        if 8 <= v <= 10:
            body = named(first, includeClusterAuthorizedOperations=True)
            s.valid(M, v, body, "cluster operations", **keep)
        if v >= 12:
            by_id: Values = {"topics": [{"topicId": first_id, "name": None}]}
            s.valid(M, v, by_id, "by id", **keep)
        s.valid(M, v, named("__consumer_offsets"), "internal topic", only=internal(s))


def internal(s: Session) -> Any:
    def only(answer: Values) -> Values:
        for topic in cluster(s, answer)["topics"]:
            if "topicId" in topic:
                s.names.learn(topic["topicId"], "id of the offsets topic")
        return answer

    return only


@script
def metadata_refusals(s: Session) -> None:
    first, first_id = s.topic("first")
    keep: Any = {"only": lambda a: cluster(s, a)}
    for v in versions(M):
        if v >= 4:
            s.error(M, v, "unknown topic", named(s.name("missing")), **keep)
            both = named(s.name("missing"), first)
            s.error(M, v, "one unknown topic of two", both, **keep)
        s.error(M, v, "bad name", named("a/b", create=True), **keep)
        s.error(M, v, "empty name", named("", create=True), **keep)
        s.error(M, v, "name too long", named("x" * 250, create=True), **keep)
        if v >= 12:
            unknown: Values = {"topics": [{"topicId": NOBODY, "name": None}]}
            s.error(M, v, "unknown id", unknown, **keep)
            both = {"topics": [{"topicId": NOBODY, "name": first}]}
            s.error(M, v, "id and name", both, **keep)
            zero: Values = {"topics": [{"topicId": UUID(int=0), "name": None}]}
            s.error(M, v, "neither id nor name", zero, **keep)
            mixed: Values = {"topics": [{"topicId": first_id, "name": None}, {"name": first}]}
            s.valid(M, v, mixed, "ids and names mixed", **keep)
        if 10 <= v < 12:
            early: Values = {"topics": [{"topicId": first_id, "name": first}]}
            s.error(M, v, "id before version 12", early, **keep)


def learning(s: Session) -> Any:
    def only(answer: Values) -> Values:
        for topic in cluster(s, answer)["topics"]:
            if topic.get("topicId", UUID(int=0)).int:
                s.names.learn(topic["topicId"], f"id of {topic['name']}")
        return answer

    return only


@script
def metadata_creates_topics(s: Session) -> None:
    for v in versions(M):
        name = s.name(f"v{v}")
        if v >= 4:
            s.error(M, v, "creation not wanted", named(name), only=lambda a: cluster(s, a))
        s.error(M, v, "creation wanted", named(name, create=True), only=learning(s))
        s.wait_for(name)
        s.connection.send(M, 12, named(name))
        (made,) = s.connection.receive()["topics"]
        s.names.learn(made["topicId"], f"id of {name}")
        s.valid(M, v, named(name), "after its creation", only=lambda a: cluster(s, a))


@script
def metadata_creates_one_topic_for_many(s: Session) -> None:
    name = s.name("wanted-by-many")

    def ask() -> None:
        with s.another() as c:
            for _ in range(5):
                c.send(M, 12, named(name, create=True))
                c.receive()

    with ThreadPoolExecutor(8) as threads:
        for asking in [threads.submit(ask) for _ in range(8)]:
            asking.result()
    s.wait_for(name)
    ids = set()
    for _ in range(5):
        s.connection.send(M, 12, named(name))
        (topic,) = s.connection.receive()["topics"]
        ids.add(topic["topicId"])
    s.note(M, 12, "eight clients create one topic", {"ids": len(ids)})


@script
def describe_topic_partitions(s: Session) -> None:
    a, _ = s.topic("a", 3)
    b, _ = s.topic("b", 2)
    missing = s.name("aa-missing")

    def body(*names: str, limit: int = 2000, cursor: tuple[str, int] | None = None) -> Values:
        at = None if cursor is None else {"topicName": cursor[0], "partitionIndex": cursor[1]}
        topics = [{"name": name} for name in names]
        return {"topics": topics, "responsePartitionLimit": limit, "cursor": at}

    def known(answer: Values) -> Values:
        answer["topics"] = [t for t in answer["topics"] if (t["name"] or "").startswith(s.prefix)]
        return answer

    for v in versions(T):
        s.valid(T, v, body(a, b))
        s.valid(T, v, body(b, a), "names in another order")
        s.valid(T, v, body(a, a), "a topic twice")
        s.valid(T, v, body(), "all topics", only=known)
        s.error(T, v, "unknown topic", body(missing, b))
        s.error(T, v, "bad name", body("a/b"))
        s.error(T, v, "empty name", body(""))
        s.valid(T, v, body(a, b, limit=1), "limit 1")
        s.valid(T, v, body(a, b, limit=3), "limit at a topic's end")
        s.valid(T, v, body(a, b, limit=4), "limit inside a topic")
        s.valid(T, v, body(a, b, limit=0), "limit 0")
        s.valid(T, v, body(a, b, limit=-1), "limit -1")
        s.valid(T, v, body(a, b, limit=2, cursor=(a, 1)), "cursor")
        s.valid(T, v, body(a, b, limit=2, cursor=(a, 2)), "cursor near a topic's end")
        s.valid(T, v, body(a, b, cursor=(b, 1)), "cursor in a later topic")
        s.valid(T, v, body(a, b, cursor=(a, 9)), "cursor beyond a topic's end")
        s.error(T, v, "cursor at a topic that is not asked", body(a, cursor=(b, 0)))
        s.valid(T, v, body(cursor=(s.name("aaa"), 0)), "cursor between all topics", only=known)
        s.error(T, v, "cursor at a negative partition", body(a, b, cursor=(a, -1)))
        s.valid(T, v, body(missing, a, limit=1), "limit reached before an unknown topic")
