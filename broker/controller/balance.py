"""Gives a broker that came its share of what the others lead.

Once for each broker that registers, or is no longer drained, and again while what it was given is
on its way: a broker that leaves, or is lost, has its partitions spread by whoever decides about
that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import MetadataImage

from .moves import Decide, plan_balance, plan_moves

log = logging.getLogger(__name__)

# Brokers often come several at a time; each share is worth one plan.
SETTLE_S = 1.0
# What could not move yet (it is being opened, or failed over) is looked at again.
LOOKS = 20


class Balance:
    """Of the process that decides, for one term. Idle, and without a timer, while nobody comes."""

    def __init__(self, planned: Callable[[], MetadataImage], decide: Decide) -> None:
        self._planned = planned
        self._decide = decide
        self._wanted = asyncio.Event()
        self._looks_left = 0
        self.enabled = True

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """For `subscribe`."""
        comes = new.next_incarnation != old.next_incarnation
        # Not one that ended while it was drained: that is no occasion.
        back = new.draining is not old.draining and any(
            one not in new.draining and new.broker_of(one) is not None
            for one in old.draining
            if not new.incarnations[one].fenced
        )
        if self.enabled and (comes or back) and len(new.live_brokers()) > 1:
            self._looks_left = LOOKS
            self._wanted.set()

    def wanted(self) -> None:
        """One is fit again, or unfit."""
        if self.enabled:
            self._looks_left = LOOKS
            self._wanted.set()

    async def run(self) -> None:
        """Owner's task: until the term is over."""
        while True:
            await self._wanted.wait()
            await asyncio.sleep(SETTLE_S)
            try:
                await self._look()
            except KafkaError as error:
                if error.code is ErrorCode.NOT_CONTROLLER:
                    return
                log.info("balancing waits: %s", error)
            if self._looks_left <= 0:
                self._wanted.clear()

    async def _look(self) -> None:
        self._looks_left -= 1
        planned = self._planned()
        if planned.moves:
            return
        begun = plan_moves(planned, plan) if (plan := plan_balance(planned)) else []
        if begun:
            log.info(
                "%d partitions go to brokers that lead fewer",
                sum(len(one.streams) for one in begun),
            )
            await self._decide(begun)
        elif all(p.source is None and not p.is_new for _, p in planned.partitions()):
            self._looks_left = 0  # everything is where it should be
