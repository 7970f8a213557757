"""Classic groups: joining, syncing, heartbeats and leaving, in every version and each refusal."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

from protocol.api_versions import ApiKey
from tests.peers.differential.peer import Connection
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

J = ApiKey.JOIN_GROUP
Y = ApiKey.SYNC_GROUP
H = ApiKey.HEARTBEAT
V = ApiKey.LEAVE_GROUP
MEMBER_ID_REQUIRED = 79
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def subscription(*topics: str) -> bytes:
    names = b"".join(struct.pack(">h", len(t)) + t.encode() for t in topics)
    return struct.pack(">hi", 0, len(topics)) + names + struct.pack(">i", -1)


def join(
    group: str,
    member: str = "",
    instance: str | None = None,
    kind: str = "consumer",
    protocols: Sequence[str] = ("range",),
    session_ms: int = 10_000,
    rebalance_ms: int = 10_000,
) -> Values:
    return {
        "groupId": group,
        "sessionTimeoutMs": session_ms,
        "rebalanceTimeoutMs": rebalance_ms,
        "memberId": member,
        "groupInstanceId": instance,
        "protocolType": kind,
        "protocols": [{"name": name, "metadata": subscription("t")} for name in protocols],
        "reason": "asked",
    }


def sync(
    group: str,
    member: str,
    generation: int = 1,
    given: dict[str, bytes] | None = None,
    instance: str | None = None,
    **more: Any,
) -> Values:
    return {
        "groupId": group,
        "generationId": generation,
        "memberId": member,
        "groupInstanceId": instance,
        "protocolType": "consumer",
        "protocolName": "range",
        "assignments": [
            {"memberId": who, "assignment": what} for who, what in (given or {}).items()
        ],
        **more,
    }


def beat(group: str, member: str, generation: int = 1, instance: str | None = None) -> Values:
    return {
        "groupId": group,
        "memberId": member,
        "generationId": generation,
        "groupInstanceId": instance,
    }


def leave(v: int, group: str, *members: tuple[str, str | None]) -> Values:
    if v < 3:
        return {"groupId": group, "memberId": members[0][0]}
    found = [{"memberId": m, "groupInstanceId": i, "reason": "done"} for m, i in members]
    return {"groupId": group, "members": found}


def learning_members(s: Session) -> Any:
    """Give every member id that an answer shows a name that is the same on both sides."""

    def learn(word: str) -> None:
        found = _ID.search(word or "")
        if found and s.names.word(word) == word:
            s.counted_members += 1
            form = word[: found.start()] + word[found.end() :]
            s.names.learn_word(word, f"member {s.counted_members} {form}")

    def only(answer: Values) -> Values:
        learn(answer.get("memberId", ""))
        for member in answer.get("members", ()):
            learn(member.get("memberId", ""))
        if len(answer.get("members", ())) > 1:
            answer["members"].sort(key=lambda m: s.names.word(m["memberId"]))
        return answer

    return only


def joined(s: Session, group: str, by: Connection | None = None, **how: Any) -> tuple[str, int]:
    """The only member of a new group, its assignment taken; its id and generation."""
    connection = by or s.connection
    body = join(group, **how)
    answer: Values = {"errorCode": MEMBER_ID_REQUIRED}
    while answer["errorCode"] == MEMBER_ID_REQUIRED:
        connection.send(J, 9, body)
        answer = learning_members(s)(connection.receive())
        body["memberId"] = answer["memberId"]
    assert answer["errorCode"] == 0, answer
    generation = answer["generationId"]
    member = answer["memberId"]
    more = {"protocolType": how.get("kind", "consumer"), "protocolName": answer["protocolName"]}
    s.quietly(
        Y, 5, sync(group, member, generation, {member: b"mine"}, how.get("instance"), **more),
        connection,
    )  # fmt: skip
    return member, generation


def ready(s: Session) -> None:
    """Until every partition of the groups' topic has its coordinator."""
    s.until(ApiKey.FIND_COORDINATOR, 3, {"key": s.name("any"), "keyType": 0})
    # A hundred names meet all eight partitions.
    names = [{"groupId": f"any-{number}", "topics": None} for number in range(100)]
    s.until(ApiKey.OFFSET_FETCH, 8, {"groups": names})


@script
def groups_every_version(s: Session) -> None:
    ready(s)
    keep = learning_members(s)
    for v in versions(J):
        group = s.name(f"v{v}")
        if v >= 4:
            told = s.error(J, v, "member id required", join(group), only=keep)
            answer = s.valid(J, v, join(group, told["memberId"]), only=keep)
        else:
            answer = s.valid(J, v, join(group), only=keep)
        member = answer["memberId"]
        w = min(v, 5)
        if v <= 5:
            given = sync(group, member, 1, {member: b"mine"})
            s.valid(Y, w, given)
            s.valid(Y, w, sync(group, member, 1), "again")
        else:
            s.quietly(Y, 5, sync(group, member, 1, {member: b"mine"}))
        if v <= 4:
            s.valid(H, v, beat(group, member))
        if v <= 5:
            s.valid(V, v, leave(v, group, (member, None)))


@script
def groups_static_members(s: Session) -> None:
    ready(s)
    keep = learning_members(s)
    for v in versions(J, 5):
        group = s.name(f"v{v}")
        first = s.valid(J, v, join(group, instance="one"), "a static member", only=keep)
        member = first["memberId"]
        s.quietly(Y, 5, sync(group, member, 1, {member: b"mine"}, "one"))
        s.valid(H, min(v, 4), beat(group, member, 1, "one"), f"a static member, join v{v}")
        again = s.valid(J, v, join(group, instance="one"), "a static member comes back", only=keep)
        s.error(J, v, "a fenced static member joins", join(group, member, "one"), only=keep)
        s.error(J, v, "a static member of another name", join(group, member, "two"), only=keep)
        generation = again["generationId"]
        case = f"a fenced static member, join v{v}"
        s.error(Y, 5, case, sync(group, member, generation, None, "one"))
        s.error(H, 4, case, beat(group, member, generation, "one"))
        s.error(V, 5, case, leave(5, group, (member, "one")))
        s.valid(V, 5, leave(5, group, ("", "one")), f"a static member put out, join v{v}")


@script
def groups_join_refused(s: Session) -> None:
    ready(s)
    keep = learning_members(s)
    for v in versions(J):
        group = s.name(f"v{v}")
        s.error(J, v, "no group id", join(""))
        s.error(J, v, "session timeout too short", join(group, session_ms=5))
        s.error(J, v, "session timeout too long", join(group, session_ms=2_000_000_000))
        s.error(J, v, "unknown member of a missing group", join(group, "nobody"))
        s.error(J, v, "no protocols", join(group, protocols=()))
        s.error(J, v, "no protocol type", join(group, kind=""))
        member, _ = joined(s, s.name(f"led-v{v}"))
        led = s.name(f"led-v{v}")
        s.error(J, v, "unknown member", join(led, "nobody"))
        s.error(J, v, "another protocol type", join(led, kind="connect"), only=keep)
        s.error(J, v, "no common protocol", join(led, protocols=("sticky",)), only=keep)
        body = join(led, member, protocols=("sticky",))
        s.error(J, v, "the only member changes its protocol", body, only=keep)
        if v >= 5:
            s.error(J, v, "unknown static member with id", join(led, "nobody", "one"))


@script
def groups_sync_refused(s: Session) -> None:
    ready(s)
    for v in versions(Y):
        group = s.name(f"v{v}")
        member, generation = joined(s, group)
        s.error(Y, v, "no group id", sync("", member, generation))
        s.error(Y, v, "missing group", sync(s.name("missing"), member, generation))
        s.error(Y, v, "unknown member", sync(group, "nobody", generation))
        s.error(Y, v, "illegal generation", sync(group, member, generation + 3))
        s.error(Y, v, "generation -1", sync(group, member, -1))
        if v >= 5:
            wrong: dict[str, Values] = {
                "another protocol type": {"protocolType": "connect"},
                "another protocol": {"protocolName": "sticky"},
                "no protocol type": {"protocolType": None},
                "no protocol": {"protocolName": None},
            }
            for case, more in wrong.items():
                s.error(Y, v, case, sync(group, member, generation, **more))
        if v >= 3:
            body = sync(group, member, generation, None, "nobody")
            s.error(Y, v, "unknown static member", body)
        s.valid(Y, v, sync(group, member, generation), "after all those")


@script
def groups_heartbeat_refused(s: Session) -> None:
    ready(s)
    for v in versions(H):
        group = s.name(f"v{v}")
        member, generation = joined(s, group)
        s.error(H, v, "no group id", beat("", member, generation))
        s.error(H, v, "missing group", beat(s.name("missing"), member, generation))
        s.error(H, v, "unknown member", beat(group, "nobody", generation))
        s.error(H, v, "no member id", beat(group, "", generation))
        s.error(H, v, "illegal generation", beat(group, member, generation + 3))
        if v >= 3:
            s.error(H, v, "unknown static member", beat(group, member, generation, "nobody"))


@script
def groups_leave_refused(s: Session) -> None:
    ready(s)
    for v in versions(V):
        group = s.name(f"v{v}")
        member, _ = joined(s, group)
        s.error(V, v, "no group id", leave(v, "", (member, None)))
        s.error(V, v, "missing group", leave(v, s.name("missing"), (member, None)))
        s.error(V, v, "unknown member", leave(v, group, ("nobody", None)))
        s.error(V, v, "no member id", leave(v, group, ("", None)))
        if v >= 3:
            s.error(V, v, "unknown static member", leave(v, group, ("", "nobody")))
            both = leave(v, group, (member, None), ("nobody", None))
            s.error(V, v, "one unknown member of two", both)
            s.valid(V, v, {"groupId": group, "members": []}, "nobody named")


@script
def groups_rebalance(s: Session) -> None:
    ready(s)
    keep = learning_members(s)
    first, second = s.connect("first"), s.connect("second")
    for v in versions(J, 4):
        group = s.name(f"v{v}")
        w = min(v, 5)
        leader, _ = joined(s, group, first)
        told = s.error(J, v, "a second member's id", join(group), by=second, only=keep)
        follower = told["memberId"]
        second.send(J, v, join(group, follower))
        while True:
            first.send(H, 4, beat(group, leader))
            if first.receive()["errorCode"]:
                break
        case = f"while a rebalance is on, join v{v}"
        s.error(H, 4, case, beat(group, leader), by=first)
        s.error(Y, w, case, sync(group, leader), by=first)
        s.valid(J, v, join(group, leader), "the leader joins again", by=first, only=keep)
        s.finish(second, J, v, "the second member joins", only=keep)
        s.error(H, 4, f"of the generation before, join v{v}", beat(group, leader), by=first)
        body = {
            "groupId": group, "generationIdOrMemberEpoch": 2, "memberId": leader,
            "topics": [],
        }  # fmt: skip
        s.valid(ApiKey.OFFSET_COMMIT, 8, body, f"of nothing before the sync, join v{v}", by=first)
        second.send(Y, w, sync(group, follower, 2))
        given = {leader: b"one", follower: b"two"}
        s.valid(Y, w, sync(group, leader, 2, given), f"the leader's, join v{v}", by=first)
        s.finish(second, Y, w, f"the follower's, join v{v}")
        s.valid(H, 4, beat(group, follower, 2), f"the follower's, join v{v}", by=second)
        s.valid(V, 5, leave(5, group, (follower, None)), f"the follower leaves, join v{v}")
        s.error(H, 4, f"after the follower left, join v{v}", beat(group, leader, 2), by=first)
