"""Waiting until the own image has reached a place in the metadata log."""

from __future__ import annotations

import asyncio

from s3stream.metadata.image import MetadataImage
from s3stream.metadata.records import BEFORE_ALL, Position


class Positions:
    """`image_changed` is a subscriber of images."""

    def __init__(self) -> None:
        self._now = BEFORE_ALL
        self._waiting: dict[asyncio.Future[None], Position] = {}

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        self._now = new.position
        for future, position in list(self._waiting.items()):
            if position <= self._now:
                del self._waiting[future]
                if not future.done():
                    future.set_result(None)

    async def reached(self, position: Position, timeout_s: float) -> None:
        """Raises TimeoutError."""
        if position <= self._now:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = position
        try:
            async with asyncio.timeout(timeout_s):
                await future
        finally:
            self._waiting.pop(future, None)
