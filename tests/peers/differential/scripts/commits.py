"""Committed offsets, and groups as operators see them: described, listed, deleted; coordinators."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

from .groups import join, joined, ready
from .partitions import until_transactions_are_known

C = ApiKey.OFFSET_COMMIT
F = ApiKey.OFFSET_FETCH
D = ApiKey.OFFSET_DELETE
G = ApiKey.DESCRIBE_GROUPS
L = ApiKey.LIST_GROUPS
X = ApiKey.DELETE_GROUPS
K = ApiKey.FIND_COORDINATOR
NOBODY = UUID("11111111-2222-4333-8444-555555555555")
Topic = tuple[str, UUID]


def commit(
    v: int,
    group: str,
    *asked: tuple[Topic, int, int],
    member: str = "",
    generation: int = -1,
    instance: str | None = None,
    metadata: str | None = "note",
) -> Values:
    """asked: topic, partition, offset."""
    topics: dict[Topic, list[Values]] = {}
    for topic, index, offset in asked:
        partition = {
            "partitionIndex": index,
            "committedOffset": offset,
            "committedLeaderEpoch": 0,
            "committedMetadata": metadata,
        }
        topics.setdefault(topic, []).append(partition)
    return {
        "groupId": group,
        "generationIdOrMemberEpoch": generation,
        "memberId": member,
        "groupInstanceId": instance,
        "retentionTimeMs": -1,
        "topics": [
            {**({"name": name} if v < 10 else {"topicId": topic_id}), "partitions": found}
            for (name, topic_id), found in topics.items()
        ],
    }


def fetch(
    v: int, group: str, *asked: tuple[Topic, list[int]], everything: bool = False, **more: Any
) -> Values:
    topics: Any = [
        {**({"name": t[0]} if v < 10 else {"topicId": t[1]}), "partitionIndexes": found}
        for t, found in asked
    ]
    if everything:
        topics = None
    if v < 8:
        return {"groupId": group, "topics": topics, "requireStable": False}
    return {"groups": [{"groupId": group, "topics": topics, **more}], "requireStable": False}


@script
def offsets_every_version(s: Session) -> None:
    ready(s)
    topic = s.topic(partitions=3)
    for v in versions(C):
        group = s.name(f"v{v}")
        s.valid(C, v, commit(v, group, (topic, 0, 5), (topic, 1, 7)))
        s.valid(C, v, commit(v, group, (topic, 0, 3)), "backwards")
        s.valid(C, v, commit(v, group, (topic, 2, 3), metadata=None), "null metadata")
        s.valid(C, v, commit(v, group), "nothing")
        twice = commit(v, group, (topic, 0, 8))
        twice["topics"] += commit(v, group, (topic, 1, 9))["topics"]
        s.valid(C, v, twice, "a topic twice")
        s.valid(F, v, fetch(v, group, (topic, [0, 1, 2])))
    group = s.name("fetched")
    s.quietly(C, 9, commit(9, group, (topic, 0, 5)))
    for v in versions(F):
        s.valid(F, v, fetch(v, group, (topic, [0, 1])), "one without offset")
        s.valid(F, v, fetch(v, s.name("missing"), (topic, [0])), "missing group")
        if v >= 2:
            s.valid(F, v, fetch(v, group, everything=True), "all topics")
            s.valid(F, v, fetch(v, s.name("missing"), everything=True), "all of a missing group")
        s.valid(F, v, fetch(v, group), "no topics")
        s.valid(F, v, fetch(v, group, (topic, [9])), "unknown partition")
        missing = s.name("missing"), NOBODY
        if v < 10:
            s.valid(F, v, fetch(v, group, (missing, [0])), "unknown topic")
        else:
            s.error(F, v, "unknown topic id", fetch(v, group, (missing, [0])))
        if v >= 8:
            two = fetch(v, group, (topic, [0]))
            two["groups"] += fetch(v, s.name("other"), (topic, [0]))["groups"]
            s.valid(F, v, two, "two groups")
    s.quietly(C, 9, commit(9, group, (topic, 1, 1), metadata=""))
    s.valid(F, 1, fetch(1, group, (topic, [1])), "empty metadata")


@script
def offsets_refused(s: Session) -> None:
    ready(s)
    topic = s.topic(partitions=2)
    missing = s.name("missing"), NOBODY
    group = s.name("group")
    member, generation = joined(s, group)
    static = s.name("static")
    joined(s, static, instance="one")
    for v in versions(C):

        def refused(case: str, who: str, *asked: Any, v: int = v, **more: Any) -> None:
            s.error(C, v, case, commit(v, who, *asked, **more))

        good = (topic, 0, 5)
        own: Any = {"member": member, "generation": generation}
        s.valid(C, v, commit(v, group, good, **own), "a member's")
        s.valid(C, v, commit(v, "", good), "no group id")
        refused("unknown topic", group, (missing, 0, 5), **own)
        refused("unknown partition", group, (topic, 9, 5), **own)
        refused("one bad topic of two", group, (missing, 0, 5), good, **own)
        refused("unknown member", group, good, member="nobody", generation=generation)
        refused("illegal generation", group, good, member=member, generation=generation + 3)
        refused("no member of a live group", group, good)
        refused("member of a missing group", s.name("none"), good, member="x", generation=1)
        refused("metadata too long", group, good, metadata="x" * 5000, **own)
        if v >= 7:
            refused("unknown static member", group, good, instance="nobody", **own)
            fenced: Any = {"member": "other", "generation": 1, "instance": "one"}
            refused("fenced static member", static, good, **fenced)
    for v in versions(F):
        if v >= 9:
            body = fetch(v, group, (topic, [0]), memberId="nobody", memberEpoch=1)
            s.valid(F, v, body, "a member id that does not matter")
            body = fetch(v, group, (topic, [0]), memberId=member, memberEpoch=9)
            s.valid(F, v, body, "a member epoch that does not matter")
    s.quietly(X, 2, {"groupsNames": [""]})


@script
def offsets_committed_during_a_rebalance(s: Session) -> None:
    ready(s)
    topic = s.topic()
    for v in versions(C):
        group = s.name(f"v{v}")
        answer = s.quietly(ApiKey.JOIN_GROUP, 3, join(group))
        own: Any = {"member": answer["memberId"], "generation": 1}
        s.error(C, v, "between join and sync", commit(v, group, (topic, 0, 5), **own))


@script
def offsets_fetched_without_group(s: Session) -> None:
    ready(s)
    topic = s.topic()
    for v in versions(F):
        s.valid(F, v, fetch(v, "", (topic, [0])), "no group id")


@script
def offsets_deleted(s: Session) -> None:
    ready(s)
    topic = s.topic(partitions=2)
    group = s.name("group")
    s.quietly(C, 9, commit(9, group, (topic, 0, 5), (topic, 1, 6)))

    def body(who: str, name: str, *indexes: int) -> Values:
        partitions = [{"partitionIndex": index} for index in indexes]
        return {"groupId": who, "topics": [{"name": name, "partitions": partitions}]}

    for v in versions(D):
        s.valid(D, v, body(group, topic[0], 0))
        s.valid(D, v, body(group, topic[0], 0), "again")
        s.error(D, v, "unknown topic", body(group, s.name("missing"), 0))
        s.error(D, v, "unknown partition", body(group, topic[0], 1, 9))
        s.error(D, v, "missing group", body(s.name("missing"), topic[0], 0))
        s.error(D, v, "no group id", body("", topic[0], 0))
        live = s.name("live")
        member, generation = joined(s, live)
        own: Any = {"member": member, "generation": generation}
        s.quietly(C, 9, commit(9, live, (topic, 0, 1), **own))
        s.valid(D, v, body(live, topic[0], 0), "of a live group, not subscribed")
        other = s.name("connect")
        joined(s, other, kind="connect")
        s.error(D, v, "group of another kind that is not empty", body(other, topic[0], 0))


@script
def groups_seen_by_operators(s: Session) -> None:
    ready(s)
    topic = s.topic()
    live, empty, static = s.name("live"), s.name("empty"), s.name("static")
    joined(s, live)
    s.quietly(C, 9, commit(9, empty, (topic, 0, 5)))
    joined(s, static, instance="one")

    def known(answer: Values) -> Values:
        mine = [g for g in answer["groups"] if g["groupId"].startswith(s.prefix)]
        answer["groups"] = sorted(mine, key=lambda g: str(g["groupId"]))
        return answer

    for v in versions(G):
        s.valid(G, v, {"groups": [live]})
        s.valid(G, v, {"groups": [empty, static]}, "two groups")
        if v < 6:
            s.valid(G, v, {"groups": [s.name("missing")]}, "missing group")
        else:
            s.error(G, v, "missing group", {"groups": [s.name("missing")]})
        s.valid(G, v, {"groups": []}, "none")
        if v >= 3:
            body = {"groups": [live], "includeAuthorizedOperations": True}
            s.valid(G, v, body, "operations")
        body = {"groups": [""]}
        if v < 6:
            s.valid(G, v, body, "no group id")
        else:
            s.error(G, v, "no group id", body)
    for v in versions(L):
        s.valid(L, v, {}, only=known)
        if v >= 4:
            for states in (["Stable"], ["stable"], ["Empty"], ["Empty", "Stable"], ["Odd"]):
                body = {"statesFilter": states}
                s.valid(L, v, body, f"states {'+'.join(states)}", only=known)
        if v >= 5:
            for types in (["classic"], ["Classic"], ["consumer"]):
                s.valid(L, v, {"typesFilter": types}, f"types {types[0]}", only=known)
            s.valid(L, v, {"typesFilter": ["odd"]}, "unknown type", only=known)
    for v in versions(X):
        gone = s.name(f"gone-v{v}")
        s.quietly(C, 9, commit(9, gone, (topic, 0, 5)))
        s.valid(X, v, {"groupsNames": [gone]})
        s.error(X, v, "already deleted", {"groupsNames": [gone]})
        s.error(X, v, "missing group", {"groupsNames": [s.name("missing")]})
        s.error(X, v, "group that is not empty", {"groupsNames": [live]})
        s.error(X, v, "no group id", {"groupsNames": [""]})
        s.quietly(C, 9, commit(9, gone, (topic, 0, 5)))
        s.error(X, v, "one bad group of two", {"groupsNames": [live, gone]})
        s.valid(X, v, {"groupsNames": []}, "none")


@script
def find_coordinator(s: Session) -> None:
    ready(s)
    group = s.name("group")
    for v in versions(K):

        def body(key: str, kind: int, v: int = v) -> Values:
            if v < 4:
                return {"key": key, "keyType": kind}
            return {"coordinatorKeys": [key], "keyType": kind}

        s.valid(K, v, body(group, 0))
        s.valid(K, v, body("", 0), "empty group id")
        if v >= 1:
            s.error(K, v, "unknown key type", body(group, 9))
            s.error(K, v, "negative key type", body(group, -1))
        if v >= 4:
            s.valid(K, v, {"coordinatorKeys": [group, "b"], "keyType": 0}, "two groups")
            s.valid(K, v, {"coordinatorKeys": [], "keyType": 0}, "none")


@script
def find_coordinator_of_transactions(s: Session) -> None:
    until_transactions_are_known(s)
    for v in versions(K, 1):
        body: Values = {"key": s.name("tx"), "coordinatorKeys": [s.name("tx")], "keyType": 1}
        del body["coordinatorKeys" if v < 4 else "key"]
        s.valid(K, v, body, "transaction")
        if v >= 4:
            bad = {"coordinatorKeys": [s.name("share")], "keyType": 2}
            s.error(K, v, "share group key", bad)
