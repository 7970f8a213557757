"""What is asked of single partitions: DeleteRecords, epochs, producers, and producer ids."""

from __future__ import annotations

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

from .batches import batch
from .fetch import fill
from .groups import ready

D = ApiKey.DELETE_RECORDS
E = ApiKey.OFFSET_FOR_LEADER_EPOCH
W = ApiKey.DESCRIBE_PRODUCERS
I = ApiKey.INIT_PRODUCER_ID  # noqa: E741
COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR = 14, 15, 16


def delete_body(*asked: tuple[str, int, int]) -> Values:
    """asked: topic, partition, offset."""
    topics: dict[str, list[Values]] = {}
    for name, index, offset in asked:
        topics.setdefault(name, []).append({"partitionIndex": index, "offset": offset})
    return {
        "topics": [{"name": name, "partitions": found} for name, found in topics.items()],
        "timeoutMs": 10_000,
    }


@script
def delete_records(s: Session) -> None:
    ready(s)
    s.wait_for("__consumer_offsets", 8)
    for v in versions(D):
        topic = s.topic(f"v{v}", partitions=2)
        name = topic[0]
        fill(s, topic, batch(b"a", b"b"), batch(b"c"), batch(b"d", b"e", b"f"))
        s.valid(D, v, delete_body((name, 0, 1)))
        s.valid(D, v, delete_body((name, 0, 1)), "the same again")
        s.valid(D, v, delete_body((name, 0, 3), (name, 1, 0)), "two partitions")
        s.valid(D, v, delete_body((name, 0, 2)), "offset below the start")
        s.error(D, v, "offset above the end", delete_body((name, 0, 99)))
        s.error(D, v, "offset -2", delete_body((name, 0, -2)))
        s.error(D, v, "unknown topic", delete_body((s.name("missing"), 0, 1)))
        s.error(D, v, "unknown partition", delete_body((name, 9, 1)))
        s.error(D, v, "one bad partition of two", delete_body((name, 9, 1), (name, 0, 3)))
        s.valid(D, v, delete_body((name, 0, -1)), "offset -1 for the high watermark")
        s.valid(D, v, delete_body(), "no topics")
        s.error(D, v, "an internal topic", delete_body(("__consumer_offsets", 0, 0)))


@script
def offset_for_leader_epoch(s: Session) -> None:
    topic = s.topic(partitions=2)
    fill(s, topic, batch(b"a", b"b"))

    def body(name: str, index: int, epoch: int, current: int = -1) -> Values:
        asked = {"partition": index, "leaderEpoch": epoch, "currentLeaderEpoch": current}
        return {"replicaId": -1, "topics": [{"topic": name, "partitions": [asked]}]}

    for v in versions(E):
        s.valid(E, v, body(topic[0], 0, 0))
        s.valid(E, v, body(topic[0], 1, 0), "an empty log")
        s.valid(E, v, body(topic[0], 0, 5), "an epoch to come")
        s.valid(E, v, body(topic[0], 0, -1), "no epoch")
        s.valid(E, v, body(topic[0], 0, 0, 0), "current leader epoch")
        s.error(E, v, "unknown leader epoch", body(topic[0], 0, 0, 7))
        s.error(E, v, "fenced leader epoch", body(topic[0], 0, 0, -2))
        s.error(E, v, "unknown topic", body(s.name("missing"), 0, 0))
        s.error(E, v, "unknown partition", body(topic[0], 9, 0))


@script
def describe_producers(s: Session) -> None:
    topic = s.topic(partitions=2)
    fill(s, topic, batch(b"a", b"b", producer=(4000, 2, 0)))
    s.names.producer_ids.add(4000)

    def body(name: str, *indexes: int) -> Values:
        return {"topics": [{"name": name, "partitionIndexes": list(indexes)}]}

    for v in versions(W):
        s.valid(W, v, body(topic[0], 0))
        s.valid(W, v, body(topic[0], 1), "none")
        s.error(W, v, "unknown topic", body(s.name("missing"), 0))
        s.error(W, v, "unknown partition", body(topic[0], 9))
        s.error(W, v, "bad topic name", body("a/b", 0))
        s.error(W, v, "empty topic name", body("", 0))


def until_transactions_are_known(s: Session) -> None:
    """Apache Kafka creates the topic of their state when first asked."""
    body: Values = {"key": s.name("tx"), "keyType": 1}
    code = COORDINATOR_NOT_AVAILABLE
    while code == COORDINATOR_NOT_AVAILABLE:
        s.connection.send(ApiKey.FIND_COORDINATOR, 3, body)
        code = s.connection.receive()["errorCode"]
    code = COORDINATOR_LOAD_IN_PROGRESS
    while code in (COORDINATOR_LOAD_IN_PROGRESS, NOT_COORDINATOR):
        body = {"transactionalId": s.name("tx"), "transactionTimeoutMs": 60_000}
        s.connection.send(I, 0, body)
        code = s.connection.receive()["errorCode"]


@script
def init_producer_id(s: Session) -> None:
    body: Values = {"transactionalId": None, "transactionTimeoutMs": 60_000}
    s.until(I, 0, body)
    until_transactions_are_known(s)
    for v in versions(I):
        s.valid(I, v, body)
        s.valid(I, v, {**body, "transactionTimeoutMs": -1}, "a timeout that does not matter")
        s.valid(I, v, {**body, "transactionalId": s.name("tx")}, "transactional id")
        s.error(I, v, "empty transactional id", {**body, "transactionalId": ""})
        if v >= 3:
            known = {**body, "producerId": 4711, "producerEpoch": 3}
            s.valid(I, v, known, "a producer id that it had")
            s.error(I, v, "producer id without epoch", {**known, "producerEpoch": -1})
            s.error(I, v, "epoch without producer id", {**known, "producerId": -1})
