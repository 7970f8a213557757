"""ListOffsets: times, and the negative numbers with a meaning, in every version."""

from __future__ import annotations

from typing import Any

from protocol.api_versions import ApiKey
from tests.peers.differential.schema import Values
from tests.peers.differential.session import Session, script, versions

from .batches import TIME, batch
from .fetch import fill

L = ApiKey.LIST_OFFSETS
SPECIAL = {
    "latest": (-1, 1),
    "earliest": (-2, 1),
    "largest timestamp": (-3, 7),
    "earliest local": (-4, 8),
    "latest tiered": (-5, 9),
    "earliest pending upload": (-6, 11),
}


def asked(timestamp: int, index: int = 0, epoch: int = -1) -> Values:
    return {"partitionIndex": index, "timestamp": timestamp, "currentLeaderEpoch": epoch}


def list_body(*topics: tuple[str, list[Values]], isolation: int = 0) -> Values:
    return {
        "replicaId": -1,
        "isolationLevel": isolation,
        "topics": [{"name": name, "partitions": found} for name, found in topics],
        "timeoutMs": 5000,
    }


def filled(s: Session) -> str:
    topic = s.topic(partitions=2)
    fill(s, topic, batch(b"a", b"b"), batch(b"c", timestamp=TIME + 60_000))
    fill(s, topic, batch(b"d", b"e", b"f", timestamp=TIME + 10_000, step_ms=-1000))
    return topic[0]


@script
def list_offsets_every_version(s: Session) -> None:
    name = filled(s)
    for v in versions(L):
        s.valid(L, v, list_body((name, [asked(-1), asked(-1, 1)])))
        s.valid(L, v, list_body((name, [asked(-1)]), isolation=1), "read_committed")
        for case, timestamp in (
            ("before all", 0),
            ("of a record inside a batch", TIME + 1000),
            ("between records", TIME + 500),
            ("of the newest", TIME + 60_000),
            ("after all", TIME + 99_000),
        ):
            s.valid(L, v, list_body((name, [asked(timestamp)])), f"a time {case}")
        s.valid(L, v, list_body((name, [asked(0, 1)])), "a time in an empty log")
        s.valid(L, v, list_body(), "no topics")
        s.valid(L, v, {**list_body((name, [asked(-1)])), "replicaId": -2}, "a debugging consumer")


@script
def list_offsets_special(s: Session) -> None:
    name = filled(s)
    for v in versions(L):
        for case, (number, first) in SPECIAL.items():
            for where, index in (("", 0), (" of an empty log", 1)):
                body = list_body((name, [asked(number, index)]))
                if v >= first:
                    s.valid(L, v, body, case + where)
                else:
                    s.error(L, v, f"{case}{where}, before its version", body)


@script
def list_offsets_after_deletion(s: Session) -> None:
    name = filled(s)
    delete: Any = {
        "topics": [{"name": name, "partitions": [{"partitionIndex": 0, "offset": 1}]}],
        "timeoutMs": 10_000,
    }
    s.quietly(ApiKey.DELETE_RECORDS, 2, delete)
    for number in (-1, -2, -3, -4, 0, TIME):
        body = list_body((name, [asked(number)]))
        s.valid(L, 9, body, f"timestamp {number} after records were deleted")


@script
def list_offsets_refusals(s: Session) -> None:
    name = filled(s)
    missing = s.name("missing")
    for v in versions(L):
        s.error(L, v, "unknown topic", list_body((missing, [asked(-1)])))
        s.error(L, v, "unknown partition", list_body((name, [asked(-1, 9)])))
        s.error(L, v, "a number without meaning", list_body((name, [asked(-9)])))
        s.error(L, v, "a partition twice", list_body((name, [asked(-1), asked(-2), asked(-1, 1)])))
        s.error(L, v, "one bad partition of two", list_body((name, [asked(-1, 9), asked(-1)])))
        if v >= 4:
            s.error(L, v, "unknown leader epoch", list_body((name, [asked(-1, epoch=9)])))
            s.error(L, v, "fenced leader epoch", list_body((name, [asked(-1, epoch=-2)])))
            s.valid(L, v, list_body((name, [asked(-1, epoch=0)])), "current leader epoch")
