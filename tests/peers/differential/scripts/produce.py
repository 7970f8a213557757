"""Produce: every version, and each way in which a batch is refused."""

from __future__ import annotations

import time
from uuid import UUID

from protocol.api_versions import ApiKey
from protocol.records import Record, encode_batch
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

from .batches import (
    ATTRIBUTES,
    COUNT,
    CRC,
    GZIP,
    HEADER,
    LAST_DELTA,
    LENGTH,
    LZ4,
    MAGIC,
    SNAPPY,
    TIME,
    ZSTD,
    batch,
    changed,
    old_message_set,
    produce_body,
)
from .groups import ready
from .partitions import until_transactions_are_known

P = ApiKey.PRODUCE
NOBODY = UUID("11111111-2222-4333-8444-555555555555")
DAY_MS = 86_400_000


@script
def produce_every_version(s: Session) -> None:
    topic = s.topic(partitions=2)
    for v in versions(P):
        s.valid(P, v, produce_body(v, topic, (0, batch())))
        s.valid(P, v, produce_body(v, topic, (0, batch()), acks=1), "acks=1")
        s.valid(P, v, produce_body(v, topic, (0, batch()), (1, batch())), "two partitions")
        for codec, name in ((GZIP, "gzip"), (SNAPPY, "snappy"), (LZ4, "lz4"), (ZSTD, "zstd")):
            body = produce_body(v, topic, (0, batch(codec=codec)))
            if codec == ZSTD and v < 7:
                s.error(P, v, "zstd before version 7", body)
            else:
                s.valid(P, v, body, name)


@script
def produce_with_log_append_time(s: Session) -> None:
    topic = s.topic(message_timestamp_type="LogAppendTime")
    for v in versions(P):
        s.valid(P, v, produce_body(v, topic, (0, batch())), "LogAppendTime")


@script
def produce_to_what_is_not_there(s: Session) -> None:
    topic = s.topic(partitions=2)
    missing = s.name("missing"), NOBODY
    for v in versions(P):
        s.error(P, v, "unknown topic", produce_body(v, missing, (0, batch())))
        s.error(P, v, "unknown partition", produce_body(v, topic, (9, batch())))
        s.error(P, v, "negative partition", produce_body(v, topic, (-1, batch())))
        s.error(P, v, "invalid acks", produce_body(v, topic, (0, batch()), acks=5))
        s.error(
            P, v, "one bad partition of two", produce_body(v, topic, (9, batch()), (0, batch()))
        )
        s.valid(P, v, produce_body(v, topic), "no partitions")
    s.error(P, 12, "empty topic name", produce_body(12, ("", NOBODY), (0, batch())))
    s.error(P, 12, "bad topic name", produce_body(12, ("a/b", NOBODY), (0, batch())))
    s.error(P, 13, "zero topic id", produce_body(13, ("", UUID(int=0)), (0, batch())))


def broken_batches() -> dict[str, bytes]:
    """Batches that are refused whatever the topic."""
    good = batch()
    return {
        "corrupt CRC": changed(good, CRC, "I", 1, seal=False),
        "corrupt records": good[:-1] + b"!",
        "magic 0": old_message_set(0),
        "magic 1": old_message_set(1),
        "magic 3": changed(good, MAGIC, "b", 3),
        "magic -1": changed(good, MAGIC, "b", -1),
        "two batches": good + good,
        "no batch at all": b"",
        "a batch cut short": good[:-5],
        "a header cut short": good[:30],
        "length 5": changed(good, LENGTH, "i", 5, seal=False),
        "length 30": changed(good, LENGTH, "i", 30, seal=False),
        "negative length": changed(good, LENGTH, "i", -1, seal=False),
        "unknown codec": changed(good, ATTRIBUTES, "h", 5),
        "control batch": batch(attributes=0x20),
        "base offset 7": batch(base_offset=7),
        "count 0": changed(good, COUNT, "i", 0),
        "count above offsets": changed(good, COUNT, "i", 9),
        "negative count": changed(good, COUNT, "i", -3),
        "negative last offset delta": changed(good, LAST_DELTA, "i", -4),
        "last offset delta above count": changed(good, LAST_DELTA, "i", 5),
        "only a header": changed(
            changed(changed(good[:HEADER], COUNT, "i", 0), LAST_DELTA, "i", -1),
            LENGTH, "i", HEADER - 12,
        ),
        "producer without sequence": batch(producer=(70, 0, -1)),
    }  # fmt: skip


@script
def produce_broken_batches(s: Session) -> None:
    topic = s.topic()
    for v in versions(P):
        for case, data in broken_batches().items():
            s.error(P, v, case, produce_body(v, topic, (0, data)))
        s.valid(P, v, produce_body(v, topic, (0, batch())), "after all those")


@script
def produce_one_bad_partition_fails_no_other(s: Session) -> None:
    topic = s.topic(partitions=3)
    bad = broken_batches()["corrupt CRC"]
    for v in versions(P):
        body = produce_body(v, topic, (0, batch()), (1, bad), (2, batch()))
        s.error(P, v, "a corrupt batch between two good", body)


@script
def produce_beyond_limits(s: Session) -> None:
    small = s.topic("small", max_message_bytes="200")
    late = s.topic("late", message_timestamp_after_max_ms="3600000")
    early = s.topic("early", message_timestamp_before_max_ms="3600000")
    now = int(time.time() * 1000)

    def without_bounds(answer: Values) -> Values:
        """The words name the clock; the rest stays."""
        for topic in answer["responses"]:
            for partition in topic["partitionResponses"]:
                for fault in partition.get("recordErrors", ()):
                    words = fault["batchIndexErrorMessage"]
                    fault["batchIndexErrorMessage"] = words and words.split("[")[0]
        return answer

    for v in versions(P):
        s.error(P, v, "too large", produce_body(v, small, (0, batch(bytes(300)))))
        s.valid(P, v, produce_body(v, small, (0, batch(bytes(60)))), "under the limit")
        future = batch(b"x", timestamp=(now + DAY_MS) // DAY_MS * DAY_MS + 5 * DAY_MS)
        body = produce_body(v, late, (0, future))
        s.error(P, v, "timestamp in the future", body, only=without_bounds)
        past = batch(b"x", b"y", timestamp=TIME)
        body = produce_body(v, early, (0, past))
        s.error(P, v, "timestamp in the past", body, only=without_bounds)


@script
def produce_idempotent(s: Session) -> None:
    topic = s.topic()

    def data(sequence: int, epoch: int = 5, producer: int = 900) -> bytes:
        return batch(b"a", b"b", producer=(producer, epoch, sequence))

    for v in versions(P):
        producer = 1000 + v

        def send(sequence: int, epoch: int, who: int = producer, v: int = v) -> Values:
            return produce_body(v, topic, (0, data(sequence, epoch, who)))

        s.valid(P, v, send(0, 5), "first of a producer")
        s.valid(P, v, send(2, 5), "second of a producer")
        s.valid(P, v, send(0, 5), "duplicate")
        s.error(P, v, "gap in the sequence", send(9, 5))
        s.error(P, v, "old epoch", send(4, 3))
        s.error(P, v, "new epoch that does not begin at 0", send(4, 6))
        s.valid(P, v, send(0, 6), "new epoch")
        s.valid(P, v, send(7, 0, 2000 + v), "unknown producer in the middle")
        for sequence in range(2, 14, 2):
            s.valid(P, v, send(sequence, 6), f"sequence {sequence}")
        s.error(P, v, "duplicate older than five batches", send(0, 6))
        s.valid(P, v, send(12, 6), "duplicate of the last")


@script
def produce_transactional(s: Session) -> None:
    topic = s.topic()
    until_transactions_are_known(s)
    for v in versions(P):
        data = batch(producer=(3000, 0, 0), attributes=0x10)
        body = produce_body(v, topic, (0, data), transactional_id=s.name("tx"))
        s.error(P, v, "transactional batch", body)
        body = produce_body(v, topic, (0, batch(attributes=0x10)), transactional_id=s.name("tx"))
        s.valid(P, v, body, "transactional batch without producer")


@script
def produce_with_acks_0(s: Session) -> None:
    topic = s.topic()
    for v in versions(P):
        with s.another() as c:
            c.send(P, v, produce_body(v, topic, (0, batch()), acks=0))
            c.expect_none()
            c.send(ApiKey.API_VERSIONS, 0, {})
            answered = bool(c.receive()["apiKeys"])
            s.note(P, v, "acks=0 has no answer", {"the next request is answered": answered})
        with s.another() as c:
            bad = produce_body(v, (s.name("missing"), NOBODY), (0, batch()), acks=0)
            c.send(P, v, bad)
            s.finish(c, P, v, "acks=0 with an error closes", is_error=True)


@script
def produce_to_internal_topics(s: Session) -> None:
    offsets = "__consumer_offsets"
    ready(s)
    s.connection.send(ApiKey.METADATA, 12, {"topics": [{"name": offsets}]})
    (found,) = s.connection.receive()["topics"]
    topic = offsets, found["topicId"]
    s.names.learn(found["topicId"], "id of the offsets topic")
    s.wait_for(offsets, 8)
    keyless = batch(b"x")
    # Of a kind that no coordinator knows, and so passes over.
    record = Record(0, TIME, b"\x00\x63", b"x")
    keyed = bytes(encode_batch([record]))
    admin = s.connect("__admin_client")
    for v in versions(P):
        body = produce_body(v, topic, (7, keyed))
        s.error(P, v, "internal topic by an ordinary client", body)
        s.valid(P, v, body, "internal topic by __admin_client", by=admin, only=without_offset)
        body = produce_body(v, topic, (7, keyless))
        s.error(P, v, "internal topic by __admin_client, without key", body, by=admin)
    # Kafka's coordinator finds its log longer than it left it at its next write there, and loads
    # it anew; every partition is written to until that is over.
    name, _ = s.topic()
    partition = {"partitionIndex": 0, "committedOffset": 1}
    topics = [{"name": name, "partitions": [partition]}]
    for number in range(100):
        group = s.name(f"group-{number}")
        s.until(ApiKey.OFFSET_COMMIT, 8, {"groupId": group, "topics": topics})


def without_offset(answer: Values) -> Values:
    """Others write there too."""
    (partition,) = answer["responses"][0]["partitionResponses"]
    partition["baseOffset"] = partition["baseOffset"] >= 0
    return answer


@script
def produce_null_records(s: Session) -> None:
    topic = s.topic()
    for v in versions(P, 13):
        s.error_or_silence(P, v, "null records", produce_body(v, topic, (0, None)))


@script
def produce_refused_versions(s: Session) -> None:
    topic = s.topic()
    for v in (0, 1, 2):
        with s.another() as c:
            c.send(P, v, produce_body(v, topic, (0, old_message_set(1)), acks=1))
            s.finish(c, P, v, "version that is advertised and not served", is_error=True)
