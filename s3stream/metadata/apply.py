"""What each metadata record does to the image: one pure function a record.

The decisions were checked before they were written (broker/controller); here they only happen.
Some records can come too late and are then passed by: an end that names an object whose maker is
fenced, an opening of an epoch that is over, the end of a move that is not pending any more, and a
change to a topic that is gone. A record
that breaks the order of identifiers is no late one but a fault: it stops the reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import msgspec

from objectstore.errors import Corrupt

from . import records as r
from .features import HEADWATER_VERSION, SUPPORTED_LEVEL
from .image import (
    BrokerRegistration,
    End,
    Handoff,
    IncarnationState,
    MetadataImage,
    Move,
    PartitionImage,
    Rounds,
    TermHolder,
    TopicImage,
    changed,
    new_partition,
    with_partitions,
)

_replace = msgspec.structs.replace


def apply(image: MetadataImage, record: r.Record, position: r.Position) -> MetadataImage:
    """The image after `record`, which stands at `position`.

    Raises Corrupt where the record cannot follow this image.
    """
    if position <= image.position:
        raise Corrupt(f"metadata record {position} after {image.position}")
    if not image.cluster_id and not isinstance(record, r.ClusterCreated):
        raise Corrupt(f"metadata record {position}: {type(record).__name__} before the cluster")
    after = _APPLY[type(record)](image, record, position)
    return changed(after, position=position)


def _cluster_created(
    image: MetadataImage, record: r.ClusterCreated, at: r.Position
) -> MetadataImage:
    if image.cluster_id:
        raise Corrupt(f"metadata record {at}: the cluster is created a second time")
    return changed(
        image,
        cluster_id=record.cluster_id,
        window=record.window,
        store=record.store,
        created_ms=record.created_ms,
    )


def _term_begun(image: MetadataImage, record: r.TermBegun, at: r.Position) -> MetadataImage:
    return changed(image, holder=TermHolder(record.process, record.node_id))


def _broker_registered(
    image: MetadataImage, record: r.BrokerRegistered, at: r.Position
) -> MetadataImage:
    if record.incarnation < image.next_incarnation:
        raise Corrupt(f"metadata record {at}: incarnation {record.incarnation} is given out twice")
    older = image.brokers.get(record.node_id)
    if older is not None:
        image = _fence(image, older.incarnation)
    broker = BrokerRegistration(
        node_id=record.node_id,
        incarnation=record.incarnation,
        process=record.process,
        listeners=record.listeners,
        rack=record.rack,
        fenced=False,
        address_http=record.address_http,
        level=record.level,
    )
    state = IncarnationState(record.incarnation, record.node_id, record.window, False, None, None)
    return changed(
        image,
        brokers=image.brokers.set(record.node_id, broker),
        incarnations=image.incarnations.set(record.incarnation, state),
        next_incarnation=record.incarnation + 1,
    )


def _broker_unregistered(
    image: MetadataImage, record: r.BrokerUnregistered, at: r.Position
) -> MetadataImage:
    broker = image.brokers.get(record.node_id)
    if broker is None:
        return image
    fenced = _fence(image, broker.incarnation)
    return changed(fenced, brokers=fenced.brokers.without(record.node_id))


def _incarnation_fenced(
    image: MetadataImage, record: r.IncarnationFenced, at: r.Position
) -> MetadataImage:
    return _fence(image, record.incarnation)


def _fence(image: MetadataImage, incarnation: int) -> MetadataImage:
    state = image.incarnations.get(incarnation)
    if state is None:
        raise Corrupt(f"incarnation {incarnation} is fenced, but was never registered")
    if state.fenced:
        return image
    brokers = image.brokers
    broker = image.broker_of(incarnation)
    if broker is not None:
        brokers = brokers.set(broker.node_id, _replace(broker, fenced=True))
    incarnations = image.incarnations.set(incarnation, _replace(state, fenced=True))
    # What a dead source was to hand over its failover gives out; a closing told later is too late.
    void = [one.move for one in image.moves.values() if one.source == incarnation]
    return changed(
        image,
        brokers=brokers,
        incarnations=incarnations,
        moves=image.moves.without(*void),
        draining=image.draining.without(incarnation),
    )


def _incarnation_ended(
    image: MetadataImage, record: r.IncarnationEnded, at: r.Position
) -> MetadataImage:
    state = image.incarnations.get(record.incarnation)
    if state is None or not state.fenced:
        raise Corrupt(f"metadata record {at}: incarnation {record.incarnation} was not fenced")
    if is_void(image, record):
        return image
    ended = _replace(state, ended=End(record.end, record.maker), recovery=record.recovery)
    image = changed(image, incarnations=image.incarnations.set(record.incarnation, ended))
    return _with_leaders(image, record.leaders, at)


def is_void(image: MetadataImage, record: r.IncarnationEnded) -> bool:
    """True where the end is recorded already, or its recovery object may be garbage by now."""
    state = image.incarnations[record.incarnation]
    maker = image.incarnations.get(record.recovery_maker)
    return state.ended is not None or maker is None or maker.fenced


def _leaders_changed(
    image: MetadataImage, record: r.LeadersChanged, at: r.Position
) -> MetadataImage:
    return _with_leaders(image, record.leaders, at)


def _with_leaders(
    image: MetadataImage, leaders: Iterable[r.LeaderChange], at: r.Position
) -> MetadataImage:
    updates: list[tuple[UUID, PartitionImage]] = []
    over: list[int] = []
    for change in leaders:
        found = image.partition_of(change.stream_id)
        if found is None:  # deleted meanwhile
            continue
        topic, partition = found
        if change.leader_epoch <= partition.leader_epoch:
            raise Corrupt(
                f"metadata record {at}: the leader epoch of {topic.name}-{partition.index} would "
                f"go from {partition.leader_epoch} to {change.leader_epoch}"
            )
        after = PartitionImage(
            index=partition.index,
            stream_id=partition.stream_id,
            leader=change.leader,
            leader_epoch=change.leader_epoch,
            appointment=at,
            source=change.source,
            is_new=partition.is_new and change.source is None,
        )
        updates.append((topic.topic_id, after))
        handoff = image.handoffs.get(change.stream_id)
        # A source that leads again goes on where it closed: what it told then is not all any more,
        # and should it die, the opening in its log may be the only one to say so.
        leads_again = change.leader == change.source
        if handoff is not None and (leads_again or handoff.source != change.source):
            over.append(change.stream_id)
    return _without_handoffs(with_partitions(image, updates), over)


def _without_handoffs(image: MetadataImage, stream_ids: Iterable[int]) -> MetadataImage:
    over = [one for one in stream_ids if one in image.handoffs]
    return changed(image, handoffs=image.handoffs.without(*over)) if over else image


def _opened(image: MetadataImage, record: r.Opened, at: r.Position) -> MetadataImage:
    updates: list[tuple[UUID, PartitionImage]] = []
    opened: list[int] = []
    for stream_id, leader_epoch in record.streams:
        found = image.partition_of(stream_id)
        if found is None:
            continue
        topic, partition = found
        if partition.leader == record.incarnation and partition.leader_epoch == leader_epoch:
            updates.append((topic.topic_id, _replace(partition, source=None, is_new=False)))
            opened.append(stream_id)
    return _without_handoffs(with_partitions(image, updates), opened)


def _move_begun(image: MetadataImage, record: r.MoveBegun, at: r.Position) -> MetadataImage:
    if record.move < image.next_move:
        raise Corrupt(f"metadata record {at}: move {record.move} begins a second time")
    move = Move(record.move, record.source, record.target, tuple(record.streams))
    return changed(image, moves=image.moves.set(move.move, move), next_move=record.move + 1)


def still_moving(image: MetadataImage, move: Move) -> list[tuple[TopicImage, PartitionImage]]:
    """The partitions that the move is still about: led as it says, and not deleted."""
    found = []
    for stream_id, leader_epoch in move.streams:
        place = image.partition_of(stream_id)
        if place is None:
            continue
        partition = place[1]
        if (partition.leader, partition.leader_epoch) == (move.source, leader_epoch):
            found.append(place)
    return found


def _leaders_moved(image: MetadataImage, record: r.LeadersMoved, at: r.Position) -> MetadataImage:
    move = image.moves.get(record.move)
    if move is None:
        return image
    moved = still_moving(image, move)
    leaders = [
        r.LeaderChange(p.stream_id, move.target, p.leader_epoch + 1, move.source) for _, p in moved
    ]
    handoff = Handoff(move.move, move.source, record.contents)
    image = _with_leaders(image, leaders, at)
    return changed(
        image,
        moves=image.moves.without(move.move),
        handoffs=image.handoffs.change((p.stream_id, handoff) for _, p in moved),
    )


def _move_cancelled(image: MetadataImage, record: r.MoveCancelled, at: r.Position) -> MetadataImage:
    move = image.moves.get(record.move)
    if move is None:
        return image
    # Its own source until it has opened them anew: this appointment has no opening yet.
    leaders = [
        r.LeaderChange(p.stream_id, move.source, p.leader_epoch + 1, move.source)
        for _, p in still_moving(image, move)
    ]
    image = _with_leaders(image, leaders, at)
    return changed(image, moves=image.moves.without(move.move))


def _draining_set(image: MetadataImage, record: r.DrainingSet, at: r.Position) -> MetadataImage:
    state = image.incarnations.get(record.incarnation)
    if state is None or state.fenced or not record.draining:
        return changed(image, draining=image.draining.without(record.incarnation))
    return changed(image, draining=image.draining.set(record.incarnation, True))


def _topic_created(image: MetadataImage, record: r.TopicCreated, at: r.Position) -> MetadataImage:
    if record.name in image.topics or record.topic_id in image.topic_names:
        raise Corrupt(f"metadata record {at}: topic {record.name} is created a second time")
    partitions = _new_partitions(image, 0, record.partitions, at)
    topic = TopicImage(
        name=record.name,
        topic_id=record.topic_id,
        internal=record.internal,
        replication_factor=record.replication_factor,
        configs=record.configs,
        partitions=partitions,
    )
    return changed(
        image,
        topics=image.topics.set(record.name, topic),
        topic_names=image.topic_names.set(record.topic_id, record.name),
        streams=image.streams.change((p.stream_id, (record.topic_id, p.index)) for p in partitions),
        next_stream_id=_after_streams(image, partitions),
    )


def _new_partitions(
    image: MetadataImage, first: int, partitions: Iterable[r.NewPartition], at: r.Position
) -> tuple[PartitionImage, ...]:
    made = tuple(
        new_partition(index, partition.stream_id, partition.leader, at)
        for index, partition in enumerate(partitions, first)
    )
    for partition in made:
        if partition.stream_id < image.next_stream_id:
            raise Corrupt(
                f"metadata record {at}: stream id {partition.stream_id} is given out twice"
            )
    return made


def _after_streams(image: MetadataImage, partitions: Iterable[PartitionImage]) -> int:
    return max((p.stream_id + 1 for p in partitions), default=image.next_stream_id)


def _partitions_created(
    image: MetadataImage, record: r.PartitionsCreated, at: r.Position
) -> MetadataImage:
    topic = image.topic_by_id(record.topic_id)
    if topic is None:
        return image
    if record.first != len(topic.partitions):
        raise Corrupt(f"metadata record {at}: partitions of {topic.name} from {record.first}")
    added = _new_partitions(image, record.first, record.partitions, at)
    grown = _replace(topic, partitions=topic.partitions + added)
    return changed(
        image,
        topics=image.topics.set(topic.name, grown),
        streams=image.streams.change((p.stream_id, (topic.topic_id, p.index)) for p in added),
        next_stream_id=_after_streams(image, added),
    )


def _topic_deleted(image: MetadataImage, record: r.TopicDeleted, at: r.Position) -> MetadataImage:
    topic = image.topic_by_id(record.topic_id)
    if topic is None:
        return image
    image = _without_handoffs(image, (p.stream_id for p in topic.partitions))
    return changed(
        image,
        topics=image.topics.without(topic.name),
        topic_names=image.topic_names.without(topic.topic_id),
        streams=image.streams.without(*(p.stream_id for p in topic.partitions)),
    )


def _configs_altered(
    image: MetadataImage, record: r.ConfigsAltered, at: r.Position
) -> MetadataImage:
    configs = dict(image.resource_configs(record.resource_type, record.name))
    for key, value in record.changes.items():
        if value is None:
            configs.pop(key, None)
        else:
            configs[key] = value
    if record.resource_type == "topic":
        topic = image.topics.get(record.name)
        if topic is None or topic.topic_id != record.topic_id:
            return image
        return changed(image, topics=image.topics.set(topic.name, _replace(topic, configs=configs)))
    resource = (record.resource_type, record.name)
    if not configs:
        return changed(image, configs=image.configs.without(resource))
    return changed(image, configs=image.configs.set(resource, configs))


def _producer_ids_allocated(
    image: MetadataImage, record: r.ProducerIdsAllocated, at: r.Position
) -> MetadataImage:
    if record.first < image.next_producer_id:
        raise Corrupt(f"metadata record {at}: producer id {record.first} is given out twice")
    return changed(image, next_producer_id=record.first + record.count)


def _feature_level_set(
    image: MetadataImage, record: r.FeatureLevelSet, at: r.Position
) -> MetadataImage:
    if record.name == HEADWATER_VERSION and record.level > SUPPORTED_LEVEL:
        raise Corrupt(
            f"metadata record {at}: the cluster's level is {record.level}, this version reads "
            f"up to {SUPPORTED_LEVEL}; start a newer version"
        )
    if record.level == 0:
        return changed(image, features=image.features.without(record.name))
    return changed(image, features=image.features.set(record.name, record.level))


def _round_begun(image: MetadataImage, record: r.RoundBegun, at: r.Position) -> MetadataImage:
    if record.number < image.rounds.next_number:
        raise Corrupt(f"metadata record {at}: round {record.number} begins a second time")
    return changed(image, rounds=Rounds(record.number + 1, record.number, at))


def _round_ended(image: MetadataImage, record: r.RoundEnded, at: r.Position) -> MetadataImage:
    if image.rounds.open != record.number:
        return image
    return changed(image, rounds=Rounds(image.rounds.next_number))


_APPLY: dict[type[Any], Callable[[MetadataImage, Any, r.Position], MetadataImage]] = {
    r.ClusterCreated: _cluster_created,
    r.TermBegun: _term_begun,
    r.BrokerRegistered: _broker_registered,
    r.BrokerUnregistered: _broker_unregistered,
    r.IncarnationFenced: _incarnation_fenced,
    r.IncarnationEnded: _incarnation_ended,
    r.LeadersChanged: _leaders_changed,
    r.Opened: _opened,
    r.MoveBegun: _move_begun,
    r.LeadersMoved: _leaders_moved,
    r.MoveCancelled: _move_cancelled,
    r.DrainingSet: _draining_set,
    r.TopicCreated: _topic_created,
    r.PartitionsCreated: _partitions_created,
    r.TopicDeleted: _topic_deleted,
    r.ConfigsAltered: _configs_altered,
    r.ProducerIdsAllocated: _producer_ids_allocated,
    r.FeatureLevelSet: _feature_level_set,
    r.RoundBegun: _round_begun,
    r.RoundEnded: _round_ended,
}
