"""Short histories: topics that go and come back, offsets that go with them, fair turns."""

from __future__ import annotations

import time

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script

from .batches import batch, produce_body
from .commits import commit, fetch
from .fetch import fetch_body, fill, wanted
from .groups import ready

P, F, M = ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.METADATA


def delete(s: Session, name: str) -> None:
    """Delete a topic, and wait until the broker has forgotten it."""
    s.quietly(ApiKey.DELETE_TOPICS, 5, {"topicNames": [name], "timeoutMs": 10_000})
    code = 0
    while code == 0:
        s.connection.send(
            ApiKey.LIST_OFFSETS,
            4,
            {
                "replicaId": -1,
                "topics": [
                    {
                        "name": name,
                        "partitions": [
                            {"partitionIndex": 0, "currentLeaderEpoch": -1, "timestamp": -1}
                        ],
                    }
                ],
            },
        )
        code = s.connection.receive()["topics"][0]["partitions"][0]["errorCode"]


@script
def a_topic_is_deleted_and_made_again(s: Session) -> None:
    old = s.topic()
    fill(s, old, batch(b"a"), batch(b"b"))
    by_id = s.valid(F, 13, fetch_body(13, (old, [wanted()]), sessionEpoch=0), "before, by id")
    by_name = s.valid(F, 12, fetch_body(12, (old, [wanted()]), sessionEpoch=0), "before, by name")
    delete(s, old[0])
    s.error(P, 13, "to a deleted topic's id", produce_body(13, old, (0, batch())))
    s.error(P, 12, "to a deleted topic's name", produce_body(12, old, (0, batch())))
    s.error(F, 13, "from a deleted topic's id", fetch_body(13, (old, [wanted()])))
    more = {"sessionId": by_id["sessionId"], "sessionEpoch": 1}
    s.error(F, 13, "a session goes on after its topic, by id", fetch_body(13, **more))
    more = {"sessionId": by_name["sessionId"], "sessionEpoch": 1}
    s.error(F, 12, "a session goes on after its topic, by name", fetch_body(12, **more))
    gone: Values = {"topics": [{"name": old[0]}], "allowAutoTopicCreation": False}
    s.error(M, 12, "a deleted topic", gone, only=without_cluster)
    body: Values = {"topics": [{"topicId": old[1], "name": None}]}
    s.error(M, 12, "a deleted topic's id", body, only=without_cluster)

    new = s.topic()
    s.note(M, 12, "the id of a topic made again", {"the same": old[1] == new[1]})
    s.names.learn(new[1], "the new id")
    more = {"sessionId": by_id["sessionId"], "sessionEpoch": 2}
    s.error(F, 13, "a session goes on with the old id", fetch_body(13, **more))
    s.error(P, 13, "to the old id", produce_body(13, old, (0, batch())))
    s.error(F, 13, "from the old id", fetch_body(13, (old, [wanted()])))
    s.valid(F, 13, fetch_body(13, (new, [wanted()])), "the new topic is empty")
    s.valid(P, 13, produce_body(13, new, (0, batch())), "to the new id")
    more = {"sessionId": by_name["sessionId"], "sessionEpoch": 2}
    s.valid(F, 12, fetch_body(12, **more), "a session by name goes on in the new topic")


def without_cluster(answer: Values) -> Values:
    return {"topics": answer["topics"]}


@script
def offsets_go_with_their_topic(s: Session) -> None:
    ready(s)
    topic = s.topic("gone")
    kept = s.topic("kept")
    group = s.name("group")
    s.quietly(ApiKey.OFFSET_COMMIT, 9, commit(9, group, (topic, 0, 5), (kept, 0, 6)))
    delete(s, topic[0])
    asked = fetch(9, group, (topic, [0]), (kept, [0]))
    for _ in range(500):
        answer = s.quietly(ApiKey.OFFSET_FETCH, 9, asked)
        found = {t["name"]: t["partitions"][0] for t in answer["groups"][0]["topics"]}
        if found[topic[0]]["committedOffset"] < 0:
            break
        time.sleep(0.01)
    s.valid(ApiKey.OFFSET_FETCH, 9, asked, "after a topic was deleted")
    everything = fetch(9, group, everything=True)
    s.valid(ApiKey.OFFSET_FETCH, 9, everything, "all after a topic was deleted")
    body = commit(9, group, (topic, 0, 5))
    s.error(ApiKey.OFFSET_COMMIT, 9, "to a deleted topic", body)


@script
def partitions_of_a_session_take_turns(s: Session) -> None:
    topic = s.topic(partitions=3)
    for index in range(3):
        fill(s, topic, batch(bytes(100)), batch(bytes(100)), batch(bytes(100)), index=index)
    offsets = dict.fromkeys(range(3), 0)
    body = fetch_body(13, (topic, [wanted(i) for i in range(3)]), sessionEpoch=0, maxBytes=1)
    answer = s.valid(F, 13, body, "turn 0, one batch")
    who = answer["sessionId"]
    for turn in range(1, 8):
        moved = []
        for found in answer["responses"]:
            for partition in found["partitions"]:
                if partition["records"]:
                    index = partition["partitionIndex"]
                    offsets[index] += 1
                    moved.append(wanted(index, offsets[index]))
        asked = [(topic, moved)] if moved else []
        body = fetch_body(13, *asked, sessionId=who, sessionEpoch=turn, maxBytes=1)
        answer = s.valid(F, 13, body, f"turn {turn}, one batch")


@script
def partitions_grow(s: Session) -> None:
    topic, topic_id = s.topic()
    body = {
        "topics": [{"name": topic, "count": 3, "assignments": None}],
        "timeoutMs": 10_000,
        "validateOnly": False,
    }
    s.quietly(ApiKey.CREATE_PARTITIONS, 3, body)
    s.wait_for(topic, 3)
    answer = produce_body(12, (topic, topic_id), (0, batch()), (2, batch()))
    s.valid(P, 12, answer, "to an added partition")
    asked = fetch_body(12, ((topic, topic_id), [wanted(2), wanted(1)]))
    s.valid(F, 12, asked, "from added partitions")
