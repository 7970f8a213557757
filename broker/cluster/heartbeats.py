"""Telling the controller that this broker is there, on a connection that nothing else uses.

Sent by a task of the loop here; by a thread in real processes (`heartbeat_thread`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from objectstore.errors import StoreError
from protocol.errors import KafkaError
from s3stream.metadata.records import Endpoint

from .channel import Channel, Peers
from .messages import Heartbeat, HeartbeatBack

# Where the controller is now (None: not known), and what to say to it. Argument: how late, in
# seconds, the loop is.
Beat = Callable[[float], tuple[Endpoint | None, Heartbeat]]
# Told of each answer, with the loop time at which its heartbeat was sent.
Heard = Callable[[float, HeartbeatBack], None]


class HeartbeatSender(Protocol):
    async def run(self) -> None:
        """Owner's task: for ever."""


# beat, heard, seconds between two heartbeats, seconds until one counts as lost.
NewSender = Callable[[Beat, Heard, float, float], HeartbeatSender]


class Heartbeats:
    """Sent by a task of the loop: how late that is, is how late the loop is."""

    def __init__(
        self, peers: Peers, beat: Beat, heard: Heard, interval_s: float, timeout_s: float
    ) -> None:
        self._peers = peers
        self._beat = beat
        self._heard = heard
        self._interval_s = interval_s
        self._timeout_s = timeout_s

    async def run(self) -> None:
        """Owner's task: for ever."""
        loop = asyncio.get_running_loop()
        channel: Channel | None = None
        to: Endpoint | None = None
        late_s = 0.0
        try:
            while True:
                where, heartbeat = self._beat(late_s)
                if channel is not None and (not channel.is_open or to != where):
                    channel.close()
                    channel = None
                try:
                    if channel is None and where is not None:
                        channel = await self._peers.open(where, self._timeout_s)
                        to = where
                    if channel is not None:
                        sent_at = loop.time()
                        self._heard(
                            sent_at, await channel.call(heartbeat, HeartbeatBack, self._timeout_s)
                        )
                except (OSError, TimeoutError, KafkaError, StoreError):
                    if channel is not None:
                        channel.close()
                        channel = None
                due = loop.time() + self._interval_s
                await asyncio.sleep(self._interval_s)
                late_s = max(loop.time() - due, 0.0)
        finally:
            if channel is not None:
                channel.close()
