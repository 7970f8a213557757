"""The metadata image: what all records up to a position decided, as one immutable value.

Brokers act on images only, never on a record by itself. `apply` is pure, and live and recovered
brokers both fold the same records in the same order, so that their images cannot differ. Maps are
persistent (`persistent_map`): a record copies what it touches, not what there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from .persistent_map import PersistentMap
from .records import BEFORE_ALL, NO_LEADER, BlobRef, Endpoint, Position


class BrokerRegistration(msgspec.Struct, frozen=True, array_like=True):
    """The newest incarnation of a node. fenced: it serves nobody; another may take over."""

    node_id: int
    incarnation: int
    process: bytes
    listeners: tuple[Endpoint, ...]
    rack: str | None
    fenced: bool
    address_http: str | None
    level: int = 1


class End(NamedTuple):
    """A log counts up to, not including, sequence `end`; maker: the process that made it final."""

    end: int
    maker: bytes


class IncarnationState(msgspec.Struct, frozen=True, array_like=True):
    """A broker's process and its log. recovery: what the ended log held; None: nothing."""

    incarnation: int
    node_id: int
    window: int
    fenced: bool
    ended: End | None
    recovery: BlobRef | None


class PartitionImage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """leader: an incarnation, or NO_LEADER. appointment: the record that made it leader.

    source: the incarnation whose log holds the contents until the leader's opening is recorded;
    None with is_new: never opened, so the leader opens an empty stream; None without: the
    leader's own log.
    """

    index: int
    stream_id: int
    leader: int
    leader_epoch: int
    appointment: Position
    source: int | None
    is_new: bool


class TopicImage(msgspec.Struct, frozen=True, array_like=True):
    """partitions: at their index. replication_factor: as asked for at creation."""

    name: str
    topic_id: UUID
    internal: bool
    replication_factor: int
    configs: dict[str, str]  # never changed in place
    partitions: tuple[PartitionImage, ...]


class Rounds(NamedTuple):
    """Deletion rounds. open: number of the one under way, begun by the record at `begun_at`."""

    next_number: int = 0
    open: int | None = None
    begun_at: Position = BEFORE_ALL


class TermHolder(NamedTuple):
    """The controller of the image's term."""

    process: bytes
    node_id: int


class Move(msgspec.Struct, frozen=True, array_like=True):
    """Leadership on its way from a live incarnation to another. streams: (stream id, epoch)."""

    move: int
    source: int
    target: int
    streams: tuple[tuple[int, int], ...]


class Handoff(NamedTuple):
    """Where the closing of a move tells of a stream; until its opening by a later leader."""

    move: int
    source: int
    contents: BlobRef


_NO_CONFIGS: Mapping[str, str] = {}


class MetadataImage(msgspec.Struct, frozen=True):
    """position: the last record applied. cluster_id is "" before the cluster is created.

    draining: live incarnations that are about to leave. moves: pending, by number. handoffs: by
    stream id, of streams whose source is an incarnation that closed them; once that one is dead,
    they say the same as its recovery object.
    """

    cluster_id: str = ""
    window: int = 0
    store: str = ""
    created_ms: int = 0
    position: Position = BEFORE_ALL
    holder: TermHolder | None = None
    brokers: PersistentMap[int, BrokerRegistration] = PersistentMap()
    incarnations: PersistentMap[int, IncarnationState] = PersistentMap()
    topics: PersistentMap[str, TopicImage] = PersistentMap()
    topic_names: PersistentMap[UUID, str] = PersistentMap()
    streams: PersistentMap[int, tuple[UUID, int]] = PersistentMap()
    configs: PersistentMap[tuple[str, str], Mapping[str, str]] = PersistentMap()
    features: PersistentMap[str, int] = PersistentMap()
    next_producer_id: int = 0
    next_stream_id: int = 0
    next_incarnation: int = 0
    rounds: Rounds = Rounds()
    moves: PersistentMap[int, Move] = PersistentMap()
    next_move: int = 0
    handoffs: PersistentMap[int, Handoff] = PersistentMap()
    draining: PersistentMap[int, bool] = PersistentMap()

    @property
    def term(self) -> int:
        return self.position.term

    def goes_on_after(self, before: MetadataImage) -> bool:
        """Whether, since that older image, a controller said that its term begins, or goes on."""
        # Not equality: the same one says it again and again, and each time makes it anew.
        return self.holder is not before.holder

    def topic_by_id(self, topic_id: UUID) -> TopicImage | None:
        name = self.topic_names.get(topic_id)
        return None if name is None else self.topics[name]

    def partition_of(self, stream_id: int) -> tuple[TopicImage, PartitionImage] | None:
        found = self.streams.get(stream_id)
        if found is None:
            return None
        topic = self.topics[self.topic_names[found[0]]]
        return topic, topic.partitions[found[1]]

    def broker_of(self, incarnation: int) -> BrokerRegistration | None:
        """The registration of an incarnation; None where a newer one took its node id."""
        state = self.incarnations.get(incarnation)
        broker = None if state is None else self.brokers.get(state.node_id)
        return broker if broker is not None and broker.incarnation == incarnation else None

    def live_brokers(self) -> list[BrokerRegistration]:
        """Not fenced, by node id."""
        live = (broker for broker in self.brokers.values() if not broker.fenced)
        return sorted(live, key=lambda broker: broker.node_id)

    def staying_brokers(self) -> list[BrokerRegistration]:
        """Live ones that may be given something to lead; all live ones, where all are leaving."""
        live = self.live_brokers()
        return [one for one in live if one.incarnation not in self.draining] or live

    def unended(self) -> list[IncarnationState]:
        """Fenced incarnations whose log has not been ended and taken over yet, oldest first."""
        states = (s for s in self.incarnations.values() if s.fenced and s.ended is None)
        return sorted(states, key=lambda state: state.incarnation)

    def partitions(self) -> Iterator[tuple[TopicImage, PartitionImage]]:
        for topic in self.topics.values():
            for partition in topic.partitions:
                yield topic, partition

    def led_by(self, incarnation: int) -> list[tuple[TopicImage, PartitionImage]]:
        """What an incarnation leads, by stream id. Looks at every partition there is."""
        led = [(t, p) for t, p in self.partitions() if p.leader == incarnation]
        led.sort(key=lambda pair: pair[1].stream_id)
        return led

    def resource_configs(self, resource_type: str, name: str) -> Mapping[str, str]:
        """Dynamic configuration of a broker ("" for all of them) or a topic."""
        if resource_type == "topic":
            topic = self.topics.get(name)
            return _NO_CONFIGS if topic is None else topic.configs
        return self.configs.get((resource_type, name), _NO_CONFIGS)


EMPTY_IMAGE = MetadataImage()


def changed(image: MetadataImage, **fields: Any) -> MetadataImage:
    """The image with other `fields`; everything else is shared."""
    return msgspec.structs.replace(image, **fields)


def with_partitions(
    image: MetadataImage, updates: Iterable[tuple[UUID, PartitionImage]]
) -> MetadataImage:
    """The image with partitions replaced at their index; each topic touched is copied once."""
    by_topic: dict[UUID, list[PartitionImage]] = {}
    for topic_id, partition in updates:
        by_topic.setdefault(topic_id, []).append(partition)
    topics: list[tuple[str, TopicImage]] = []
    for topic_id, replaced in by_topic.items():
        topic = image.topics[image.topic_names[topic_id]]
        partitions = list(topic.partitions)
        for partition in replaced:
            partitions[partition.index] = partition
        topics.append((topic.name, msgspec.structs.replace(topic, partitions=tuple(partitions))))
    return changed(image, topics=image.topics.change(topics)) if topics else image


def new_partition(index: int, stream_id: int, leader: int, appointment: Position) -> PartitionImage:
    """A partition never opened yet, at leader epoch 0."""
    return PartitionImage(
        index=index,
        stream_id=stream_id,
        leader=leader,
        leader_epoch=0 if leader != NO_LEADER else -1,
        appointment=appointment,
        source=None,
        is_new=True,
    )
