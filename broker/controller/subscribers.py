"""Who is told of each image, in order; one that fails stops no other, and is not passed over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from s3stream.metadata.image import MetadataImage

log = logging.getLogger(__name__)

# The old image and the new one; must not raise.
Subscriber = Callable[[MetadataImage, MetadataImage], None]


class Subscribers:
    """consequence: what the log says will happen when one of them fails."""

    def __init__(self, consequence: str) -> None:
        self._consequence = consequence
        self._all: list[Subscriber] = []
        self._error: Exception | None = None
        self._failed = asyncio.Event()

    def add(self, subscriber: Subscriber) -> None:
        self._all.append(subscriber)

    def tell(self, old: MetadataImage, new: MetadataImage) -> None:
        """All of them, whatever one of them does."""
        for subscriber in self._all:
            try:
                subscriber(old, new)
            except Exception as error:
                # The decision is durable, so neither the log nor who waits for it may fail by this.
                log.critical(
                    "%s could not follow the metadata log to %s: %s",
                    getattr(subscriber, "__qualname__", subscriber),
                    new.position,
                    self._consequence,
                    exc_info=True,
                )
                self._error = self._error or error
                self._failed.set()

    async def watch(self, running: asyncio.Task[None]) -> None:
        """Until `running` ends, which is not cancelled with us, or a subscriber fails: raises."""
        failed = asyncio.create_task(self._failed.wait(), name="subscribers")
        try:
            await asyncio.wait((running, failed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
        if self._error is not None:
            raise self._error
        await asyncio.shield(running)
