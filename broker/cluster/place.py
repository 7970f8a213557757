"""What the rest of the broker asks of a process's place in the cluster: is it still what it was?"""

from __future__ import annotations

import asyncio
import logging

from broker.controller.controller import Controller
from broker.controller.election import Standing
from broker.controller.failover import Recover
from broker.controller.term import FENCED_PATIENCE_S, successor_of
from objectstore.errors import StoreError
from objectstore.store import ObjectStore
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import BrokerRegistration, MetadataImage
from wal.errors import Fenced, LogError

from .delegation import Delegation
from .following import Following
from .messages import HeartbeatBack

log = logging.getLogger(__name__)


class Place(Delegation):
    """Of `Member`, which sets the fields."""

    _store: ObjectStore
    _image: MetadataImage
    _standing: Standing | None
    _following: Following | None

    @property
    def deciding(self) -> Controller | None:
        """Of the term that is this process's own."""
        return None if self._deciding is None else self._deciding.controller

    @property
    def _stands(self) -> Standing:
        assert self._standing is not None, "not started"
        return self._standing

    async def finish_failovers(self, recover: Recover) -> None:
        """See `Controller.finish_failovers`; nothing where another process decides."""
        controller = self.deciding
        if controller is not None:
            await controller.finish_failovers(recover)

    async def successor(self) -> BrokerRegistration | None:
        """After Fenced: who took this process's place, if the log tells it already."""
        if self._standing is None:
            return None
        return await successor_of(self._store, self._standing.process, self._standing.node_id)

    async def confirm(self) -> None:
        """Make sure that this incarnation was not fenced; asks the store.

        Raises Fenced, LogError, or StoreError: not known.
        """
        if self._deciding is not None:
            await self._deciding.controller.confirm()
        elif self._following is not None:
            await self._following.read_bucket()
            self._following.raise_if_fenced()

    async def still_decides(self) -> None:
        """For a handler: raises KafkaError NOT_CONTROLLER where this process is not what it was."""
        if self._deciding is not None:
            await self._deciding.controller.still_decides()
        elif self._following is not None:
            try:
                self._following.raise_if_fenced()
            except Fenced as error:
                raise KafkaError(ErrorCode.NOT_CONTROLLER, detail=str(error)) from error

    async def fenced(self) -> Fenced | None:
        """Whether another process took this one's place, as far as the store tells it now."""
        try:
            async with asyncio.timeout(FENCED_PATIENCE_S):
                await self.confirm()
        except Fenced as error:
            return error
        except (StoreError, LogError, TimeoutError):
            pass
        return None

    async def serves(self, timeout_s: float) -> None:
        """The start is finished: what is placed from now on may come here. Where it cannot be told
        now the next heartbeat does.
        """
        if self._remote is None or self._following is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._remote.call(self._following.beat(), HeartbeatBack, repeatable=True)
        except (KafkaError, TimeoutError) as error:
            log.info("that this broker serves is told later: %s", error or "nobody answers")

    async def leave(self, timeout_s: float) -> None:
        """What was led here may go to others at once: nothing is served under this incarnation any
        more. Nothing where there is no other broker, or nobody who decides: then it is missed.
        """
        own = self._stands.incarnation
        others = [one for one in self._image.live_brokers() if one.incarnation != own]
        if not others:
            return
        try:
            async with asyncio.timeout(timeout_s):
                if self._deciding is not None:
                    # The last word of this term: who reads it need not wait to miss us.
                    await self._deciding.controller.fence([own])
                elif self._remote is not None:
                    await self._remote.leave()
        except (KafkaError, TimeoutError) as error:
            log.info("left without a word: %s", error or "nobody decides")
