"""Fetch without sessions: what comes back, within which limits, and each refusal."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

from .batches import ZSTD, batch, produce_body

F = ApiKey.FETCH
P = ApiKey.PRODUCE
NOBODY = UUID("11111111-2222-4333-8444-555555555555")
Topic = tuple[str, UUID]


def wanted(index: int = 0, offset: int = 0, **more: Any) -> Values:
    return {"partition": index, "fetchOffset": offset, "partitionMaxBytes": 1 << 20, **more}


def fetch_body(
    version: int, *asked: tuple[Topic, list[Values]], forgotten: Any = (), **more: Any
) -> Values:
    """asked: topics with their partitions. Answered at once unless `more` says otherwise."""

    def name(topic: Topic) -> Values:
        return {"topic": topic[0]} if version < 13 else {"topicId": topic[1]}

    return {
        **({"replicaId": -1} if version < 15 else {}),
        "maxWaitMs": 0,
        "minBytes": 1,
        "maxBytes": 1 << 24,
        "sessionEpoch": -1,
        "topics": [{**name(topic), "partitions": found} for topic, found in asked],
        "forgottenTopicsData": [
            {**name(topic), "partitions": indexes} for topic, indexes in forgotten
        ],
        **more,
    }


def fill(s: Session, topic: Topic, *batches: bytes, index: int = 0) -> None:
    for data in batches:
        s.quietly(P, 12, produce_body(12, topic, (index, data)))


@script
def fetch_every_version(s: Session) -> None:
    topic = s.topic(partitions=3)
    fill(s, topic, batch(b"a", b"b"), batch(b"c"), batch(bytes(500)), batch(b"z", codec=1))
    fill(s, topic, batch(b"q"), index=1)
    everything = [wanted(0), wanted(1), wanted(2)]
    for v in versions(F):
        s.valid(F, v, fetch_body(v, (topic, [wanted()])))
        s.valid(F, v, fetch_body(v, (topic, everything)), "three partitions")
        s.valid(F, v, fetch_body(v, (topic, [wanted(2)])), "an empty log")
        s.valid(F, v, fetch_body(v, (topic, [wanted(0, 5)])), "at the end")
        s.valid(F, v, fetch_body(v, (topic, [wanted(0, 1)])), "inside a batch")
        s.valid(F, v, fetch_body(v, (topic, [wanted()]), isolationLevel=1), "read_committed")
        body = fetch_body(v, (topic, [wanted(2)]), isolationLevel=1)
        s.valid(F, v, body, "read_committed of an empty log")
        one = wanted(0, partitionMaxBytes=1)
        s.valid(F, v, fetch_body(v, (topic, [one])), "partition max bytes 1")
        s.valid(F, v, fetch_body(v, (topic, everything), maxBytes=1), "max bytes 1")
        s.valid(F, v, fetch_body(v, (topic, everything), maxBytes=0), "max bytes 0")
        none = wanted(0, partitionMaxBytes=0)
        s.valid(F, v, fetch_body(v, (topic, [none])), "partition max bytes 0")
        two = wanted(0, partitionMaxBytes=len(batch(b"a", b"b")) + len(batch(b"c")))
        s.valid(F, v, fetch_body(v, (topic, [two])), "room for exactly two batches")
        s.valid(F, v, fetch_body(v), "no topics")
        wait: Any = {"maxWaitMs": 30, "minBytes": 1 << 20}
        s.valid(F, v, fetch_body(v, (topic, [wanted()]), **wait), "waits in vain for more")


@script
def fetch_refusals(s: Session) -> None:
    topic = s.topic(partitions=2)
    fill(s, topic, batch(b"a", b"b"), batch(b"c"))
    missing = s.name("missing"), NOBODY
    s.quietly(
        ApiKey.DELETE_RECORDS,
        2,
        {
            "topics": [{"name": topic[0], "partitions": [{"partitionIndex": 0, "offset": 1}]}],
            "timeoutMs": 10_000,
        },
    )
    for v in versions(F):
        s.error(F, v, "unknown topic", fetch_body(v, (missing, [wanted()])))
        s.error(F, v, "unknown partition", fetch_body(v, (topic, [wanted(9)])))
        s.error(F, v, "negative partition", fetch_body(v, (topic, [wanted(-1)])))
        s.error(F, v, "offset above the end", fetch_body(v, (topic, [wanted(0, 99)])))
        s.error(F, v, "offset below the start", fetch_body(v, (topic, [wanted(0, 0)])))
        s.error(F, v, "negative offset", fetch_body(v, (topic, [wanted(0, -5)])))
        body = fetch_body(v, (topic, [wanted(0, 99), wanted(1, 0)]))
        s.error(F, v, "one bad partition of two", body)
        if v >= 9:
            body = fetch_body(v, (topic, [wanted(0, 1, currentLeaderEpoch=7)]))
            s.error(F, v, "unknown leader epoch", body)
            body = fetch_body(v, (topic, [wanted(0, 1, currentLeaderEpoch=-2)]))
            s.valid(F, v, body, "a leader epoch below -1")
            s.valid(
                F, v, fetch_body(v, (topic, [wanted(0, 1, currentLeaderEpoch=0)])),
                "current leader epoch",
            )  # fmt: skip
        if v >= 12:
            body = fetch_body(v, (topic, [wanted(0, 2, lastFetchedEpoch=0)]))
            s.valid(F, v, body, "last fetched epoch")
            body = fetch_body(v, (topic, [wanted(0, 99, lastFetchedEpoch=0)]))
            s.valid(F, v, body, "diverging epoch")
            body = fetch_body(v, (topic, [wanted(0, 2, lastFetchedEpoch=5)]))
            s.error(F, v, "last fetched epoch unknown", body)
        replica: Values = {"replicaId": 7} if v < 15 else {"replicaState": {"replicaId": 7}}
        body = fetch_body(v, (topic, [wanted(0, 1)]), **replica)
        s.error(F, v, "a replica that is none", body)
    for v in versions(F, 13):
        s.error(F, v, "zero topic id", fetch_body(v, (("", UUID(int=0)), [wanted()])))


@script
def fetch_zstd(s: Session) -> None:
    topic = s.topic()
    fill(s, topic, batch(b"a", codec=ZSTD))
    configured = s.topic("configured", compression_type="zstd")
    fill(s, configured, batch(b"a"))
    for v in versions(F):
        body = fetch_body(v, (topic, [wanted()]))
        if v < 10:
            s.valid(F, v, body, "a zstd batch sent by its producer, before version 10")
            body = fetch_body(v, (configured, [wanted()]))
            s.valid(F, v, body, "zstd topic before version 10")
        else:
            s.valid(F, v, body, "zstd")


@script
def fetch_log_append_time(s: Session) -> None:
    topic = s.topic(message_timestamp_type="LogAppendTime")
    fill(s, topic, batch(b"a", b"b"))
    s.valid(F, 12, fetch_body(12, (topic, [wanted()])), "LogAppendTime")


@script
def fetch_what_claimed_log_append_time(s: Session) -> None:
    topic = s.topic()
    claimed = batch(b"a", b"b", attributes=0x08)
    s.valid(P, 12, produce_body(12, topic, (0, claimed)), "time type of the log")
    packed = batch(b"a", b"b", attributes=0x08, codec=1)
    s.valid(P, 12, produce_body(12, topic, (0, packed)), "time type of the log, compressed")
    s.valid(F, 12, fetch_body(12, (topic, [wanted()])), "batches that claimed LogAppendTime")


@script
def fetch_recompressed(s: Session) -> None:
    for kind in ("uncompressed", "gzip", "snappy", "lz4"):
        topic = s.topic(kind, compression_type=kind)
        fill(s, topic, batch(b"a", b"b", codec=ZSTD))

        def only(answer: Values) -> Values:
            """The attributes; each side compresses with its own library."""
            (partition,) = answer["responses"][0]["partitions"]
            return {"attributes": int.from_bytes(partition["records"][21:23], "big")}

        s.valid(F, 12, fetch_body(12, (topic, [wanted()])), f"compression.type={kind}", only=only)
