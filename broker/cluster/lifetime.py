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
from objectstore.wrappers.retry import PATIENT, RetryStore
from protocol.errors import KafkaError
from s3stream.metadata.image import MetadataImage
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
        self._is_drained = False

    async def start(self) -> None:
        """As `Node.start`."""
        try:
            await self.node.start()
            self._watch_mark()
        except Fenced as error:
            await self._come_back(error)

    async def run(self) -> None:
        """Until the caller cancels. Raises as `Node.run` does; Fenced: this process is replaced."""
        while True:
            try:
                await self.node.run()
            except Fenced as error:
                await self._come_back(error)

    def _watch_mark(self) -> None:
        """An operator's mark (`headwater drain`) is the process's, whatever its incarnation."""
        controller = self.node.controller
        ours = controller.incarnation

        def image_changed(old: MetadataImage, new: MetadataImage) -> None:
            # Fenced, the incarnation has no mark any more: what counts is what it had before.
            if new.broker_of(ours) is not None and not new.incarnations[ours].fenced:
                self._is_drained = ours in new.draining

        controller.subscribe(image_changed)
        image_changed(controller.image, controller.image)

    async def _mark_again(self) -> None:
        controller = self.node.controller
        try:
            await controller.set_draining(controller.incarnation, True)
        except KafkaError as error:
            log.warning("this broker was drained, and cannot say so anew: %s", error)

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
                if self._is_drained:
                    await self._mark_again()
                self._watch_mark()
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
        # Many reads; one that fails must not make all of them begin again.
        store = RetryStore(self._store, self._rng, PATIENT)
        try:
            async with asyncio.timeout(LEARN_S):
                while True:
                    try:
                        loaded = await load(store)
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
