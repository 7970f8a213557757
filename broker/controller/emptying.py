"""Moves away what brokers lead that are to be given nothing more (`draining-set`).

Of the process that decides, so that it goes on whoever asked for it, and whether that one still
listens. A broker that stops does the same for itself (`broker.cluster.drain`); what one of the two
has begun the other leaves alone. Idle, and without a timer, while there is nothing to move.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.features import may_move
from s3stream.metadata.image import MetadataImage

from .moves import Decide, movable, plan_moves, spread

log = logging.getLogger(__name__)

# Between two looks: what changes meanwhile is one occasion.
AGAIN_S = 0.3


class Emptying:
    """For one term. planned: with those who are unfit among the draining; any_unfit: there are."""

    def __init__(
        self,
        planned: Callable[[], MetadataImage],
        decide: Decide,
        *,
        any_unfit: Callable[[], bool] = lambda: False,
    ) -> None:
        self._any_unfit = any_unfit
        self._planned = planned
        self._decide = decide
        self._wanted = asyncio.Event()

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """For `subscribe`; and once at the start of the term, with its image as both."""
        if not new.draining and not self._any_unfit():
            return
        same = (
            old is not new
            and old.draining is new.draining
            and old.topics is new.topics
            and old.brokers is new.brokers
            and old.moves is new.moves
        )
        if not same:
            self._wanted.set()

    def wanted(self) -> None:
        """Something may have to leave."""
        self._wanted.set()

    async def run(self) -> None:
        """Owner's task: until the term is over."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._move()
            except KafkaError as error:
                if error.code is ErrorCode.NOT_CONTROLLER:
                    return
                log.info("what drained brokers lead stays for now: %s", error)
                self._wanted.set()
            await asyncio.sleep(AGAIN_S)

    async def _move(self) -> None:
        planned = self._planned()
        assignment = leavings(planned)
        begun = plan_moves(planned, assignment) if assignment else []
        if begun:
            log.info("%d partitions leave drained brokers", sum(len(one.streams) for one in begun))
            await self._decide(begun)


def leavings(image: MetadataImage) -> dict[int, int]:
    """Which streams to move where, so that draining brokers lead nothing; nothing where nobody else
    is there to lead it.
    """
    live = [broker.incarnation for broker in image.live_brokers()]
    staying = [one for one in live if one not in image.draining]
    if not staying or not may_move(image):
        return {}
    leaving = [one for one in live if one in image.draining]
    return spread(image, [stream for one in leaving for stream in movable(image, one)], staying)
