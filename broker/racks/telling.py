"""The leader's side: tells brokers of other racks where a partition's records lie, and how far.

What is told is durable, in objects that the registry's entries name as of now; an answer is made in
one go, without an await. What a broker was told, and that it asked lately, says whether consumers
may be sent to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from broker.cluster.messages import Answer
from broker.cluster.reads_messages import FollowReads, KnownStream, ReadsTold, StreamNews
from broker.confirmation import Confirmation
from broker.partition.partition import Partition
from broker.partition.partitions import Partitions
from broker.partition.purgatory import MovementSignal, Waiter
from objectstore.errors import StoreError
from protocol.errors import ErrorCode, KafkaError
from s3stream.history import ObjectTable
from s3stream.metadata.image import MetadataImage

LONGEST_WAIT_S = 10.0
# A broker that follows asks twice a second.
LATELY_S = 2.0
# Of ranges told in one answer, about; the first stream's are told whatever they are.
ANSWER_RANGES = 20_000
CONFIRM_S = 1.0


@dataclass(slots=True)
class _Asking:
    """A broker that follows. turn: of its newest question. known: high watermark by stream, as it
    said then.
    """

    turn: int = 0
    asked_at: float = 0.0
    known: dict[int, int] = field(default_factory=dict)
    another: MovementSignal = field(default_factory=MovementSignal)


class Telling:
    """image: as of now."""

    def __init__(
        self,
        image: Callable[[], MetadataImage],
        partitions: Partitions,
        confirmation: Confirmation,
    ) -> None:
        self._image = image
        self._partitions = partitions
        self._confirmation = confirmation
        self._asking: dict[int, _Asking] = {}

    def knows(self, incarnation: int, stream_id: int, offset: int) -> bool:
        """Whether that broker follows the stream, and was told of everything below `offset`."""
        asking = self._asking.get(incarnation)
        if asking is None:
            return False
        if asyncio.get_running_loop().time() - asking.asked_at > LATELY_S:
            return False
        return asking.known.get(stream_id, -1) >= offset

    async def follow(self, request: FollowReads) -> Answer:
        """Raises KafkaError: this broker may lead nothing any more."""
        try:
            await self._confirmation.confirm(CONFIRM_S)
        except StoreError as error:
            # Nothing newer may be claimed, and what is durable they know.
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, detail=str(error)) from error
        loop = asyncio.get_running_loop()
        asking = self._note(request, loop.time())
        until = loop.time() + min(max(request.wait_ms / 1000, 0.0), LONGEST_WAIT_S)
        while True:
            told = self._tell(request.streams)
            if told.streams or asking.turn != request.turn or loop.time() >= until:
                return told
            signals = [asking.another]
            for one in request.streams:
                partition = self._led(one)
                if partition is not None:
                    signals.append(partition.moved)
            waiter = Waiter(signals)
            try:
                await waiter.wait(until - loop.time())
            finally:
                waiter.close()

    def _note(self, request: FollowReads, now: float) -> _Asking:
        for gone in [i for i, a in self._asking.items() if now - a.asked_at > LONGEST_WAIT_S * 2]:
            del self._asking[gone]
        asking = self._asking.setdefault(request.incarnation, _Asking())
        asking.asked_at = now
        if request.turn < asking.turn:
            return asking  # the next one has come before it
        asking.turn = request.turn
        asking.known = {
            one.stream_id: one.high_watermark for one in request.streams if one.readable
        }
        asking.another.fire()
        return asking

    def _led(self, known: KnownStream) -> Partition | None:
        place = self._image().partition_of(known.stream_id)
        if place is None:
            return None
        topic, partition = place
        found = self._partitions.get(topic.name, partition.index)
        if found is None or found.closed or found.stream.stream_id != known.stream_id:
            return None
        # Opened under an epoch that the asking broker has heard of and we have not carried out.
        return None if found.leader_epoch < known.leader_epoch else found

    def _tell(self, streams: list[KnownStream]) -> ReadsTold:
        table = ObjectTable()
        told: list[StreamNews] = []
        room = ANSWER_RANGES
        for one in streams:
            if room <= 0:
                return ReadsTold(told, table.objects, cut=True)
            partition = self._led(one)
            if partition is None:
                code = int(ErrorCode.NOT_LEADER_OR_FOLLOWER)
                told.append(StreamNews(one.stream_id, code))
                continue
            news = _news(partition, one, table)
            if news is not None:
                told.append(news)
                room -= len(news.ranges) + len(news.history)
        return ReadsTold(told, table.objects)


def _news(partition: Partition, known: KnownStream, table: ObjectTable) -> StreamNews | None:
    high_watermark = partition.high_watermark
    stable, start = partition.last_stable_offset, partition.log_start_offset
    # None of them goes back: who knows more than we do was told by us in an answer that crossed.
    if (
        high_watermark <= known.high_watermark
        and stable <= known.last_stable_offset
        and start <= known.log_start_offset
    ):
        return None
    entry = partition.stream.entry
    since = known.high_watermark
    if 0 <= since <= high_watermark and entry.archived(since) is None:
        added = entry.ranges_between(since, high_watermark)
        # Merged with what was known, its ranges lie otherwise by now: then all of them are told.
        if since == high_watermark or (added and added[0].base_offset == since):
            return StreamNews(
                known.stream_id,
                0,
                partition.leader_epoch,
                since,
                high_watermark,
                stable,
                start,
                ranges=[table.stored(one) for one in added],
            )
    return StreamNews(
        known.stream_id,
        0,
        partition.leader_epoch,
        -1,
        high_watermark,
        stable,
        start,
        [table.stored(one) for one in entry.history],
        [table.stored(one) for one in entry.ranges],
        partition.leader_epochs(),
    )
