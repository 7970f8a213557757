"""Planned moves of leadership (PROTOCOL 6): what the controller decides about them.

    move-begun       the old leader stops accepting, flushes, closes the streams by one record
    handed over      the old leader says where its closing tells what they held
    leaders-moved    the new leader opens them from there; its opening clears the source
    move-cancelled   instead, where the closing does not come, or the new leader is gone

Whoever crashes between two of these leaves a pending move in the image: the next controller waits
for the closing anew, the old leader's death hands its streams on by failover (which ends the move),
the new leader's death cancels the move or, later, is a failover whose source is the old leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata import records as r
from s3stream.metadata.apply import still_moving
from s3stream.metadata.features import HEADWATER_VERSION, MOVES_LEVEL, may_move
from s3stream.metadata.image import MetadataImage
from s3stream.metadata.records import BlobRef

log = logging.getLogger(__name__)

# More go into several moves, so that those closed first are open again while others close.
STREAMS_PER_MOVE = 1000
# A leader that cannot close in this time cannot acknowledge either; its partitions go on with it.
MOVE_TIMEOUT_S = 10.0
# One that is sick, while others are well, is given less.
SICK_TIMEOUT_S = 3.0
RETRY_S = 1.0

Decide = Callable[[Sequence[r.Record]], Awaitable[None]]


def plan_moves(image: MetadataImage, assignment: Mapping[int, int]) -> list[r.MoveBegun]:
    """Begin moves. assignment: by stream id, the incarnation that is to lead.

    What is there already, is moving, or is not open yet where it is now, is left out: ask again
    once that is over. Raises KafkaError where the cluster's level forbids moves.
    """
    if not may_move(image):
        raise KafkaError(
            ErrorCode.UNSUPPORTED_VERSION,
            f"Leaders are moved from level {MOVES_LEVEL} of {HEADWATER_VERSION} on; raise it "
            "with kafka-features when all brokers run a version that supports it.",
        )
    busy = {stream_id for move in image.moves.values() for stream_id, _ in move.streams}
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for stream_id in sorted(assignment):
        target = assignment[stream_id]
        place = image.partition_of(stream_id)
        if place is None or stream_id in busy or not _is_live(image, target):
            continue
        partition = place[1]
        is_open = partition.source is None and not partition.is_new
        if partition.leader == target or not is_open or not _is_live(image, partition.leader):
            continue
        groups.setdefault((partition.leader, target), []).append(
            (stream_id, partition.leader_epoch)
        )
    begun: list[r.MoveBegun] = []
    for (source, target), streams in sorted(groups.items()):
        for first in range(0, len(streams), STREAMS_PER_MOVE):
            number = image.next_move + len(begun)
            chosen = streams[first : first + STREAMS_PER_MOVE]
            begun.append(r.MoveBegun(number, source, target, chosen))
    return begun


def plan_handed_over(image: MetadataImage, number: int, contents: BlobRef) -> list[r.Record]:
    """The old leader has closed for this move. [] where it is not pending any more."""
    move = image.moves.get(number)
    if move is None:
        return []
    if not _is_live(image, move.target):
        return [r.MoveCancelled(number)]  # the old leader opens them again
    return [r.LeadersMoved(number, contents)]


def plan_cancel(image: MetadataImage, numbers: Iterable[int]) -> list[r.Record]:
    return [r.MoveCancelled(number) for number in numbers if number in image.moves]


def without_purpose(image: MetadataImage) -> list[int]:
    """Pending moves to a broker that is gone, or of partitions that are."""
    return sorted(
        move.move
        for move in image.moves.values()
        if not _is_live(image, move.target) or not still_moving(image, move)
    )


def moving_from(image: MetadataImage, incarnation: int) -> dict[int, list[int]]:
    """What an incarnation has to hand over: stream ids, by the number of the move."""
    found: dict[int, list[int]] = {}
    for number in sorted(image.moves):
        move = image.moves[number]
        if move.source == incarnation:
            streams = [partition.stream_id for _, partition in still_moving(image, move)]
            if streams:
                found[number] = sorted(streams)
    return found


def movable(image: MetadataImage, incarnation: int) -> list[int]:
    """Streams that it leads, open, and not on their way already; by stream id."""
    busy = {stream_id for move in image.moves.values() for stream_id, _ in move.streams}
    return sorted(
        partition.stream_id
        for _, partition in image.partitions()
        if partition.leader == incarnation
        and partition.source is None
        and not partition.is_new
        and partition.stream_id not in busy
    )


def spread(
    image: MetadataImage, stream_ids: Sequence[int], targets: Sequence[int]
) -> dict[int, int]:
    """Give streams to incarnations, fewest partitions first, counting what is on its way there."""
    load = leading_after_moves(image, targets)
    given: dict[int, int] = {}
    for stream_id in stream_ids:
        target = min(load, key=lambda one: (load[one], one))
        load[target] += 1
        given[stream_id] = target
    return given


def leading_after_moves(image: MetadataImage, incarnations: Sequence[int]) -> dict[int, int]:
    """How many partitions each will lead when all pending moves have ended well."""
    load = dict.fromkeys(sorted(incarnations), 0)
    moving = {
        stream_id: move.target for move in image.moves.values() for stream_id, _ in move.streams
    }
    for _, partition in image.partitions():
        leader = moving.get(partition.stream_id, partition.leader)
        if leader in load:
            load[leader] += 1
    return load


def plan_balance(image: MetadataImage) -> dict[int, int]:
    """Which streams to move where, so that all brokers that stay lead as many as another, give or
    take one. Nothing moves that need not, and nothing is planned while moves are under way.
    """
    # Where all are leaving, nothing is worth a move.
    live = [b.incarnation for b in image.live_brokers() if b.incarnation not in image.draining]
    if len(live) < 2 or image.moves or not may_move(image):
        return {}
    load = leading_after_moves(image, live)
    least, odd = divmod(sum(load.values()), len(load))
    # Who leads most keeps one more of those that cannot be shared out evenly.
    by_load = sorted(load, key=lambda one: (-load[one], one))
    fair = {one: least + (rank < odd) for rank, one in enumerate(by_load)}
    over = [
        stream_id
        for one in by_load
        if load[one] > fair[one]
        for stream_id in movable(image, one)[: load[one] - fair[one]]
    ]
    room = [one for one in reversed(by_load) for _ in range(fair[one] - load[one])]
    return dict(zip(over, room, strict=False))


def _is_live(image: MetadataImage, incarnation: int) -> bool:
    broker = image.broker_of(incarnation)
    return broker is not None and not broker.fenced


class MoveWatch:
    """Cancels what does not end; of the process that decides, for one term.

    planned: the image with all that was decided so far. is_sick: asked of the old leaders. Idle,
    and without a timer, while no move is pending.
    """

    def __init__(
        self,
        planned: Callable[[], MetadataImage],
        decide: Decide,
        *,
        timeout_s: float = MOVE_TIMEOUT_S,
        is_sick: Callable[[int], bool] = lambda incarnation: False,
    ) -> None:
        self._planned = planned
        self._decide = decide
        self._timeout_s = timeout_s
        self._is_sick = is_sick
        self._due_at: dict[int, float] = {}
        self._without_purpose: list[int] = []
        self._changed = asyncio.Event()

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """For `subscribe`; and once at the start of the term, with its image as both."""
        if not new.moves and not self._due_at:
            return
        now = asyncio.get_running_loop().time()
        for number in list(self._due_at):
            if number not in new.moves:
                del self._due_at[number]
        for number in sorted(new.moves):
            sick = self._is_sick(new.moves[number].source)
            self._due_at.setdefault(number, now + (SICK_TIMEOUT_S if sick else self._timeout_s))
        self._without_purpose = without_purpose(new)
        self._changed.set()

    async def run(self) -> None:
        """Owner's task: until the term is over."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            try:
                await self._cancel_what_is_over(loop.time())
            except KafkaError as error:
                if error.code is ErrorCode.NOT_CONTROLLER:
                    return
                log.warning("a move of leaders cannot be cancelled yet: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            try:
                async with asyncio.timeout_at(min(self._due_at.values(), default=None)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _cancel_what_is_over(self, now: float) -> None:
        late = [number for number, due_at in self._due_at.items() if due_at <= now]
        for number in late:
            # Its end may be decided, and wait for the store: then there is nothing to cancel.
            self._due_at[number] = now + self._timeout_s
        planned = self._planned()
        sources = {planned.moves[number].source for number in late if number in planned.moves}
        # Others are well, and it is too sick to let go: its failover gives away what it leads.
        too_sick = sorted(one for one in sources if self._is_sick(one))
        if too_sick:
            log.warning("incarnations %s are too sick to hand over: fenced", too_sick)
            await self._decide([r.IncarnationFenced(one) for one in too_sick])
            return
        cancelled = plan_cancel(planned, sorted({*late, *self._without_purpose}))
        if cancelled:
            for number in late:
                log.warning("move %d of leaders was not answered in time: cancelled", number)
            await self._decide(cancelled)
