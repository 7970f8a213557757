"""Fetch sessions (KIP-227): made, continued, changed, ended, and refused."""

from __future__ import annotations

from tests.peers.differential.session import Session, script, versions

from .batches import batch
from .fetch import NOBODY, F, fetch_body, fill, wanted


@script
def fetch_sessions(s: Session) -> None:
    for v in versions(F, 7):
        topic = s.topic(f"v{v}", partitions=3)
        fill(s, topic, batch(b"a"))
        both = [wanted(0), wanted(1)]
        made = s.valid(F, v, fetch_body(v, (topic, both), sessionEpoch=0), "a new session")
        who = made["sessionId"]
        s.names.number("sessionId", who)

        def again(epoch: int, *asked, case: str = "", v=v, who=who, **more):  # type: ignore[no-untyped-def]
            body = fetch_body(v, *asked, sessionId=who, sessionEpoch=epoch, **more)
            return s.valid(F, v, body, case)

        again(1, (topic, [wanted(0, 1)]), case="a session goes on at a new offset")
        again(2, case="a session without news")
        fill(s, topic, batch(b"b"), index=1)
        again(3, case="a session with news of one partition")
        again(4, (topic, [wanted(2)]), case="a partition added to a session")
        again(5, forgotten=[(topic, [1])], case="a partition forgotten")
        fill(s, topic, batch(b"c"), index=2)
        again(6, case="a session without the forgotten")
        body = fetch_body(v, sessionId=who, sessionEpoch=9)
        s.error(F, v, "wrong session epoch", body)
        body = fetch_body(v, sessionId=who + 1, sessionEpoch=1)
        s.error(F, v, "unknown session", body)
        s.error(F, v, "a partition of a session fails", fetch_body(
            v, (topic, [wanted(0, 99)]), sessionId=who, sessionEpoch=7
        ))  # fmt: skip
        s.valid(F, v, fetch_body(v, sessionId=who, sessionEpoch=-1), "a session ended")
        s.error(F, v, "a session after its end", fetch_body(v, sessionId=who, sessionEpoch=8))
        s.valid(F, v, fetch_body(v, (topic, []), sessionEpoch=0), "a session of no partitions")


@script
def fetch_sessions_and_topic_ids(s: Session) -> None:
    topic = s.topic()
    fill(s, topic, batch(b"a"))
    missing = s.name("missing"), NOBODY
    by_name = s.valid(F, 12, fetch_body(12, (topic, [wanted()]), sessionEpoch=0), "by name")
    more = {"sessionId": by_name["sessionId"], "sessionEpoch": 1}
    s.error(F, 13, "a session by name goes on by id", fetch_body(13, **more))
    by_id = s.valid(F, 13, fetch_body(13, (topic, [wanted()]), sessionEpoch=0), "by id")
    more = {"sessionId": by_id["sessionId"], "sessionEpoch": 1}
    s.error(F, 12, "a session by id goes on by name", fetch_body(12, **more))
    body = fetch_body(13, (missing, [wanted()]), sessionEpoch=0)
    found = s.error(F, 13, "a session of an unknown id", body)
    more = {"sessionId": found["sessionId"], "sessionEpoch": 1}
    s.error(F, 13, "a session goes on with its unknown id", fetch_body(13, **more))


@script
def fetch_session_sees_a_topic_made(s: Session) -> None:
    name = s.name("later"), NOBODY
    made = s.error(
        F, 12, "a session of an unknown topic", fetch_body(12, (name, [wanted()]), sessionEpoch=0)
    )
    s.topic("later")
    body = fetch_body(12, sessionId=made["sessionId"], sessionEpoch=1)
    s.valid(F, 12, body, "a session's topic was made")
