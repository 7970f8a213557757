"""A memory store that counts reads, can hold them back, and can fail or alter them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from objectstore.drivers.memory import MemoryStore


class CountingStore(MemoryStore):
    """reads: (key, start, end) of every range read. gate: reads wait while it is not set."""

    def __init__(self) -> None:
        super().__init__(lambda: 1_000_000)
        self.reads: list[tuple[str, int, int]] = []
        self.gate: asyncio.Event | None = None
        self.alter: Callable[[str, bytes], bytes] = lambda key, data: data
        self.waiting = 0

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.reads.extend((key, start, end) for start, end in ranges)
        if self.gate is not None:
            self.waiting += 1
            try:
                await self.gate.wait()
            finally:
                self.waiting -= 1
        return [self.alter(key, data) for data in await super().get_ranges(key, ranges)]

    def flip(self, key: str, position: int) -> None:
        """One bit of a stored object turns over."""
        data, modified_ms = self._objects[key]
        changed = bytearray(data)
        changed[position] ^= 0x10
        self._objects[key] = (bytes(changed), modified_ms)
