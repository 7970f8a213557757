"""The serving broker's side: asks leaders about what consumers of the own rack read here.

One long poll goes to each leader that has something to tell; while nobody reads here, none does.
Who wants to know at once (`ask`) makes the next one go before the last was answered: the leader
answers that then, since a connection's answers come in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

from broker.cluster.channel import Channel
from broker.cluster.reads_messages import (
    FollowReads,
    InviteReads,
    KnownStream,
    ReadsInvited,
    ReadsTold,
    StreamNews,
)
from broker.leadership import NO_NODE, leader_node, partition_image
from objectstore.create import Backoff
from objectstore.errors import StoreError
from protocol.errors import KafkaError
from s3stream.history import StoredRange
from s3stream.refs import ObjectRange, ObjectRef
from s3stream.told_stream import ToldStream
from wal.parallel import first_error

from .choice import KnownRacks
from .followed import FollowedPartition

if TYPE_CHECKING:
    from s3stream.metadata.image import MetadataImage, PartitionImage, TopicImage

log = logging.getLogger(__name__)

WAIT_S = 0.5
# Beyond the wait: a leader that has not answered by then is not heard.
ANSWER_S = 2.0
UNREAD_S = 10.0
# A leader that does not lead (yet, or any more) is asked about that stream again after this.
REFUSED_S = 0.2
# A leader that could not be asked is tried again so soon at least.
LONGEST_PAUSE_S = 1.0


class Following:
    """open_to: a channel to a broker's incarnation; raises OSError, TimeoutError, StoreError.

    us: node id and incarnation. new_stream: for what is known of a stream.
    """

    def __init__(
        self,
        image: Callable[[], MetadataImage],
        racks: KnownRacks,
        us: Callable[[], tuple[int, int]],
        open_to: Callable[[int], Awaitable[Channel]],
        new_stream: Callable[[int], ToldStream],
        rng: Random,
    ) -> None:
        self._image = image
        self._racks = racks
        self._us = us
        self._open_to = open_to
        self._new_stream = new_stream
        self._rng = rng
        self._followed: dict[int, FollowedPartition] = {}
        self._leaders: dict[int, _Leader] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._followed)

    def find(self, topic: str | UUID, index: int) -> FollowedPartition | None:
        """The partition, if this broker serves it in its rack."""
        image = self._image()
        racks = self._racks.of(image)
        if not racks:
            return None
        found = image.topics.get(topic) if isinstance(topic, str) else image.topic_by_id(topic)
        partition = partition_image(found, index)
        if found is None or partition is None:
            return None
        known = self._followed.get(partition.stream_id)
        if known is not None and (
            known.leader == partition.leader or leader_node(image, partition) == NO_NODE
        ):
            # Without a leader, too: what is known does not go with it.
            return known
        if not racks.serves(self._us()[0], image, partition):
            return None
        return self._follow(found, partition)

    def invited(self, streams: list[int]) -> ReadsInvited:
        """A leader has readers for us; of what the image says that we serve we ask it."""
        image, node_id = self._image(), self._us()[0]
        racks = self._racks.of(image)
        for stream_id in streams:
            place = image.partition_of(stream_id)
            if place is None or not racks.serves(node_id, image, place[1]):
                continue
            followed = self._followed.get(stream_id) or self._follow(*place)
            followed.read_at = asyncio.get_running_loop().time()
            self._leaders[followed.leader].hurry()
        return ReadsInvited()

    async def invite(self, request: InviteReads) -> ReadsInvited:
        """Another broker's request."""
        return self.invited(request.streams)

    def _follow(self, topic: TopicImage, partition: PartitionImage) -> FollowedPartition:
        followed = FollowedPartition(
            topic.name,
            topic.topic_id,
            partition.index,
            partition.leader,
            partition.leader_epoch,
            self._new_stream(partition.stream_id),
            self._ask,
        )
        self._followed[partition.stream_id] = followed
        self._leader(partition.leader).streams[partition.stream_id] = followed
        return followed

    def _leader(self, incarnation: int) -> _Leader:
        leader = self._leaders.get(incarnation)
        if leader is None:
            leader = self._leaders[incarnation] = _Leader(incarnation, self)
            self._some.set()
        return leader

    async def _ask(self, followed: FollowedPartition) -> bool:
        leader = self._leaders.get(followed.leader)
        if leader is None or followed.closed:
            return False
        return await leader.ask(followed)

    def drop(self, followed: FollowedPartition) -> None:
        """Nobody reads it here any more, or this broker does not serve it."""
        self._followed.pop(followed.told.stream_id, None)
        leader = self._leaders.get(followed.leader)
        if leader is not None:
            leader.release(followed.told.stream_id)
        followed.close()

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """Leaders change, topics go, another broker of the rack comes."""
        if (
            old.topics is new.topics
            and old.brokers is new.brokers
            and old.draining is new.draining
            and old.features is new.features
        ):
            return
        for stream_id, followed in list(self._followed.items()):
            place = new.partition_of(stream_id)
            if place is None:
                self.drop(followed)
                continue
            partition = place[1]
            if leader_node(new, partition) == NO_NODE:
                continue  # between two leaders
            if not self._racks.of(new).serves(self._us()[0], new, partition):
                self.drop(followed)
            elif (partition.leader, partition.leader_epoch) != (
                followed.leader,
                followed.leader_epoch,
            ):
                before = self._leaders.get(followed.leader)
                if before is not None:
                    before.release(stream_id)
                followed.lead_by(partition.leader, partition.leader_epoch)
                leader = self._leader(partition.leader)
                leader.streams[stream_id] = followed
                leader.hurry()

    async def run(self) -> None:
        """Owner's task: for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._some.wait()
                    self._some.clear()
                    for leader in self._leaders.values():
                        if not leader.is_running:
                            leader.is_running = True
                            name = f"reads of {leader.incarnation}"
                            tasks.create_task(self._run(leader), name=name)
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def _run(self, leader: _Leader) -> None:
        try:
            while leader.streams:
                await leader.run(self._us()[1], self._open_to, self._rng)
        finally:
            leader.refuse_all()
            del self._leaders[leader.incarnation]

    def close(self) -> None:
        """Serve nothing more."""
        for followed in list(self._followed.values()):
            self.drop(followed)


class _Poll:
    """A question that is on its way. streams: as they were named in it."""

    def __init__(
        self,
        task: asyncio.Task[ReadsTold],
        streams: dict[int, FollowedPartition],
        asked: dict[int, list[asyncio.Future[bool]]],
        sent_at: float,
    ) -> None:
        self.task = task
        self.streams = streams
        self.asked = asked
        self.sent_at = sent_at


class _Leader:
    """What is followed of one leader, and the questions to it."""

    def __init__(self, incarnation: int, following: Following) -> None:
        self.incarnation = incarnation
        self.is_running = False
        self.streams: dict[int, FollowedPartition] = {}
        self._following = following
        self._asked: dict[int, list[asyncio.Future[bool]]] = {}
        self._hurry = asyncio.Event()
        self._not_before: dict[int, float] = {}
        self._polls: list[_Poll] = []

    def hurry(self) -> None:
        """The next question goes now."""
        self._hurry.set()

    async def ask(self, followed: FollowedPartition) -> bool:
        """True once a question that was sent from now on is answered; False: it is not."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(followed.told.stream_id, []).append(future)
        self.hurry()
        return await future

    def release(self, stream_id: int) -> None:
        """It is not followed any more, or of another leader."""
        self.streams.pop(stream_id, None)
        _settle({stream_id: self._asked.pop(stream_id, [])}, False)
        self.hurry()

    def refuse_all(self) -> None:
        """Who asked gets no answer."""
        asked, self._asked = self._asked, {}
        for poll in self._polls:
            _settle(poll.asked, False)
        self._polls.clear()
        _settle(asked, False)

    async def run(
        self,
        ours: int,
        open_to: Callable[[int], Awaitable[Channel]],
        rng: Random,
    ) -> None:
        """Until nothing of this leader is read here."""
        backoff = Backoff(rng)
        channel: Channel | None = None
        try:
            while self._drop_unread():
                try:
                    if channel is None or not channel.is_open:
                        channel = await open_to(self.incarnation)
                    await self._turn(channel, ours)
                    backoff = Backoff(rng)
                except (OSError, TimeoutError, StoreError, KafkaError) as error:
                    log.debug("reads of incarnation %d: %s", self.incarnation, error)
                    if channel is not None:
                        channel.close()
                    await self._stop_polls()
                    self.refuse_all()
                    for followed in list(self.streams.values()):
                        followed.moved.fire()  # who waits looks whether it is stale
                    await asyncio.sleep(backoff.next_s(LONGEST_PAUSE_S))
        finally:
            if channel is not None:
                channel.close()
            await self._stop_polls()

    def _drop_unread(self) -> bool:
        unread_at = asyncio.get_running_loop().time() - UNREAD_S
        for followed in list(self.streams.values()):
            if followed.read_at < unread_at and not len(followed.moved):
                self._following.drop(followed)
        return bool(self.streams)

    async def _turn(self, channel: Channel, ours: int) -> None:
        """One question, and those that hurried after it."""
        loop = asyncio.get_running_loop()
        self._hurry.clear()
        poll = self._send(channel, ours)
        while True:
            left_s = min(self._not_before.values(), default=float("inf")) - loop.time()
            hurry = asyncio.create_task(self._hurry.wait())
            try:
                await asyncio.wait(
                    [hurry] if poll is None else [hurry, poll.task],
                    timeout=None if left_s == float("inf") else max(left_s, 0.0),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                hurry.cancel()
            if poll is not None and poll.task.done():
                self._take(poll)
                return
            if poll is None:
                return
            # The leader answers this one as soon as it reads the next.
            self._hurry.clear()
            following = self._send(channel, ours)
            if following is None:
                following = poll  # all refused of late, and are asked again later
                await asyncio.wait([poll.task])
                self._take(poll)
                return
            await asyncio.wait([poll.task])
            self._take(poll)
            poll = following

    def _send(self, channel: Channel, ours: int) -> _Poll | None:
        """None: there is nothing to be asked now."""
        now = asyncio.get_running_loop().time()
        self._not_before = {s: at for s, at in self._not_before.items() if at > now}
        streams = {s: f for s, f in self.streams.items() if s not in self._not_before}
        if not streams:
            return None
        asked = {s: self._asked.pop(s) for s in list(self._asked) if s in streams}
        request = FollowReads(ours, [_known(f) for f in streams.values()], round(WAIT_S * 1000))
        task = asyncio.get_running_loop().create_task(
            channel.call(request, ReadsTold, WAIT_S + ANSWER_S), name="reads told"
        )
        poll = _Poll(task, streams, asked, now)
        self._polls.append(poll)
        return poll

    def _take(self, poll: _Poll) -> None:
        """Raises what the question ended with."""
        answer = poll.task.result()
        self._polls.remove(poll)
        refused: set[int] = set()
        named: set[int] = set()
        for news in answer.streams:
            named.add(news.stream_id)
            followed = poll.streams.get(news.stream_id)
            if followed is None or followed.leader != self.incarnation:
                continue
            if news.error or news.leader_epoch < followed.leader_epoch:
                refused.add(news.stream_id)
                self._not_before[news.stream_id] = asyncio.get_running_loop().time() + REFUSED_S
                continue
            _take_over(followed, news, answer.objects)
        for stream_id, followed in poll.streams.items():
            said = stream_id in named or not answer.cut
            if said and stream_id not in refused and followed.leader == self.incarnation:
                followed.fresh_at = max(followed.fresh_at, poll.sent_at)
            for future in poll.asked.get(stream_id, ()):
                if not future.done():
                    future.set_result(said and stream_id not in refused)

    async def _stop_polls(self) -> None:
        tasks = [poll.task for poll in self._polls]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _known(followed: FollowedPartition) -> KnownStream:
    whole = followed.wants_whole or not followed.is_known
    return KnownStream(
        followed.told.stream_id,
        followed.leader_epoch,
        -1 if whole else followed.high_watermark,
        followed.last_stable_offset,
        followed.log_start_offset,
    )


def _take_over(followed: FollowedPartition, news: StreamNews, objects: list[ObjectRef]) -> None:
    told = followed.told
    if news.since < 0:
        told.tell_whole(
            news.log_start_offset,
            news.high_watermark,
            _ranges(news.history, objects),
            _ranges(news.ranges, objects),
        )
        followed.leader_epochs = news.leader_epochs
        followed.wants_whole = False
    elif not told.tell_more(news.since, news.high_watermark, _ranges(news.ranges, objects)):
        followed.wants_whole = followed.wants_whole or told.high_watermark < news.high_watermark
        return
    told.trim(news.log_start_offset)
    if told.is_long:
        followed.wants_whole = True
    followed.last_stable_offset = max(followed.last_stable_offset, news.last_stable_offset)
    followed.moved.fire()


def _ranges(stored: list[StoredRange], objects: list[ObjectRef]) -> list[ObjectRange]:
    return [ObjectRange(objects[one[0]], *one[1:]) for one in stored]


def _settle(asked: dict[int, list[asyncio.Future[bool]]], answer: bool) -> None:
    for futures in asked.values():
        for future in futures:
            if not future.done():
                future.set_result(answer)
