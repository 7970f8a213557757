"""Decisions as the rest of the broker asks for them: made here, or by whoever decides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from broker.controller.controller import Controller
from broker.controller.decisions import Decisions
from broker.controller.topics import NewTopic
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import TopicImage
from s3stream.metadata.records import BlobRef

from .deciding import Deciding
from .messages import QuorumShown
from .remote import RemoteDecisions, Superseded

T = TypeVar("T")


class Delegation:
    """Of `Member`, which sets both fields."""

    _deciding: Deciding | None
    _remote: RemoteDecisions | None

    @property
    def _decisions(self) -> Decisions:
        if self._deciding is not None:
            return self._deciding.controller
        if self._remote is None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, detail="not started")
        return self._remote

    async def _ask(self, ask: Callable[[Decisions], Awaitable[T]]) -> T:
        """Whoever decides, anew where that changes while it is asked."""
        while True:
            try:
                return await ask(self._decisions)
            except Superseded:
                await asyncio.sleep(0)

    def _own_term(self) -> Controller:
        if self._deciding is None:
            raise KafkaError(ErrorCode.NOT_CONTROLLER, detail="another broker decides")
        return self._deciding.controller

    async def create_topics(
        self, topics: Sequence[NewTopic], *, validate_only: bool = False
    ) -> list[TopicImage | KafkaError]:
        return await self._ask(lambda to: to.create_topics(topics, validate_only=validate_only))

    async def delete_topics(self, topic_ids: Sequence[UUID]) -> list[TopicImage | KafkaError]:
        return await self._ask(lambda to: to.delete_topics(topic_ids))

    async def create_partitions(
        self,
        name: str,
        total: int,
        assignments: Sequence[Sequence[int]] | None = None,
        *,
        validate_only: bool = False,
    ) -> None:
        await self._ask(
            lambda to: to.create_partitions(name, total, assignments, validate_only=validate_only)
        )

    async def alter_configs(
        self,
        resource_type: str,
        name: str,
        changes: Mapping[str, str | None],
        *,
        validate_only: bool = False,
        based_on: Mapping[str, str] | None = None,
    ) -> None:
        await self._ask(
            lambda to: to.alter_configs(
                resource_type, name, changes, validate_only=validate_only, based_on=based_on
            )
        )

    async def allocate_producer_ids(self, incarnation: int | None = None) -> tuple[int, int]:
        return await self._ask(lambda to: to.allocate_producer_ids(incarnation))

    async def set_feature_level(self, name: str, level: int) -> None:
        await self._ask(lambda to: to.set_feature_level(name, level))

    async def opened(
        self, streams: Sequence[tuple[int, int]], incarnation: int | None = None
    ) -> None:
        await self._ask(lambda to: to.opened(streams, incarnation))

    async def move_leaders(self, assignment: Mapping[int, int]) -> list[int]:
        return await self._ask(lambda to: to.move_leaders(assignment))

    async def handed_over(self, move: int, contents: BlobRef) -> None:
        await self._ask(lambda to: to.handed_over(move, contents))

    async def cancel_moves(self, moves: Sequence[int]) -> None:
        await self._ask(lambda to: to.cancel_moves(moves))

    async def set_draining(self, incarnation: int, draining: bool) -> None:
        await self._ask(lambda to: to.set_draining(incarnation, draining))

    async def unregister(self, node_id: int) -> None:
        await self._ask(lambda to: to.unregister(node_id))

    async def quorum(self) -> QuorumShown:
        """The log of the term, as its controller sees it. Raises KafkaError."""
        while True:
            if self._deciding is not None:
                return self._deciding.quorum()
            if self._remote is None:
                raise KafkaError(ErrorCode.NOT_CONTROLLER, detail="not started")
            try:
                return await self._remote.quorum()
            except Superseded:
                await asyncio.sleep(0)

    # Rounds of deletion are held by the process that decides, and by no other.

    async def begin_round(self) -> int:
        return await self._own_term().begin_round()

    async def end_round(self, number: int, *, abandoned: bool) -> None:
        await self._own_term().end_round(number, abandoned=abandoned)
