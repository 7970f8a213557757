"""A store to which one object is still to be added: to readers of this view it is there already.

What begins a cluster comes last into a copy: a broker that starts on an unfinished one must not
take it for its cluster, nor ask the brokers of the original at their addresses.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence

from objectstore.store import ObjectInfo, ObjectStore
from objectstore.wrappers.passing import PassingStore


class WithWithheld(PassingStore):
    """key, data: of that object, which is not in `inner`."""

    def __init__(self, inner: ObjectStore, key: str, data: bytes) -> None:
        super().__init__(inner)
        self._key = key
        self._data = data

    async def get(self, key: str) -> bytes:
        return self._data if key == self._key else await self.inner.get(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        if key == self._key:
            return [self._data[start:end] for start, end in ranges]
        return await self.inner.get_ranges(key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        pending = self._key.startswith(prefix) and self._key > start_after
        async for info in self.inner.list(prefix, start_after):
            if pending and info.key > self._key:
                pending = False
                yield ObjectInfo(self._key, len(self._data), 0)
            yield info
        if pending:
            yield ObjectInfo(self._key, len(self._data), 0)
