"""What a handler knows of the request beside its body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from broker.api.auto_create import auto_create
from broker.api.group_context import Endpoint
from broker.coordinator import OFFSETS_TOPIC, GroupCoordinator
from objectstore.store import Buffer
from protocol.header import RequestHeader

from .leadership import endpoint_of, leader_node, partition_image

if TYPE_CHECKING:
    from .connection import Connection
    from .services import Services


@dataclass(slots=True, frozen=True)
class RequestContext:
    """One request: where it came from, and the services of the broker."""

    services: Services
    connection: Connection
    header: RequestHeader

    @property
    def listener(self) -> str:
        return self.connection.listener

    @property
    def client_id(self) -> str:
        return self.header.client_id

    @property
    def client_host(self) -> str:
        """As Kafka shows it in group descriptions: with a leading slash."""
        return "/" + self.connection.client_host

    # What the APIs of groups ask (api.group_context).

    @property
    def groups(self) -> GroupCoordinator:
        return self.services.groups

    def topic_id(self, name: str) -> UUID | None:
        """None: there is no such topic."""
        topic = self.services.image.topics.get(name)
        return None if topic is None else topic.topic_id

    def topic_name(self, topic_id: UUID) -> str | None:
        """None: there is no such topic."""
        return self.services.image.topic_names.get(topic_id)

    def has_partition(self, topic: str, index: int) -> bool:
        return partition_image(self.services.image.topics.get(topic), index) is not None

    async def group_coordinator(self, partition: int) -> Endpoint | None:
        """Who leads this partition of `__consumer_offsets`, which is created when missing."""
        if OFFSETS_TOPIC not in self.services.image.topics:
            errors = await auto_create(self, [OFFSETS_TOPIC])
            if errors:
                return None
        image = self.services.image
        found = partition_image(image.topics.get(OFFSETS_TOPIC), partition)
        if found is None:
            return None
        told = endpoint_of(image, leader_node(image, found), self.listener)
        return None if told is None else Endpoint(told.node_id, told.host, told.port)

    @property
    def principal(self) -> str:
        return self.connection.principal


@dataclass(slots=True, frozen=True)
class Raw:
    """A body that a hot codec has encoded already."""

    buffers: list[Buffer]


@dataclass(slots=True, frozen=True)
class Later:
    """A body that will be there later: the connection goes on meanwhile.

    finish: a coroutine giving Raw, or None where the request wants no answer.
    """

    finish: Any


@dataclass(slots=True, frozen=True)
class LaterDone:
    """The same without a task: there once all of `until` are done, or at `deadline` (loop time).

    until: at least one, each once. finish: called once then, gives the body.
    """

    until: Sequence[asyncio.Future[Any]]
    deadline: float
    finish: Callable[[], Raw]
