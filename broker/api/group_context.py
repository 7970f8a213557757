"""What the APIs of groups and offsets need to know of the broker around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from broker.coordinator.runtime import GroupCoordinator


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A broker as a client may reach it by the listener that its request came by."""

    node_id: int
    host: str
    port: int


class GroupContext(Protocol):
    """client_host: as Kafka shows it, with a leading slash ("/127.0.0.1")."""

    @property
    def groups(self) -> GroupCoordinator: ...

    @property
    def client_id(self) -> str: ...

    @property
    def client_host(self) -> str: ...

    def topic_id(self, name: str) -> UUID | None:
        """None: there is no such topic."""
        ...

    def topic_name(self, topic_id: UUID) -> str | None:
        """None: there is no such topic."""
        ...

    def has_partition(self, topic: str, index: int) -> bool: ...

    async def group_coordinator(self, partition: int) -> Endpoint | None:
        """Who leads this partition of `__consumer_offsets`, which is created when missing.

        None: nobody does at present.
        """
        ...
