"""Reads too come only from a leader that nobody has replaced.

A log object of ours that became durable, sent within the session time-out, confirms; else one GET
of the log's next sequence does, when a client asks (PROTOCOL 10). An idle broker asks nothing.
A heartbeat that was answered by a controller which was confirmed itself, by its own term's log,
confirms as of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from objectstore.errors import StoreUnavailable
from protocol.errors import ErrorCode, KafkaError
from wal.errors import LogError

if TYPE_CHECKING:
    from s3stream.node_log import StreamStorage

# Who asks for longer is answered with an error that clients try again after.
PATIENCE_S = 5.0


class Confirmation:
    """session_timeout_s: for how long a confirmation holds (`broker.session.timeout.ms`).

    heard_at: loop time as of which a confirmed controller had not fenced this broker.
    """

    def __init__(
        self,
        storage: StreamStorage,
        session_timeout_s: float,
        heard_at: Callable[[], float] = lambda: float("-inf"),
    ) -> None:
        self._storage = storage
        self._session_timeout_s = session_timeout_s
        self._heard_at = heard_at

    def is_confirmed(self) -> bool:
        now = asyncio.get_running_loop().time()
        confirmed_at = max(self._storage.wal.last_confirmed_at, self._heard_at())
        return now - confirmed_at < self._session_timeout_s

    async def confirm(self, patience_s: float = PATIENCE_S) -> None:
        """Return at once, or after one request, if this process still leads what it led.

        Raises KafkaError NOT_LEADER_OR_FOLLOWER: it does not. StoreError: nobody knows, or not
        within `patience_s`.
        """
        if self._storage.wal.fenced is None and self.is_confirmed():
            return
        await self.confirm_anew(patience_s)

    async def confirm_anew(self, patience_s: float = PATIENCE_S) -> None:
        """The same, asking in any case: before an answer that claims there is nothing newer."""
        try:
            # The request is shared: it goes on when one who asked stops waiting.
            async with asyncio.timeout(patience_s):
                await self._storage.confirm()
        except TimeoutError as error:
            raise StoreUnavailable(
                f"whether this broker still leads is not known after {patience_s:g} s"
            ) from error
        except LogError as error:
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER, detail=str(error)) from error
