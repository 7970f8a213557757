"""The leader's side: tells a broker that it has readers in that broker's rack.

A broker that cannot be reached gets no readers; it is tried again while some ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from broker.cluster.channel import Channel
from broker.cluster.reads_messages import InviteReads, ReadsInvited
from objectstore.errors import StoreError
from protocol.errors import KafkaError

log = logging.getLogger(__name__)

CALL_S = 1.0
AGAIN_AFTER_S = 2.0


class Inviting:
    """open_to: a channel to a broker's incarnation; raises OSError, TimeoutError, StoreError."""

    def __init__(self, open_to: Callable[[int], Awaitable[Channel]]) -> None:
        self._open_to = open_to
        self._wanted: dict[int, dict[int, None]] = {}
        self._some = asyncio.Event()
        self._invited: set[tuple[int, int]] = set()
        self._forget_at = 0.0
        self._channels: dict[int, Channel] = {}

    def invite(self, incarnation: int, stream_id: int) -> None:
        """At once, if that was not done a moment ago."""
        now = asyncio.get_running_loop().time()
        if now >= self._forget_at:
            self._invited.clear()
            self._forget_at = now + AGAIN_AFTER_S
        if (incarnation, stream_id) in self._invited:
            return
        self._invited.add((incarnation, stream_id))
        self._wanted.setdefault(incarnation, {})[stream_id] = None
        self._some.set()

    async def run(self) -> None:
        """Owner's task: for ever."""
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                wanted, self._wanted = self._wanted, {}
                # The slowest is waited for a second, which is less than it is asked again after.
                await asyncio.gather(
                    *(self._send(one, list(streams)) for one, streams in wanted.items())
                )
        finally:
            for channel in self._channels.values():
                channel.close()

    async def _send(self, incarnation: int, streams: list[int]) -> None:
        channel = self._channels.pop(incarnation, None)
        try:
            if channel is None or not channel.is_open:
                channel = await self._open_to(incarnation)
            await channel.call(InviteReads(streams), ReadsInvited, CALL_S)
        except (OSError, TimeoutError, StoreError, KafkaError) as error:
            log.debug("incarnation %d is not invited to serve reads: %s", incarnation, error)
            if channel is not None:
                channel.close()
        else:
            self._channels[incarnation] = channel
