"""What a handler knows of the request beside its body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from objectstore.store import Buffer
from protocol.header import RequestHeader

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
