"""CreateTopics, DeleteTopics, CreatePartitions: what is made, and every way to ask wrongly."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

C = ApiKey.CREATE_TOPICS
D = ApiKey.DELETE_TOPICS
P = ApiKey.CREATE_PARTITIONS
NOBODY = UUID("11111111-2222-4333-8444-555555555555")


def new(
    name: str, partitions: int = 1, factor: int = 1, assignments: Any = (), **configs: str | None
) -> Values:
    return {
        "name": name,
        "numPartitions": partitions,
        "replicationFactor": factor,
        "assignments": [{"partitionIndex": i, "brokerIds": ids} for i, ids in assignments],
        "configs": [{"name": k.replace("_", "."), "value": v} for k, v in configs.items()],
    }


def create_body(*topics: Values, validate: bool = False) -> Values:
    return {"topics": list(topics), "timeoutMs": 10_000, "validateOnly": validate}


def learn(s: Session, answer: Values) -> Values:
    """Remember the ids of what was made, before they are written down."""
    for topic in answer["topics"]:
        if not topic["errorCode"] and topic.get("topicId", UUID(int=0)).int:
            s.names.learn(topic["topicId"], f"id of {topic['name']}")
    return answer


def without_configs(answer: Values) -> Values:
    for topic in answer["topics"]:
        if topic.get("configs"):
            topic["configs"] = "some"
    return answer


@script
def create_topics_every_version(s: Session) -> None:
    for v in versions(C):

        def made(case: str, *topics: Values, v: int = v, **more: Any) -> None:
            s.valid(C, v, create_body(*topics, **more), case, only=lambda a: learn(s, a))

        made("", new(s.name(f"v{v}"), 2))
        made("default partitions and factor", new(s.name(f"v{v}-default"), -1, -1))
        made("validate only", new(s.name(f"v{v}-try")), validate=True)
        made("assignments", new(s.name(f"v{v}-placed"), -1, -1, [(0, [1]), (1, [1])]))
        made("configs", new(s.name(f"v{v}-set"), retention_ms="5000", compression_type="gzip"))
        made("a dot in the name", new(s.name(f"v{v}.dot")))
        made("two topics", new(s.name(f"v{v}-a")), new(s.name(f"v{v}-b")))
        made("no topics")


def bad_topics(s: Session) -> dict[str, Values]:
    """New topics that are refused, by what is wrong with them."""
    name = s.name("bad")
    return {
        "topic exists": new(s.name("exists")),
        "name collides": new(s.name("coll_ides")),
        "empty name": new(""),
        "name '.'": new("."),
        "name '..'": new(".."),
        "slash in the name": new("a/b"),
        "blank in the name": new("a b"),
        "name too long": new("x" * 250),
        "partitions 0": new(name, 0),
        "20000 partitions": new(name, 20_000),
        "partitions -2": new(name, -2),
        "replication factor 0": new(name, 1, 0),
        "replication factor -2": new(name, 1, -2),
        "assignments and partitions": new(name, 3, 1, [(0, [1])]),
        "assignments and factor": new(name, -1, 1, [(0, [1])]),
        "assignment to unknown broker": new(name, -1, -1, [(0, [77])]),
        "assignment twice to a broker": new(name, -1, -1, [(0, [1, 1])]),
        "assignment to nobody": new(name, -1, -1, [(0, [])]),
        "assignments with a gap": new(name, -1, -1, [(0, [1]), (2, [1])]),
        "assignments not from 0": new(name, -1, -1, [(1, [1])]),
        "an index twice": new(name, -1, -1, [(0, [1]), (0, [1])]),
        "unknown config": new(name, no_such_thing="1"),
        "config out of range": new(name, max_message_bytes="-1"),
        "config not a number": new(name, retention_ms="soon"),
        "config not a choice": new(name, cleanup_policy="burn"),
        "config null": new(name, retention_ms=None),
        "null config of no such key": new(name, no_such_thing=None),
    }


@script
def create_topics_refused(s: Session) -> None:
    s.topic("exists")
    s.topic("coll.ides")
    for v in versions(C):
        for case, topic in bad_topics(s).items():
            s.error(C, v, case, create_body(topic), only=without_configs)
            s.error(C, v, f"{case}, validate only", create_body(topic, validate=True))
        twice = create_body(new(s.name("twice")), new(s.name("twice"), 2))
        s.error(C, v, "a topic twice", twice)
        both = create_body(new(s.name("exists")), new(s.name(f"beside-v{v}")))
        s.error(C, v, "one bad topic of two", both, only=lambda a: learn(s, a))


@script
def create_topics_that_one_broker_cannot_hold(s: Session) -> None:
    for v in versions(C):
        body = create_body(new(s.name(f"three-v{v}"), 1, 3))
        s.error(C, v, "replication factor 3", body, only=lambda a: learn(s, a))
    body = create_body(new(s.name("remote"), remote_storage_enable="true"))
    s.error(C, 7, "remote.storage.enable", body)
    body = create_body(new(s.name("compact"), cleanup_policy="compact"))
    s.valid(C, 7, body, "cleanup.policy=compact", only=lambda a: learn(s, without_configs(a)))
    body = create_body(new(s.name("both"), cleanup_policy="compact,delete"))
    s.valid(
        C, 7, body, "cleanup.policy=compact,delete", only=lambda a: learn(s, without_configs(a))
    )


@script
def delete_topics(s: Session) -> None:
    def by_name(v: int, *names: str) -> Values:
        if v < 6:
            return {"topicNames": list(names), "timeoutMs": 10_000}
        return {"topics": [{"name": name} for name in names], "timeoutMs": 10_000}

    def by_id(*ids: UUID, name: str | None = None) -> Values:
        topics = [{"name": name, "topicId": topic_id} for topic_id in ids]
        return {"topics": topics, "timeoutMs": 10_000}

    missing = s.name("missing")
    for v in versions(D):
        first, _ = s.topic(f"v{v}-first")
        second, _ = s.topic(f"v{v}-second")
        s.error(D, v, "a topic twice", by_name(v, first, first))
        s.valid(D, v, by_name(v, first))
        s.error(D, v, "a topic already deleted", by_name(v, first))
        s.error(D, v, "unknown topic", by_name(v, missing))
        s.error(D, v, "empty name", by_name(v, ""))
        s.error(D, v, "bad name", by_name(v, "a/b"))
        s.error(D, v, "one bad topic of two", by_name(v, missing, second))
        s.valid(D, v, by_name(v), "no topics")
    name, topic_id = s.topic("by-id")
    s.error(D, 6, "name and id", by_id(topic_id, name=name))
    s.error(D, 6, "neither name nor id", by_id(UUID(int=0)))
    s.error(D, 6, "unknown id", by_id(NOBODY))
    s.error(D, 6, "an id twice", by_id(topic_id, topic_id))
    both = {"topics": [{"name": name}, {"name": None, "topicId": topic_id}], "timeoutMs": 10_000}
    s.error(D, 6, "a topic by name and again by id", both)
    s.valid(D, 6, by_id(topic_id), "by id")


@script
def create_partitions(s: Session) -> None:
    def body(name: str, count: int, assignments: Any = None, validate: bool = False) -> Values:
        placed = None if assignments is None else [{"brokerIds": ids} for ids in assignments]
        topic = {"name": name, "count": count, "assignments": placed}
        return {"topics": [topic], "timeoutMs": 10_000, "validateOnly": validate}

    for v in versions(P):
        name, _ = s.topic(f"v{v}", 2)
        s.valid(P, v, body(name, 3))
        s.valid(P, v, body(name, 5, [[1], [1]]), "assignments")
        s.valid(P, v, body(name, 6, validate=True), "validate only")
        s.error(P, v, "as many as there are", body(name, 5))
        s.error(P, v, "fewer than there are", body(name, 1))
        s.error(P, v, "0 partitions", body(name, 0))
        s.error(P, v, "-1 partitions", body(name, -1))
        s.error(P, v, "unknown topic", body(s.name("missing"), 3))
        s.error(P, v, "empty name", body("", 3))
        s.error(P, v, "too few assignments", body(name, 8, [[1]]))
        s.error(P, v, "too many assignments", body(name, 6, [[1], [1]]))
        s.error(P, v, "assignment to unknown broker", body(name, 6, [[77]]))
        s.error(P, v, "assignment twice to a broker", body(name, 6, [[1, 1]]))
        s.error(P, v, "assignment to nobody", body(name, 6, [[]]))
        s.error(P, v, "no assignments", body(name, 6, []))
        twice = body(name, 7)
        twice["topics"] *= 2
        s.error(P, v, "a topic twice", twice)
        s.error(P, v, "fewer, validate only", body(name, 1, validate=True))
