"""Decoded indexes of objects, kept within a bound; each is fetched once, whoever asks."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from objectstore.errors import StoreUnavailable
from objectstore.store import ObjectStore
from wal.format import FOOTER_SIZE, ObjectIndex, read_index

INDEX_CACHE_BYTES = 32 << 20
# Decoded, an index takes about this many times its bytes in the object.
DECODED_FACTOR = 8


class IndexCache:
    """max_bytes: of what is kept, decoded (an estimate)."""

    def __init__(self, store: ObjectStore, max_bytes: int = INDEX_CACHE_BYTES) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self.size_bytes = 0
        self._indexes: OrderedDict[tuple[str, bytes], tuple[ObjectIndex, int]] = OrderedDict()
        self._flights: dict[tuple[str, bytes], _Flight] = {}

    async def get(
        self, key: str, write_id: bytes, size_bytes: int, index_size: int | None
    ) -> ObjectIndex:
        """The index of an object, checked. size_bytes: of the object. index_size: None: unknown.

        Raises NotFound, Corrupt naming the key, or what else the store raises.
        """
        identity = (key, write_id)
        found = self._indexes.get(identity)
        if found is not None:
            self._indexes.move_to_end(identity)
            return found[0]
        flight = self._flights.get(identity)
        if flight is None:
            task = asyncio.get_running_loop().create_task(
                self._fetch(key, write_id, size_bytes, index_size), name=f"index {key}"
            )
            flight = _Flight(task)
            self._flights[identity] = flight
            task.add_done_callback(lambda task: self._landed(identity, task))
        flight.readers += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if flight.task.cancelled() and current is not None and not current.cancelling():
                raise StoreUnavailable(f"{key}: the reader was closed") from None
            raise
        finally:
            flight.readers -= 1
            if flight.readers == 0 and not flight.task.done():
                if self._flights.get(identity) is flight:
                    del self._flights[identity]
                flight.task.cancel()

    def _landed(self, identity: tuple[str, bytes], task: asyncio.Task[ObjectIndex]) -> None:
        flight = self._flights.get(identity)
        if flight is not None and flight.task is task:
            del self._flights[identity]
        if not task.cancelled():
            task.exception()  # its readers may all have gone

    async def _fetch(
        self, key: str, write_id: bytes, size_bytes: int, index_size: int | None
    ) -> ObjectIndex:
        index = await read_index(self._store, key, size_bytes, write_id, index_size=index_size)
        stored_bytes = index_size if index_size is not None else 100 * len(index.ranges)
        cost = (stored_bytes + FOOTER_SIZE) * DECODED_FACTOR
        self._indexes[(key, write_id)] = (index, cost)
        self.size_bytes += cost
        while self.size_bytes > self._max_bytes and len(self._indexes) > 1:
            _, (_, evicted) = self._indexes.popitem(last=False)
            self.size_bytes -= evicted
        return index

    def forget(self, key: str, write_id: bytes) -> None:
        found = self._indexes.pop((key, write_id), None)
        if found is not None:
            self.size_bytes -= found[1]

    async def close(self) -> None:
        """Ends what is under way; its readers get StoreUnavailable. Idempotent."""
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True, eq=False)
class _Flight:
    task: asyncio.Task[ObjectIndex]
    readers: int = 0
