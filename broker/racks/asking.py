"""The questions to one leader: what is new of the streams of its that are read here.

One long poll at a time, unless somebody wants to know at once: then the next one goes before the
last was answered, and the leader answers that as soon as it reads it, since a connection's answers
come in order. What an answer tells is taken over here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from random import Random

from broker.cluster.channel import Channel
from broker.cluster.reads_messages import FollowReads, KnownStream, ReadsTold, StreamNews
from objectstore.create import Backoff
from objectstore.errors import StoreError
from protocol.errors import KafkaError
from s3stream.history import StoredRange
from s3stream.refs import ObjectRange, ObjectRef

from .followed import FollowedPartition

log = logging.getLogger(__name__)

WAIT_S = 0.5
# Beyond the wait: a leader that has not answered by then is not heard.
ANSWER_S = 2.0
UNREAD_S = 10.0
# A leader that does not lead (yet, or any more) is asked about that stream again after this.
REFUSED_S = 0.2
# A leader that could not be asked is tried again so soon at least.
LONGEST_PAUSE_S = 1.0


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


class Asking:
    """What is followed of one leader, and the questions to it. turns: their numbers, which rise."""

    def __init__(
        self,
        incarnation: int,
        drop: Callable[[FollowedPartition], None],
        turns: Iterator[int],
    ) -> None:
        self.incarnation = incarnation
        self.is_running = False
        self.streams: dict[int, FollowedPartition] = {}
        self._drop = drop
        self._turns = turns
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
                self._drop(followed)
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
        request = FollowReads(
            ours,
            next(self._turns),
            [_known(f) for f in streams.values()],
            round(WAIT_S * 1000),
        )
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
        followed.is_readable,
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
