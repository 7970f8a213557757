"""Which brokers do not answer this one at the address that they registered.

Brokers need each other seldom, so a wrong address, or a wall between two of them, would show when
it hurts: each that registers is asked for its proof, and again each minute. Alone, nobody is asked,
and there is no timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from broker.controller.membership import host_port
from objectstore.errors import StoreError
from protocol.errors import KafkaError
from s3stream.metadata.image import BrokerRegistration, MetadataImage
from s3stream.metadata.records import Endpoint

from .channel import Peers

log = logging.getLogger(__name__)

AGAIN_S = 2.0
# One that was asked in vain so often is not reached.
FAILURES = 3
STILL_S = 20.0
REACHED_S = 60.0


class _Peer:
    __slots__ = ("failures", "next_at")

    def __init__(self, next_at: float) -> None:
        self.next_at = next_at
        self.failures = 0


class Reach:
    """Of one process. address: of a registered broker, for brokers."""

    def __init__(
        self, peers: Peers, address: Callable[[BrokerRegistration], Endpoint | None]
    ) -> None:
        self._peers = peers
        self._address = address
        self._known: dict[int, _Peer] = {}
        self._unreachable: tuple[int, ...] = ()
        self._changed = asyncio.Event()

    @property
    def unreachable(self) -> tuple[int, ...]:
        """Node ids, ascending."""
        return self._unreachable

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """For `subscribe`."""
        if new.brokers is not old.brokers:
            self._changed.set()

    async def run(self, image: Callable[[], MetadataImage], own_incarnation: int) -> None:
        """Owner's task: for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            others = [b for b in image().live_brokers() if b.incarnation != own_incarnation]
            now = loop.time()
            self._known = {
                one.incarnation: self._known.get(one.incarnation) or _Peer(now) for one in others
            }
            for broker in others:
                if self._known[broker.incarnation].next_at <= loop.time():
                    await self._ask(broker)
            self._unreachable = tuple(
                one.node_id for one in others if self._known[one.incarnation].failures >= FAILURES
            )
            next_at = min((one.next_at for one in self._known.values()), default=None)
            try:
                async with asyncio.timeout_at(next_at):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _ask(self, broker: BrokerRegistration) -> None:
        peer, where = self._known[broker.incarnation], self._address(broker)
        loop = asyncio.get_running_loop()
        try:
            if where is None:
                raise ConnectionError("it registered no address")
            (await self._peers.open(where)).close()
        except StoreError:
            peer.next_at = loop.time() + AGAIN_S  # nothing was asked: the proof cannot be made
        except (OSError, TimeoutError, KafkaError) as error:
            peer.failures += 1
            if peer.failures == FAILURES:
                log.warning(
                    "node %d does not answer this broker at %s, the address that it registered "
                    "for brokers (%s); is its listener right, and the network between the two?",
                    broker.node_id,
                    "none" if where is None else host_port(where),
                    error or type(error).__name__,
                )
            peer.next_at = loop.time() + (AGAIN_S if peer.failures < FAILURES else STILL_S)
        else:
            if peer.failures >= FAILURES:
                log.info("node %d answers this broker again", broker.node_id)
            peer.failures = 0
            peer.next_at = loop.time() + REACHED_S
