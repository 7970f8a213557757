"""One process in a cluster: a broker that was only slow comes back under a new incarnation.

Fenced, it serves nothing more under the old one, whatever it still holds in memory: the whole node
goes, and another one joins. A process whose node id was taken by another one ends instead, or the
two would replace each other for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random

from broker.config import BrokerConfig
from broker.config.broker_config import Given
from broker.node import Node
from objectstore.create import Backoff
from objectstore.errors import StoreError
from objectstore.store import ObjectStore
from s3stream.metadata.tail import load
from wal.errors import Fenced, LogError

log = logging.getLogger(__name__)

# Who cannot learn for so long what became of it ends.
LEARN_S = 30.0
AGAIN_CAP_S = 10.0


class Lifetime:
    """new_node: of a configuration. node: the present one, never the same twice."""

    def __init__(
        self,
        config: BrokerConfig,
        new_node: Callable[[BrokerConfig], Node],
        store: ObjectStore,
        rng: Random,
    ) -> None:
        self._config = config
        self._new_node = new_node
        self._store = store
        self._rng = rng
        self.node = new_node(config)
        self.rejoined = 0

    async def start(self) -> None:
        """As `Node.start`."""
        try:
            await self.node.start()
        except Fenced as error:
            await self._come_back(error)

    async def run(self) -> None:
        """Until the caller cancels. Raises as `Node.run` does; Fenced: this process is replaced."""
        while True:
            try:
                await self.node.run()
            except Fenced as error:
                await self._come_back(error)

    async def _come_back(self, error: Fenced) -> None:
        backoff = Backoff(self._rng, 0.2)
        while True:
            if await self._is_replaced():
                raise error
            node_id, incarnation = self.node.controller.node_id, self.node.controller.incarnation
            log.warning(
                "node %d was fenced (%s); nothing is served any more as incarnation %d, and it "
                "joins anew",
                node_id,
                error,
                incarnation,
            )
            await self.node.abort()
            given = Given(node_id, "the registration before")
            static = {**self._config.static, "node.id": given}
            static["take.over"] = Given(False, "joining anew replaces nobody")
            self.node = self._new_node(replace(self._config, static=static))
            self.rejoined += 1
            try:
                await self.node.start()
                return
            except Fenced as again:
                error = again
                await asyncio.sleep(backoff.next_s(AGAIN_CAP_S))

    async def _is_replaced(self) -> bool:
        """Whether another process has the node id; True also where nobody can tell."""
        node = self.node
        if not node.is_member:
            return True
        backoff = Backoff(self._rng)
        try:
            async with asyncio.timeout(LEARN_S):
                while True:
                    try:
                        loaded = await load(self._store)
                        break
                    except StoreError as error:
                        log.info("what became of this broker is not known yet: %s", error)
                        await asyncio.sleep(backoff.next_s())
        except (LogError, TimeoutError):
            return True
        if loaded is None:
            return True
        broker = loaded.image.brokers.get(node.controller.node_id)
        return broker is not None and broker.incarnation > node.controller.incarnation
