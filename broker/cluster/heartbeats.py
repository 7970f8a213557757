"""Telling the controller that this broker is there, on a connection that nothing else uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from objectstore.errors import StoreError
from protocol.errors import KafkaError
from s3stream.metadata.records import Endpoint

from .channel import Channel, Peers
from .messages import Heartbeat, HeartbeatBack


class Heartbeats:
    """Sent by a task of the loop: how late that is, is how late the loop is.

    where: the controller's address now; None: not known. heartbeat: what to say. heard: told of
    each answer, with the loop time at which the heartbeat was sent. lost: there was no answer.
    """

    def __init__(
        self,
        peers: Peers,
        where: Callable[[], Endpoint | None],
        heartbeat: Callable[[float], Heartbeat],
        *,
        heard: Callable[[float, HeartbeatBack], None],
        lost: Callable[[], None],
        interval_s: float,
        timeout_s: float,
    ) -> None:
        self._peers = peers
        self._where = where
        self._heartbeat = heartbeat
        self._heard = heard
        self._lost = lost
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
                where = self._where()
                if channel is not None and (not channel.is_open or to != where):
                    channel.close()
                    channel = None
                try:
                    if channel is None and where is not None:
                        channel = await self._peers.open(where, self._timeout_s)
                        to = where
                    if channel is not None:
                        sent_at = loop.time()
                        back = await channel.call(
                            self._heartbeat(late_s), HeartbeatBack, self._timeout_s
                        )
                        self._heard(sent_at, back)
                except (OSError, TimeoutError, KafkaError, StoreError):
                    if channel is not None:
                        channel.close()
                        channel = None
                    self._lost()
                due = loop.time() + self._interval_s
                await asyncio.sleep(self._interval_s)
                late_s = max(loop.time() - due, 0.0)
        finally:
            if channel is not None:
                channel.close()
