"""Decoded indexes of objects, and of histories, kept within a bound; each is fetched once,
whoever asks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from objectstore.errors import StoreUnavailable
from objectstore.store import ObjectStore
from wal.format import FOOTER_SIZE, ObjectIndex, read_index

from .history import read_history
from .refs import ObjectRange

Decoded = TypeVar("Decoded")
_Identity = tuple[str, bytes]

INDEX_CACHE_BYTES = 32 << 20
# Decoded, an index takes about this many times its bytes in the object.
DECODED_FACTOR = 8


class IndexCache:
    """max_bytes: of what is kept, decoded (an estimate)."""

    def __init__(self, store: ObjectStore, max_bytes: int = INDEX_CACHE_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self.size_bytes = 0
        # By key and write id, which tell of what kind it is: (decoded, estimated bytes).
        self._indexes: OrderedDict[_Identity, tuple[Any, int]] = OrderedDict()
        self._flights: dict[_Identity, asyncio.Task[Any]] = {}

    async def get(
        self, key: str, write_id: bytes, size_bytes: int, index_size: int | None
    ) -> ObjectIndex:
        """The index of an object, checked. size_bytes: of the object. index_size: None: unknown.

        Raises NotFound, Corrupt naming the key, or what else the store raises.
        """

        async def fetch() -> tuple[ObjectIndex, int]:
            index = await read_index(self._store, key, size_bytes, write_id, index_size=index_size)
            stored_bytes = index_size if index_size is not None else 100 * len(index.ranges)
            return index, stored_bytes + FOOTER_SIZE

        return await self._get((key, write_id), fetch)

    async def history(self, index: ObjectRange, stream_id: int) -> list[ObjectRange]:
        """The ranges in an index object of a history; leave them unchanged. Raises as `get`."""
        ref = index.object

        async def fetch() -> tuple[list[ObjectRange], int]:
            return await read_history(self._store, index, stream_id), ref.size_bytes

        return await self._get((ref.key, ref.write_id), fetch)

    def known_history(self, index: ObjectRange) -> list[ObjectRange] | None:
        """As `history`, where it is in memory."""
        found = self._indexes.get((index.object.key, index.object.write_id))
        return None if found is None else found[0]

    async def _get(
        self, identity: _Identity, fetch: Callable[[], Coroutine[Any, Any, tuple[Decoded, int]]]
    ) -> Decoded:
        """fetch: gives what is kept under `identity`, and its bytes in the store."""
        found = self._indexes.get(identity)
        if found is not None:
            self._indexes.move_to_end(identity)
            decoded: Decoded = found[0]
            return decoded
        flight = self._flights.get(identity)
        if flight is None:
            flight = asyncio.get_running_loop().create_task(
                self._fetch(identity, fetch), name=f"index {identity[0]}"
            )
            self._flights[identity] = flight
            flight.add_done_callback(lambda task: self._landed(identity, task))
        try:
            # It goes on when its readers leave, as with blocks.
            landed: Decoded = await asyncio.shield(flight)
            return landed
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if flight.cancelled() and current is not None and not current.cancelling():
                raise StoreUnavailable(f"{identity[0]}: the reader was closed") from None
            raise

    def _landed(self, identity: _Identity, task: asyncio.Task[Any]) -> None:
        if self._flights.get(identity) is task:
            del self._flights[identity]
        if not task.cancelled():
            task.exception()  # its readers may all have gone

    async def _fetch(
        self, identity: _Identity, fetch: Callable[[], Coroutine[Any, Any, tuple[Decoded, int]]]
    ) -> Decoded:
        decoded, stored_bytes = await fetch()
        cost = stored_bytes * DECODED_FACTOR
        self._indexes[identity] = (decoded, cost)
        self.size_bytes += cost
        while self.size_bytes > self._max_bytes and len(self._indexes) > 1:
            _, (_, evicted) = self._indexes.popitem(last=False)
            self.size_bytes -= evicted
        return decoded

    def forget(self, key: str, write_id: bytes) -> None:
        found = self._indexes.pop((key, write_id), None)
        if found is not None:
            self.size_bytes -= found[1]

    async def close(self) -> None:
        """Ends what is under way; its readers get StoreUnavailable. Idempotent."""
        tasks = list(self._flights.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
