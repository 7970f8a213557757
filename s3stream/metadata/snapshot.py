"""Snapshots: the whole image as one object, so that a start reads no old terms.

    meta/snapshot/<term>-<seq>    the image after every record up to and with that log object

The newest is found by LIST. Its body is one msgpack array with a format version in front; what the
image derives from other fields is not in it. Format 1 ends with the deletion rounds; format 2 has
moves of leadership after them, and is written once the cluster's level says that all read it.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

import msgspec

from objectstore.create import OnTrouble, create_once
from objectstore.errors import Corrupt
from objectstore.store import ObjectStore
from wal.format import Kind, compose_blob, read_blob
from wal.keys import SNAPSHOT_PREFIX, parse_snapshot_key, snapshot_key

from .features import FIRST_LEVEL, HEADWATER_VERSION, SUPPORTED_LEVEL, may_move
from .image import (
    BrokerRegistration,
    Handoff,
    IncarnationState,
    MetadataImage,
    Move,
    Rounds,
    TermHolder,
    TopicImage,
)
from .persistent_map import PersistentMap
from .records import Position

SNAPSHOT_VERSION = 2
# Written while the cluster's level is one that the first release reads.
FIRST_SNAPSHOT_VERSION = 1


class SnapshotName(NamedTuple):
    key: str
    term: int
    seq: int


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    cluster_id: str
    window: int
    store: str
    created_ms: int
    position: Position
    holder: TermHolder | None
    brokers: list[BrokerRegistration]
    incarnations: list[IncarnationState]
    topics: list[TopicImage]
    configs: list[tuple[str, str, dict[str, str]]]
    features: dict[str, int]
    next_producer_id: int
    next_stream_id: int
    next_incarnation: int
    rounds: Rounds
    # From format 2 on.
    next_move: int = 0
    moves: list[Move] = []
    handoffs: list[tuple[Handoff, list[int]]] = []
    draining: list[int] = []


# What was behind `rounds` before there were moves: nothing.
_FIELDS_OF_FIRST = 16


_encoder = msgspec.msgpack.Encoder(uuid_format="bytes")
_decoder = msgspec.msgpack.Decoder(_Snapshot)
_version_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])


def encode_image(image: MetadataImage) -> bytes:
    """Equal images give equal bytes, whatever the order in which they came to be."""
    newer = may_move(image) or image.next_move > 0 or bool(image.draining)
    version = SNAPSHOT_VERSION if newer else FIRST_SNAPSHOT_VERSION
    by_handoff: dict[Handoff, list[int]] = {}
    for stream_id in sorted(image.handoffs):
        by_handoff.setdefault(image.handoffs[stream_id], []).append(stream_id)
    body = _Snapshot(
        version=version,
        cluster_id=image.cluster_id,
        window=image.window,
        store=image.store,
        created_ms=image.created_ms,
        position=image.position,
        holder=image.holder,
        brokers=[image.brokers[key] for key in sorted(image.brokers)],
        incarnations=[image.incarnations[key] for key in sorted(image.incarnations)],
        topics=[image.topics[name] for name in sorted(image.topics)],
        configs=[
            (kind, name, dict(sorted(image.configs[kind, name].items())))
            for kind, name in sorted(image.configs)
        ],
        features=dict(sorted(image.features.items())),
        next_producer_id=image.next_producer_id,
        next_stream_id=image.next_stream_id,
        next_incarnation=image.next_incarnation,
        rounds=image.rounds,
        next_move=image.next_move,
        moves=[image.moves[number] for number in sorted(image.moves)],
        handoffs=sorted(by_handoff.items()),
        draining=sorted(image.draining),
    )
    if version == FIRST_SNAPSHOT_VERSION:
        return _encoder.encode(msgspec.structs.astuple(body)[:_FIELDS_OF_FIRST])
    return _encoder.encode(body)


def decode_image(data: bytes | memoryview, where: str) -> MetadataImage:
    """where: the object's key, for the error. Raises Corrupt."""
    try:
        fields = _version_decoder.decode(data)
        version = msgspec.msgpack.decode(fields[0], type=int) if fields else -1
        if not FIRST_SNAPSHOT_VERSION <= version <= SNAPSHOT_VERSION:
            raise Corrupt(
                f"{where}: metadata snapshot of format {version}, this version reads "
                f"{FIRST_SNAPSHOT_VERSION} to {SNAPSHOT_VERSION}; start the newer version that "
                "wrote it"
            )
        body = _decoder.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise Corrupt(f"{where}: unreadable metadata snapshot: {error}") from error
    level = body.features.get(HEADWATER_VERSION, FIRST_LEVEL)
    if level > SUPPORTED_LEVEL:
        raise Corrupt(
            f"{where}: the cluster's level is {level}, this version reads up to {SUPPORTED_LEVEL}; "
            "start a newer version"
        )
    return MetadataImage(
        cluster_id=body.cluster_id,
        window=body.window,
        store=body.store,
        created_ms=body.created_ms,
        position=body.position,
        holder=body.holder,
        brokers=PersistentMap((broker.node_id, broker) for broker in body.brokers),
        incarnations=PersistentMap((state.incarnation, state) for state in body.incarnations),
        topics=PersistentMap((topic.name, topic) for topic in body.topics),
        topic_names=PersistentMap((topic.topic_id, topic.name) for topic in body.topics),
        streams=PersistentMap(
            (partition.stream_id, (topic.topic_id, partition.index))
            for topic in body.topics
            for partition in topic.partitions
        ),
        configs=PersistentMap(((kind, name), configs) for kind, name, configs in body.configs),
        features=PersistentMap(body.features.items()),
        next_producer_id=body.next_producer_id,
        next_stream_id=body.next_stream_id,
        next_incarnation=body.next_incarnation,
        rounds=body.rounds,
        moves=PersistentMap((move.move, move) for move in body.moves),
        next_move=body.next_move,
        handoffs=PersistentMap(
            (stream_id, handoff) for handoff, streams in body.handoffs for stream_id in streams
        ),
        draining=PersistentMap((incarnation, True) for incarnation in body.draining),
    )


async def list_snapshots(store: ObjectStore) -> list[SnapshotName]:
    """All there are, oldest first."""
    found = []
    async for info in store.list(SNAPSHOT_PREFIX):
        parsed = parse_snapshot_key(info.key)
        if parsed is not None:
            found.append(SnapshotName(info.key, *parsed))
    return found


async def write_snapshot(
    store: ObjectStore,
    image: MetadataImage,
    *,
    rng: Random,
    on_trouble: OnTrouble | None = None,
) -> SnapshotName:
    """Write the image, which must stand at the end of a log object; durable when this returns.

    Another's snapshot of the same place has the same contents, so it does as well.
    """
    name = SnapshotName(
        snapshot_key(image.position.term, image.position.seq),
        image.position.term,
        image.position.seq,
    )
    write_id = rng.randbytes(16)
    chunks, _ = compose_blob(Kind.SNAPSHOT, name.term, name.seq, write_id, encode_image(image))
    await create_once(store, name.key, chunks, write_id, rng=rng, on_trouble=on_trouble)
    return name


async def read_snapshot(store: ObjectStore, name: SnapshotName) -> MetadataImage:
    """Raises NotFound (two newer ones are there: look again), Corrupt."""
    blob = await read_blob(store, name.key, Kind.SNAPSHOT)
    image = decode_image(blob.body, name.key)
    if image.position[:2] != (name.term, name.seq):
        raise Corrupt(f"{name.key}: holds the image of {image.position}")
    return image
