"""Decisions asked of the controller from another broker.

Before an answer is given on, the own image has reached the place of the decision: who created a
topic through this broker finds it here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from broker.controller.topics import NewTopic
from objectstore.errors import StoreError
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import TopicImage
from s3stream.metadata.records import BlobRef, Endpoint, Position

from . import messages as m
from .channel import Channel, Peers, error_of

PATIENCE_S = 15.0
# A decision waits for the store, which may be slow; beyond this nobody knows what became of it.
ANSWER_TIMEOUT_S = 10.0
AGAIN_S = 0.1

A = TypeVar("A", bound=m.Answer)


class Superseded(KafkaError):
    """This process decides itself by now, or follows anew; it may be asked again."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.NOT_CONTROLLER, detail="the way to the controller has changed")


class RemoteDecisions:
    """Implements broker.controller.decisions.Decisions.

    controller: where it is, None while nobody knows. reached: waits until the own image is there.
    """

    def __init__(
        self,
        peers: Peers,
        controller: Callable[[], Endpoint | None],
        reached: Callable[[Position], Awaitable[None]],
        incarnation: int,
    ) -> None:
        self._peers = peers
        self._controller = controller
        self._reached = reached
        self._incarnation = incarnation
        self._channel: Channel | None = None
        self._channel_to: Endpoint | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    def close(self) -> None:
        """Who waits for an answer is told: Superseded, where it may ask again elsewhere."""
        self._closed = True
        self._hang_up()

    def controller_changed(self) -> None:
        """Perhaps: nobody waits for one that decides no more, and may never answer."""
        if self._channel is not None and self._channel_to != self._controller():
            self._hang_up()

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    async def call(self, request: m.Request, expected: type[A], *, repeatable: bool) -> A:
        """Ask whoever is the controller, again where nothing was done, or where it may be done
        twice. Raises KafkaError: what it refused with, or REQUEST_TIMED_OUT: nobody knows;
        Superseded.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + PATIENCE_S
        while True:
            if self._closed:
                raise Superseded
            sent = False
            try:
                channel = await self._open()
                sent = True
                return await channel.call(request, expected, ANSWER_TIMEOUT_S)
            except KafkaError as error:
                if error.code is not ErrorCode.NOT_CONTROLLER:
                    raise
            except (OSError, TimeoutError, StoreError) as error:
                if sent and not repeatable:
                    raise KafkaError(
                        ErrorCode.REQUEST_TIMED_OUT,
                        "The controller was lost before it answered.",
                        detail=str(error),
                    ) from error
            if loop.time() >= give_up_at:
                raise KafkaError(
                    ErrorCode.REQUEST_TIMED_OUT, "No controller answers at the moment."
                )
            await asyncio.sleep(AGAIN_S)

    async def _open(self) -> Channel:
        async with self._opening:
            where = self._controller()
            if where is None:
                raise ConnectionError("nobody is known to be the controller")
            if self._channel is None or not self._channel.is_open or self._channel_to != where:
                self._hang_up()
                channel = await self._peers.open(where)
                if self._closed or self._controller() != where:
                    channel.close()
                    raise ConnectionError("another one decides by now")
                self._channel = channel
                self._channel_to = where
            return self._channel

    async def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False
    ) -> list[TopicImage | KafkaError]:
        request = m.CreateTopics([_plain(topic) for topic in topics], validate_only)
        return await self._topics(request, repeatable=validate_only)

    async def delete_topics(self, topic_ids: Sequence[UUID]) -> list[TopicImage | KafkaError]:
        return await self._topics(m.DeleteTopics(list(topic_ids)), repeatable=False)

    async def _topics(
        self, request: m.Request, *, repeatable: bool
    ) -> list[TopicImage | KafkaError]:
        decided = await self.call(request, m.TopicsDecided, repeatable=repeatable)
        await self._reached(decided.at)
        outcomes: list[TopicImage | KafkaError] = []
        for topic, refusal in decided.outcomes:
            if topic is not None:
                outcomes.append(topic)
            else:
                assert refusal is not None
                outcomes.append(error_of(refusal))
        return outcomes

    async def create_partitions(
        self,
        name: str,
        total: int,
        assignments: Sequence[Sequence[int]] | None = None,
        *,
        validate_only: bool = False,
    ) -> None:
        given = None if assignments is None else [list(one) for one in assignments]
        request = m.CreatePartitions(name, total, given, validate_only)
        await self._decided(request, repeatable=validate_only)

    async def alter_configs(
        self,
        resource_type: str,
        name: str,
        changes: Mapping[str, str | None],
        *,
        validate_only: bool = False,
        based_on: Mapping[str, str] | None = None,
    ) -> None:
        seen = None if based_on is None else dict(based_on)
        request = m.AlterConfigs(resource_type, name, dict(changes), validate_only, seen)
        await self._decided(request, repeatable=True)

    async def set_feature_level(self, name: str, level: int) -> None:
        await self._decided(m.SetFeatureLevel(name, level), repeatable=True)

    async def opened(
        self, streams: Sequence[tuple[int, int]], incarnation: int | None = None
    ) -> None:
        whose = self._incarnation if incarnation is None else incarnation
        await self._decided(m.ReportOpened(whose, list(streams)), repeatable=True)

    async def _decided(self, request: m.Request, *, repeatable: bool) -> None:
        await self._reached((await self.call(request, m.Decided, repeatable=repeatable)).at)

    async def allocate_producer_ids(self, incarnation: int | None = None) -> tuple[int, int]:
        whose = self._incarnation if incarnation is None else incarnation
        # Asked again, a block is lost and no harm is done.
        given = await self.call(m.AllocateProducerIds(whose), m.ProducerIdsGiven, repeatable=True)
        await self._reached(given.at)
        return given.first, given.count

    async def leave(self) -> None:
        """Raises KafkaError."""
        await self.call(m.Leave(self._incarnation), m.Decided, repeatable=True)

    async def move_leaders(self, assignment: Mapping[int, int]) -> list[int]:
        # Asked again, what moves already is left out.
        request = m.MoveLeaders(dict(assignment))
        begun = await self.call(request, m.MovesBegun, repeatable=True)
        await self._reached(begun.at)
        return begun.moves

    async def handed_over(self, move: int, contents: BlobRef) -> None:
        await self._decided(m.HandedOver(move, contents), repeatable=True)

    async def cancel_moves(self, moves: Sequence[int]) -> None:
        await self._decided(m.CancelMoves(list(moves)), repeatable=True)

    async def set_draining(self, incarnation: int, draining: bool) -> None:
        await self._decided(m.SetDraining(incarnation, draining), repeatable=True)

    async def unregister(self, node_id: int) -> None:
        await self._decided(m.Unregister(node_id), repeatable=False)

    async def quorum(self) -> m.QuorumShown:
        """The log of the term, as its controller sees it. Raises KafkaError."""
        return await self.call(m.ShowQuorum(), m.QuorumShown, repeatable=True)


def _plain(topic: NewTopic) -> NewTopic:
    """With containers that can be sent."""
    return NewTopic(
        topic.name,
        topic.partitions,
        topic.replication_factor,
        [(index, list(nodes)) for index, nodes in topic.assignments],
        dict(topic.configs),
    )
