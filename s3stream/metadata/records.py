"""The records of the metadata log: what the controller decided, one record a decision.

    byte      field
    0         format version of the record
    1 …       msgpack of a map: "t" the record's name, the rest its fields

A field that a later version adds has a default, and an older reader skips it. What an older reader
must not skip gets a record of a new name or a new format version: both stop it with a clear word.
Records are frozen; the image applies them (`image.apply`) and nothing else reads them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from objectstore.errors import Corrupt

RECORD_VERSION = 1
NO_LEADER = -1


class Position(NamedTuple):
    """Where a record is: term, sequence of the log object, number among the object's records."""

    term: int
    seq: int
    n: int


BEFORE_ALL = Position(-1, -1, -1)


class Endpoint(NamedTuple):
    """What a client connects to: the advertised address of a listener."""

    name: str
    host: str
    port: int


class BlobRef(NamedTuple):
    """An object by key and write id; size in bytes."""

    key: str
    write_id: bytes
    size_bytes: int


class _Record(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    pass


class ClusterCreated(_Record, frozen=True, tag="cluster-created"):
    """The first record there is (meta/0/0).

    window: PUTs in flight of every term's log, for ever. store: driver and endpoint that passed
    the test of conditional creates; a start by another door tests again.
    """

    cluster_id: str
    window: int
    store: str
    created_ms: int


class TermBegun(_Record, frozen=True, tag="term-begun"):
    """The first record of a term (but for term 0, where it follows ClusterCreated): whose it is."""

    process: bytes
    node_id: int
    began_ms: int


class BrokerRegistered(_Record, frozen=True, tag="broker-registered"):
    """A process got an incarnation; an older one of the same node id is fenced by this.

    window: PUTs in flight of its write-ahead log, for ever. level: the highest level of
    `features.HEADWATER_VERSION` whose records the process reads.
    """

    node_id: int
    incarnation: int
    process: bytes
    window: int
    listeners: tuple[Endpoint, ...]
    rack: str | None = None
    address_http: str | None = None
    level: int = 1


class BrokerUnregistered(_Record, frozen=True, tag="broker-unregistered"):
    """A node left the cluster for good. Its incarnation is fenced by this if it was not before."""

    node_id: int


class IncarnationFenced(_Record, frozen=True, tag="incarnation-fenced"):
    """The incarnation serves nobody any more; its log may be ended."""

    incarnation: int


class LeaderChange(msgspec.Struct, frozen=True, array_like=True):
    """source: the incarnation whose log holds the contents; None: the stream was never opened."""

    stream_id: int
    leader: int
    leader_epoch: int
    source: int | None


class IncarnationEnded(_Record, frozen=True, tag="incarnation-ended"):
    """The log of a fenced incarnation ends before `end`, and `leaders` take over what it led.

    One record, since nobody may act on one half of it. maker: the process that created the log's
    `end`. recovery: what the log held (None: nothing). recovery_maker: the incarnation that wrote
    the recovery object; if that one is fenced before this record, this record is void, since
    the collector may hold the object for garbage.
    """

    incarnation: int
    end: int
    maker: bytes
    recovery: BlobRef | None
    recovery_maker: int
    leaders: list[LeaderChange]


class LeadersChanged(_Record, frozen=True, tag="leaders-changed"):
    """New leaders, for another reason than the end of a log."""

    leaders: list[LeaderChange]


class Opened(_Record, frozen=True, tag="opened"):
    """The leader's openings of these streams are durable in its log: their sources are cleared.

    streams: (stream id, leader epoch of the opening); a pair whose epoch is over is passed by.
    """

    incarnation: int
    streams: list[tuple[int, int]]


class NewPartition(msgspec.Struct, frozen=True, array_like=True):
    stream_id: int
    leader: int


class MoveBegun(_Record, frozen=True, tag="move-begun"):
    """Leadership of these streams is to go from one live incarnation to another (level 2).

    move: its number, given out once. streams: (stream id, leader epoch under which `source`
    leads); a pair whose epoch is over by the end of the move stays out of it.
    """

    move: int
    source: int
    target: int
    streams: list[tuple[int, int]]


class LeadersMoved(_Record, frozen=True, tag="leaders-moved"):
    """The source's closing record of a move is durable: the target leads, each epoch one higher.

    contents: the object that tells what the streams held at the closing: the log object with the
    closing record, or the blob that the record names.
    """

    move: int
    contents: BlobRef


class MoveCancelled(_Record, frozen=True, tag="move-cancelled"):
    """The source goes on leading, each epoch one higher: whatever it closed it opens again."""

    move: int


class DrainingSet(_Record, frozen=True, tag="draining-set"):
    """Whether a live incarnation is to be given nothing more to lead, being about to leave."""

    incarnation: int
    draining: bool


class TopicCreated(_Record, frozen=True, tag="topic-created"):
    """replication_factor: as asked for; the store keeps the copies. Partitions count from 0."""

    name: str
    topic_id: UUID
    internal: bool
    replication_factor: int
    configs: dict[str, str]
    partitions: list[NewPartition]


class PartitionsCreated(_Record, frozen=True, tag="partitions-created"):
    """More partitions of a topic, numbered from `first`."""

    topic_id: UUID
    first: int
    partitions: list[NewPartition]


class TopicDeleted(_Record, frozen=True, tag="topic-deleted"):
    topic_id: UUID


class ConfigsAltered(_Record, frozen=True, tag="configs-altered"):
    """Dynamic configuration of one resource; None removes a key.

    resource_type: "topic" (name: the topic's) or "broker" (name: a node id, "" for all).
    topic_id: of that topic, so that a namesake made later keeps clear of it.
    """

    resource_type: str
    name: str
    changes: dict[str, str | None]
    topic_id: UUID | None = None


class ProducerIdsAllocated(_Record, frozen=True, tag="producer-ids-allocated"):
    """An incarnation may give out the producer ids from `first` to `first + count - 1`."""

    incarnation: int
    first: int
    count: int


class FeatureLevelSet(_Record, frozen=True, tag="feature-level-set"):
    """Level 0 removes the feature."""

    name: str
    level: int


class RoundBegun(_Record, frozen=True, tag="round-begun"):
    """A round of deletion; its candidates were listed before this record."""

    number: int


class RoundEnded(_Record, frozen=True, tag="round-ended"):
    """abandoned: an incarnation was fenced before its report, so the round deletes nothing."""

    number: int
    abandoned: bool


Record: TypeAlias = (
    ClusterCreated
    | TermBegun
    | BrokerRegistered
    | BrokerUnregistered
    | IncarnationFenced
    | IncarnationEnded
    | LeadersChanged
    | Opened
    | MoveBegun
    | LeadersMoved
    | MoveCancelled
    | DrainingSet
    | TopicCreated
    | PartitionsCreated
    | TopicDeleted
    | ConfigsAltered
    | ProducerIdsAllocated
    | FeatureLevelSet
    | RoundBegun
    | RoundEnded
)

_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Record)
_VERSION_BYTE = bytes([RECORD_VERSION])


def encode_record(record: Record) -> bytes:
    return _VERSION_BYTE + _encoder.encode(record)


def decode_record(data: bytes | memoryview, where: str) -> Record:
    """where: key of the object, for the error.

    Raises Corrupt, also for what a newer version wrote: to pass it by would be to decide on half
    of the decisions.
    """
    if not data:
        raise Corrupt(f"{where}: an empty metadata record")
    if data[0] != RECORD_VERSION:
        raise Corrupt(
            f"{where}: metadata record of format {data[0]}, this version reads {RECORD_VERSION}; "
            "start the newer version that wrote it"
        )
    try:
        record: Record = _decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise Corrupt(f"{where}: unreadable metadata record: {error}") from error
    return record
