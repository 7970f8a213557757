"""Reassigning partitions, as Kafka's tools ask for it, by moves of leadership.

A partition has one leader and no other replica that matters, since the store keeps the copies. To
assign it to a list of brokers has the first of them that is live lead it; the others are checked,
and nothing more. A reassignment that supersedes a pending move, or cancels it, cancels the whole
move, and has what else went along begin anew.
Source of rules and words: ReplicationControlManager, Apache Kafka 4.3.1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.apply import still_moving
from s3stream.metadata.image import MetadataImage, Move, PartitionImage

from .decisions import Membership
from .topics import check_assignment, first_live

log = logging.getLogger(__name__)

# A partition that is being opened can be moved in a moment.
AGAIN_S = 0.05
PATIENCE_S = 20.0

# How many replicas clients are told of. Arguments: the image, a partition of it.
CountShown = Callable[[MetadataImage, PartitionImage], int]


@dataclass(frozen=True, slots=True)
class Wish:
    """nodes: who is to lead, first choice first; None: cancel what is under way."""

    topic: str
    index: int
    nodes: Sequence[int] | None


@dataclass(frozen=True, slots=True, order=True)
class UnderWay:
    """A partition on its way between two nodes."""

    topic: str
    index: int
    source: int
    target: int


def under_way(image: MetadataImage) -> list[UnderWay]:
    """Every partition that moves, by topic and index."""
    found = []
    for number in sorted(image.moves):
        move = image.moves[number]
        source, target = (image.incarnations.get(one) for one in (move.source, move.target))
        if source is None or target is None:
            continue
        found += [
            UnderWay(topic.name, partition.index, source.node_id, target.node_id)
            for topic, partition in still_moving(image, move)
        ]
    return sorted(found)


@dataclass(slots=True)
class Step:
    """What is to be asked of the controller now. begin: incarnations by stream id."""

    cancel: list[int] = field(default_factory=list)
    begin: dict[int, int] = field(default_factory=dict)


class Reassignment:
    """One request, looked at again until each wish has its answer.

    shown: what the number of replicas is to stay; None: it does not matter. answers: by number of
    the wish; None: done, that is begun, and durable.
    """

    def __init__(self, wishes: Sequence[Wish], shown: CountShown | None = None) -> None:
        self._wishes = wishes
        self._shown = shown
        self._last = {(wish.topic, wish.index): n for n, wish in enumerate(wishes)}
        self._cancelled: dict[int, Move] = {}
        self._rest: dict[int, int] = {}
        self._cancelling: set[int] = set()
        self.answers: dict[int, KafkaError | None] = {}

    @property
    def unanswered(self) -> list[int]:
        return [n for n in range(len(self._wishes)) if n not in self.answers]

    @property
    def is_finished(self) -> bool:
        return not self._rest and len(self.answers) == len(self._wishes)

    def refuse(self, error: KafkaError) -> None:
        """Whatever has no answer yet."""
        self.answers.update(dict.fromkeys(self.unanswered, error))

    def look(self, image: MetadataImage) -> Step:
        """Answer what the image answers by now; the next step for the rest."""
        step = Step()
        moving = {stream_id: move for move in image.moves.values() for stream_id, _ in move.streams}
        for stream_id, its_target in list(self._rest.items()):
            place = image.partition_of(stream_id)
            move = moving.get(stream_id)
            if move is not None and move.move in self._cancelling:
                continue
            if place is None or move is not None or place[1].leader == its_target:
                del self._rest[stream_id]
            else:
                step.begin[stream_id] = its_target
        for n in self.unanswered:
            wish = self._wishes[n]
            try:
                partition = _find(image, wish)
                target = None if wish.nodes is None else self._target(image, wish, partition)
                if self._last[wish.topic, wish.index] != n:
                    self.answers[n] = None  # a later one of the same request counts
                elif target is None:
                    self._look_cancel(n, image, partition, moving.get(partition.stream_id), step)
                else:
                    self._look_target(
                        n, image, partition, target, moving.get(partition.stream_id), step
                    )
            except KafkaError as error:
                self.answers[n] = error
        return step

    def _target(self, image: MetadataImage, wish: Wish, partition: PartitionImage) -> int:
        assert wish.nodes is not None
        count = check_assignment(image, wish.nodes, None)
        shown = count if self._shown is None else self._shown(image, partition)
        if count != shown:
            raise KafkaError(
                ErrorCode.INVALID_REPLICATION_FACTOR,
                f"The replication factor is changed from {shown} to {count}",
            )
        return first_live(image, wish.index, wish.nodes)

    def _look_cancel(
        self,
        n: int,
        image: MetadataImage,
        partition: PartitionImage,
        move: Move | None,
        step: Step,
    ) -> None:
        if move is not None:
            self._cancelled[n] = move
            self._cancel(image, move, step)
            return
        cancelled = self._cancelled.get(n)
        if cancelled is None or partition.leader == cancelled.target:
            # It had come to its end before it could be cancelled.
            raise KafkaError(ErrorCode.NO_REASSIGNMENT_IN_PROGRESS)
        self.answers[n] = None

    def _look_target(
        self,
        n: int,
        image: MetadataImage,
        partition: PartitionImage,
        target: int,
        move: Move | None,
        step: Step,
    ) -> None:
        if move is not None and move.target == target:
            self.answers[n] = None
        elif move is not None:
            self._cancel(image, move, step)
        elif partition.leader == target:
            self.answers[n] = None
        else:
            step.begin[partition.stream_id] = target

    def _cancel(self, image: MetadataImage, move: Move, step: Step) -> None:
        if move.move in step.cancel:
            return
        step.cancel.append(move.move)
        self._cancelling.add(move.move)
        for _, partition in still_moving(image, move):
            if not self._is_asked(image, partition.stream_id):
                self._rest[partition.stream_id] = move.target

    def _is_asked(self, image: MetadataImage, stream_id: int) -> bool:
        place = image.partition_of(stream_id)
        return place is not None and (place[0].name, place[1].index) in self._last


def _find(image: MetadataImage, wish: Wish) -> PartitionImage:
    topic = image.topics.get(wish.topic)
    if topic is None:
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find a topic named {wish.topic}."
        )
    if not 0 <= wish.index < len(topic.partitions):
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            f"Unable to find partition {wish.topic}:{wish.index}.",
        )
    return topic.partitions[wish.index]


async def carry_out(member: Membership, change: Reassignment, timeout_s: float) -> None:
    """Until each wish is answered: a move is answered when it has begun, durably."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + min(max(timeout_s, 0.0), PATIENCE_S)
    caught_up = False
    while True:
        try:
            if not caught_up:
                # Made a moment ago elsewhere, perhaps: who decides knows what there is.
                await member.cancel_moves(())
                caught_up = True
            step = change.look(member.image)
            if step.cancel:
                await member.cancel_moves(step.cancel)
            if step.begin:
                await member.move_leaders(step.begin)
            if step.cancel or step.begin:
                change.look(member.image)
        except KafkaError as error:
            if error.code is not ErrorCode.NOT_CONTROLLER:
                change.refuse(error)
                return
        if change.is_finished:
            return
        if loop.time() >= give_up_at:
            change.refuse(
                KafkaError(
                    ErrorCode.REQUEST_TIMED_OUT,
                    "The partition's leader has not opened it yet; ask again.",
                )
            )
            return
        await asyncio.sleep(AGAIN_S)
