"""Leaving in good order: what a broker leads goes to the others before it ends.

Clients are served until their partition has moved, and are led on by the answer that names its
next leader; so nobody sees an error, and nobody waits to miss this broker.
"""

from __future__ import annotations

import asyncio
import logging

from broker.controller.decisions import Membership
from broker.controller.moves import movable, spread
from protocol.errors import KafkaError
from s3stream.metadata.features import may_move
from s3stream.metadata.image import MetadataImage

log = logging.getLogger(__name__)

# Asked again after this where a move was refused or cancelled.
AGAIN_S = 0.5


class Drain:
    """Of one member. `run` may be cancelled at any time: what has not moved is failed over."""

    def __init__(self, member: Membership) -> None:
        self._member = member
        self._changed = asyncio.Event()
        self._told = ""
        member.subscribe(self._image_changed)

    def _image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        self._changed.set()

    async def run(self, timeout_s: float) -> bool:
        """True when nothing is left here, not even as a source; False where it cannot be moved
        (nobody else is there), or not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._until_empty()
        except TimeoutError:
            log.warning("not all partitions could be moved away in %g s", timeout_s)
            return False

    async def _until_empty(self) -> bool:
        member = self._member
        while True:
            self._changed.clear()
            image, ours = member.image, member.incarnation
            if has_left(image, ours):
                return True
            others = (b.incarnation for b in image.live_brokers() if b.incarnation != ours)
            # Those that leave, too, would only hand it on.
            staying = [one for one in others if one not in image.draining]
            if not staying or not may_move(image):
                return False
            try:
                await self._move(image, staying)
            except KafkaError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    log.warning("partitions cannot be moved away yet: %s", error)
                await asyncio.sleep(AGAIN_S)
            try:
                async with asyncio.timeout(AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _move(self, image: MetadataImage, staying: list[int]) -> None:
        ours = self._member.incarnation
        if ours not in image.draining:
            # First, or what is created meanwhile comes here.
            await self._member.set_draining(ours, True)
        assignment = spread(image, movable(image, ours), staying)
        if assignment:
            await self._member.move_leaders(assignment)


def has_left(image: MetadataImage, incarnation: int) -> bool:
    """Whether nothing is led by it, and nobody needs its log to open what it led."""
    return not any(
        incarnation in (partition.leader, partition.source) for _, partition in image.partitions()
    )
