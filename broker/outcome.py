"""What a handler gives a connection back, and what a connection asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from objectstore.store import Buffer

if TYPE_CHECKING:
    from .connection import Connection


class CloseConnection(Exception):
    """The request has no answer but a closed connection."""


@dataclass(slots=True, frozen=True)
class Deferred:
    """An answer that will be there later; `finish` gives its buffers, or None for no answer."""

    finish: Coroutine[Any, Any, list[Buffer] | None]


@dataclass(slots=True, frozen=True)
class WhenDone:
    """An answer that is there once all of `until` are done, or at `deadline` (loop time).

    until: at least one, each once. finish: called once then, gives the buffers; it does not
    suspend, so that a request that waits costs no task.
    """

    until: Sequence[asyncio.Future[Any]]
    deadline: float
    finish: Callable[[], list[Buffer] | None]


Outcome = list[Buffer] | Deferred | WhenDone | None


class Handler(Protocol):
    """What a connection asks of the broker."""

    async def handle(self, connection: Connection, frame: memoryview) -> Outcome:
        """Answer one request frame; raises MalformedFrame or CloseConnection to end it."""
        ...
