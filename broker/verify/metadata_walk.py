"""The metadata log, folded by this command itself to the little that the chain needs of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from objectstore.store import ObjectStore
from s3stream.metadata import records as r
from s3stream.metadata.records import BEFORE_ALL, BlobRef, Position, decode_record
from s3stream.metadata.snapshot import decode_image
from wal.format import Kind, read_blob
from wal.keys import SNAPSHOT_PREFIX, meta_log, parse_snapshot_key

from .fault import Fault
from .log_walk import read_log


@dataclass(frozen=True, slots=True)
class PartitionPlace:
    """Where the chain of one partition begins. leader: r.NO_LEADER where there is none."""

    topic: str
    index: int
    stream_id: int
    leader: int
    epoch: int
    appointment: Position
    source: int | None
    is_new: bool

    def __str__(self) -> str:
        return f"{self.topic}-{self.index}"


@dataclass(slots=True)
class IncarnationPlace:
    """recovery: recorded with its end; None also where its log held nothing."""

    fenced: bool = False
    ended: bool = False
    recovery: BlobRef | None = None


@dataclass(slots=True)
class Metadata:
    cluster_id: str = ""
    term: int = 0
    records: int = 0
    position: Position = BEFORE_ALL
    incarnations: dict[int, IncarnationPlace] = field(default_factory=dict)
    nodes: dict[int, int] = field(default_factory=dict)
    partitions: dict[int, PartitionPlace] = field(default_factory=dict)
    topics: dict[bytes, str] = field(default_factory=dict)
    moves: dict[int, r.MoveBegun] = field(default_factory=dict)

    def apply(self, record: r.Record, at: Position) -> None:
        match record:
            case r.ClusterCreated():
                self.cluster_id = record.cluster_id
            case r.BrokerRegistered():
                self._fence(self.nodes.get(record.node_id))
                self.nodes[record.node_id] = record.incarnation
                if record.incarnation in self.incarnations:
                    raise Fault(f"{at}: incarnation {record.incarnation} is given out twice")
                self.incarnations[record.incarnation] = IncarnationPlace()
            case r.BrokerUnregistered():
                self._fence(self.nodes.pop(record.node_id, None))
            case r.IncarnationFenced():
                self._fence(record.incarnation)
            case r.IncarnationEnded():
                self._end(record, at)
            case r.LeadersChanged():
                self._lead(record.leaders, at)
            case r.Opened():
                self._opened(record)
            case r.MoveBegun():
                self.moves[record.move] = record
            case r.LeadersMoved():
                self._move(record.move, at, to_target=True)
            case r.MoveCancelled():
                self._move(record.move, at, to_target=False)
            case r.TopicCreated():
                self.topics[record.topic_id.bytes] = record.name
                self._add(record.name, 0, record.partitions, at)
            case r.PartitionsCreated():
                name = self.topics.get(record.topic_id.bytes)
                if name is not None:
                    self._add(name, record.first, record.partitions, at)
            case r.TopicDeleted():
                name = self.topics.pop(record.topic_id.bytes, None)
                if name is not None:
                    for stream_id in [i for i, p in self.partitions.items() if p.topic == name]:
                        del self.partitions[stream_id]
            case _:
                pass  # not of the chain
        self.records += 1
        self.position = at

    def _fence(self, incarnation: int | None) -> None:
        if incarnation is not None:
            self.incarnations[incarnation].fenced = True

    def _end(self, record: r.IncarnationEnded, at: Position) -> None:
        state = self.incarnations[record.incarnation]
        maker = self.incarnations.get(record.recovery_maker)
        if state.ended or maker is None or maker.fenced:
            return  # void
        state.ended, state.recovery = True, record.recovery
        self._lead(record.leaders, at)

    def _lead(self, leaders: list[r.LeaderChange], at: Position) -> None:
        for change in leaders:
            place = self.partitions.get(change.stream_id)
            if place is None:
                continue
            if change.leader_epoch <= place.epoch:
                raise Fault(f"{place}: its leader epoch goes back to {change.leader_epoch} at {at}")
            self.partitions[change.stream_id] = replace(
                place,
                leader=change.leader,
                epoch=change.leader_epoch,
                appointment=at,
                source=change.source,
                is_new=place.is_new and change.source is None,
            )

    def _move(self, number: int, at: Position, *, to_target: bool) -> None:
        move = self.moves.pop(number, None)
        if move is None or self.incarnations[move.source].fenced:
            return  # over by then
        leader = move.target if to_target else move.source
        for stream_id, epoch in move.streams:
            place = self.partitions.get(stream_id)
            if place is not None and (place.leader, place.epoch) == (move.source, epoch):
                self._lead([r.LeaderChange(stream_id, leader, epoch + 1, move.source)], at)

    def _opened(self, record: r.Opened) -> None:
        for stream_id, epoch in record.streams:
            place = self.partitions.get(stream_id)
            if place is not None and (place.leader, place.epoch) == (record.incarnation, epoch):
                self.partitions[stream_id] = replace(place, source=None, is_new=False)

    def _add(self, name: str, first: int, made: list[r.NewPartition], at: Position) -> None:
        for index, one in enumerate(made, first):
            if one.stream_id in self.partitions:
                raise Fault(f"{name}-{index}: stream {one.stream_id} is given out twice")
            epoch = 0 if one.leader != r.NO_LEADER else -1
            self.partitions[one.stream_id] = PartitionPlace(
                name, index, one.stream_id, one.leader, epoch, at, None, True
            )


async def read_metadata(store: ObjectStore) -> Metadata:
    """Raises Fault: also where there is no cluster."""
    found = Metadata()
    newest: tuple[int, int] | None = None
    key = ""
    async for info in store.list(SNAPSHOT_PREFIX):
        parsed = parse_snapshot_key(info.key)
        if parsed is None:
            raise Fault(f"{info.key}: does not belong among the snapshots")
        newest, key = parsed, info.key
    term, next_seq = 0, 0
    if newest is not None:
        _from_snapshot(found, key, (await read_blob(store, key, Kind.SNAPSHOT)).body)
        term, next_seq = newest[0], newest[1] + 1
    while True:
        log = await read_log(store, meta_log(term), next_seq)
        if log.records and log.records[0].seq > next_seq:
            raise Fault(f"{meta_log(term).key(next_seq)}: missing, and no snapshot reaches to it")
        for one in log.records:
            for n, control in enumerate(one.index.controls):
                found.apply(decode_record(control, one.key), Position(term, one.seq, n))
        found.term = term
        if not log.ended:
            break
        term, next_seq = term + 1, 0
    if not found.cluster_id:
        raise Fault("no cluster: there is no meta/0/0 that creates one in this store")
    return found


def _from_snapshot(found: Metadata, key: str, body: memoryview) -> None:
    image = decode_image(body, key)
    found.cluster_id = image.cluster_id
    for incarnation, state in image.incarnations.items():
        found.incarnations[incarnation] = IncarnationPlace(
            state.fenced, state.ended is not None, state.recovery
        )
    for node_id, broker in image.brokers.items():
        found.nodes[node_id] = broker.incarnation
    for number, move in image.moves.items():
        found.moves[number] = r.MoveBegun(number, move.source, move.target, list(move.streams))
    for topic in image.topics.values():
        found.topics[topic.topic_id.bytes] = topic.name
        for one in topic.partitions:
            found.partitions[one.stream_id] = PartitionPlace(
                topic.name,
                one.index,
                one.stream_id,
                one.leader,
                one.leader_epoch,
                one.appointment,
                one.source,
                one.is_new,
            )
