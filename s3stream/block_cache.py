"""Blocks of objects in memory, shared by all readers; each is fetched once, whoever asks.

    read -> in memory | joins the flight that fetches it | a new flight: local disk, then store

What is kept are *extents*: the buffer of one ranged GET with the adjacent blocks in it. An extent
is evicted as a whole, since a view of one of its blocks keeps all of it alive.

Eviction is segmented: a new extent is on probation, and is promoted when something in it is read
a second time. A scan of history reads everything once and so only ever displaces other scans; what
was read to its end, once, goes before what was fetched ahead and is still to be read.

An evicted extent that a response still refers to counts against the bound until it is let go, so
the bound is one on what is really held. (CPython's reference count tells; nobody waits for it.)
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crc32c import crc32c

from objectstore.errors import StoreUnavailable
from objectstore.store import ObjectStore
from wal.format import BlockEntry, check_block

from .disk_cache import DiskCache
from .refs import ObjectRef

COALESCE_BYTES = 8 << 20
PROTECTED_SHARE = 0.75


def _references_in_a_loop(buffers: list[bytes]) -> int:
    """How many references CPython counts for a buffer that only `buffers` holds.

    Measured, not written down: newer releases count a local variable's no more.
    """
    for data in buffers:
        return sys.getrefcount(data)
    return 0


_UNPINNED_REFERENCES = _references_in_a_loop([bytes(bytearray(1000))])


class BlockKey(NamedTuple):
    """key, write_id: of the object; the key alone could name an object of another life."""

    key: str
    write_id: bytes
    block: int


@dataclass(slots=True)
class BlockCacheCounters:
    memory_hits: int = 0
    joined_flights: int = 0
    disk_hits: int = 0
    store_requests: int = 0
    store_bytes: int = 0
    evicted_bytes: int = 0
    corrupt_on_disk: int = 0


class BlockCache:
    """memory_bytes: bound on extents kept, with those that responses still pin.

    disk: None for no second level. Closed with this cache.
    """

    def __init__(
        self,
        memory_bytes: int,
        disk: DiskCache | None = None,
        *,
        coalesce_bytes: int = COALESCE_BYTES,
    ) -> None:
        assert memory_bytes >= 0, memory_bytes
        self.memory_bytes = memory_bytes
        # An extent is the unit of eviction: a small cache must hold more than a few.
        self.coalesce_bytes = max(1, min(coalesce_bytes, memory_bytes // 8))
        self.counters = BlockCacheCounters()
        self._disk = disk
        self._where: dict[BlockKey, _Extent] = {}
        self._served: OrderedDict[int, _Extent] = OrderedDict()
        self._probation: OrderedDict[int, _Extent] = OrderedDict()
        self._protected: OrderedDict[int, _Extent] = OrderedDict()
        self._protected_bytes = 0
        self._cached_bytes = 0
        self._leaving: list[bytes] = []
        self._leaving_bytes = 0
        self._extents_made = 0
        self._flights: dict[BlockKey, _Flight] = {}
        self._tasks: dict[asyncio.Task[dict[int, memoryview]], None] = {}
        self._closed = False

    @property
    def disk(self) -> DiskCache | None:
        """The second level."""
        return self._disk

    @property
    def cached_bytes(self) -> int:
        """What readers can hit."""
        return self._cached_bytes

    @property
    def live_bytes(self) -> int:
        """What is really held: cached, and evicted but still in some response."""
        self._sweep_leaving()
        return self._cached_bytes + self._leaving_bytes

    async def read(
        self,
        store: ObjectStore,
        ref: ObjectRef,
        wanted: Sequence[tuple[int, BlockEntry]],
        *,
        ahead: bool = False,
    ) -> list[memoryview]:
        """The blocks asked for, in that order; views stay valid for as long as they are kept.

        wanted: block numbers with their entries of the object's index, ascending.
        store: where a miss is fetched from; carries the priority. ahead: nobody waits for it yet,
        so that it need not go on when the caller is cancelled.
        Raises Corrupt, NotFound (naming the key), or what else the store raises.
        """
        found: dict[int, memoryview] = {}
        joined: dict[_Flight, None] = {}
        missing: list[tuple[int, BlockEntry]] = []
        for number, entry in wanted:
            block_key = BlockKey(ref.key, ref.write_id, number)
            extent = self._where.get(block_key)
            if extent is not None:
                self._touch(extent)
                self.counters.memory_hits += 1
                found[number] = extent.block(number)
            elif (flight := self._flight(block_key)) is not None:
                self.counters.joined_flights += 1
                joined[flight] = None
            else:
                missing.append((number, entry))
        for run in _adjacent_runs(missing, self.coalesce_bytes):
            joined[self._start_flight(store, ref, run)] = None
        for blocks in await self._land(list(joined), ahead=ahead):
            found.update(blocks)
        return [found[number] for number, _ in wanted]

    def note_served(self, ref: ObjectRef, block: int, start: int, end: int) -> None:
        """Bytes [start, end) of a block went to a reader: a second time promotes the extent."""
        extent = self._where.get(BlockKey(ref.key, ref.write_id, block))
        if extent is None:
            return
        base = extent.blocks[block][0]
        if base + start < extent.served_to:
            self._promote(extent)
        extent.served_to = max(extent.served_to, base + end)
        if extent.served_to == len(extent.data) and extent.id in self._probation:
            del self._probation[extent.id]
            self._served[extent.id] = extent

    def is_cached(self, ref: ObjectRef, block: int) -> bool:
        """In memory, or on its way there."""
        block_key = BlockKey(ref.key, ref.write_id, block)
        return block_key in self._where or self._flight(block_key) is not None

    def extent_bytes(self, ref: ObjectRef, block: int) -> int:
        """Size of the buffer that a view of this block keeps alive; 0 when it is not cached."""
        extent = self._where.get(BlockKey(ref.key, ref.write_id, block))
        return len(extent.data) if extent is not None else 0

    async def close(self) -> None:
        """Ends all flights; their readers get StoreUnavailable. Idempotent."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._where.clear()
        self._served.clear()
        self._probation.clear()
        self._protected.clear()
        self._cached_bytes = self._protected_bytes = 0
        if self._disk is not None:
            await self._disk.close()

    # Flights

    def _start_flight(
        self, store: ObjectStore, ref: ObjectRef, run: list[tuple[int, BlockEntry]]
    ) -> _Flight:
        if self._closed:
            raise StoreUnavailable(f"{ref.key}: the block cache is closed")
        task = asyncio.get_running_loop().create_task(
            self._fly(store, ref, run), name=f"block-flight {ref.key}"
        )
        keys = [BlockKey(ref.key, ref.write_id, number) for number, _ in run]
        flight = _Flight(task, keys)
        for block_key in keys:
            self._flights[block_key] = flight
        self._tasks[task] = None

        def landed(task: asyncio.Task[dict[int, memoryview]]) -> None:
            del self._tasks[task]
            self._forget_flight(flight)
            if not task.cancelled():
                task.exception()  # the readers may all have gone; then nobody else asks for it

        task.add_done_callback(landed)
        return flight

    def _flight(self, block_key: BlockKey) -> _Flight | None:
        """On its way; one that has ended gave its blocks to the cache, or failed."""
        flight = self._flights.get(block_key)
        return flight if flight is not None and not flight.task.done() else None

    def _forget_flight(self, flight: _Flight) -> None:
        for block_key in flight.keys:
            if self._flights.get(block_key) is flight:
                del self._flights[block_key]

    async def _land(self, flights: list[_Flight], *, ahead: bool) -> list[dict[int, memoryview]]:
        """Wait for all. A flight that a reader waited for goes on when he leaves: from a store that
        is slower than readers are patient, nobody would ever get anything else.
        """
        for flight in flights:
            flight.waiting += 1
            flight.goes_on = flight.goes_on or not ahead
        try:
            landed = []
            for flight in flights:
                try:
                    landed.append(await asyncio.shield(flight.task))
                except asyncio.CancelledError:
                    if flight.task.cancelled() and not _being_cancelled():
                        raise StoreUnavailable("the block cache was closed") from None
                    raise
            return landed
        finally:
            for flight in flights:
                flight.waiting -= 1
                if not flight.waiting and not flight.goes_on and not flight.task.done():
                    self._forget_flight(flight)
                    flight.task.cancel()

    async def _fly(
        self, store: ObjectStore, ref: ObjectRef, run: list[tuple[int, BlockEntry]]
    ) -> dict[int, memoryview]:
        blocks: dict[int, memoryview] = {}
        rest = run
        if self._disk is not None:
            rest = await self._from_disk(ref, run, blocks)
        for part in _adjacent_runs(rest, self.coalesce_bytes):
            start = part[0][1].position
            end = part[-1][1].position + part[-1][1].size
            data = await store.get_range(ref.key, start, end)
            self.counters.store_requests += 1
            self.counters.store_bytes += len(data)
            view = memoryview(data)
            for _, entry in part:
                first = entry.position - start
                check_block(view[first : first + entry.size], ref.key, entry)
            # Nothing local may still pin the extent when its eviction is accounted for.
            del view
            extent = self._keep(ref, data, start, part)
            del data
            for number, entry in part:
                blocks[number] = extent.block(number)
                if self._disk is not None:
                    self._disk.offer(ref.key, ref.write_id, number, blocks[number], entry.crc)
        return blocks

    async def _from_disk(
        self, ref: ObjectRef, run: list[tuple[int, BlockEntry]], blocks: dict[int, memoryview]
    ) -> list[tuple[int, BlockEntry]]:
        """Fills `blocks` with what local disk has unharmed; returns the rest."""
        assert self._disk is not None
        values = await self._disk.get(ref.key, ref.write_id, [number for number, _ in run])
        rest: list[tuple[int, BlockEntry]] = []
        for number, entry in run:
            value = values.get(number)
            if value is None:
                rest.append((number, entry))
            elif len(value) != entry.size or crc32c(value) != entry.crc:
                self.counters.corrupt_on_disk += 1
                self._disk.forget(ref.key, ref.write_id, number)
                rest.append((number, entry))
            else:
                self.counters.disk_hits += 1
                part = [(number, entry)]
                blocks[number] = self._keep(ref, value, entry.position, part).block(number)
        return rest

    # What is kept

    def _keep(
        self, ref: ObjectRef, data: bytes, start: int, part: list[tuple[int, BlockEntry]]
    ) -> _Extent:
        self._extents_made += 1
        bounds = {
            number: (entry.position - start, entry.position - start + entry.size)
            for number, entry in part
        }
        extent = _Extent(self._extents_made, ref, data, memoryview(data), bounds)
        if self._closed or len(data) > self.memory_bytes // 2:
            return extent  # one huge block must not empty the cache
        for number in bounds:
            block_key = BlockKey(ref.key, ref.write_id, number)
            if (older := self._where.get(block_key)) is not None:
                self._evict(older)
            self._where[block_key] = extent
        self._probation[extent.id] = extent
        self._cached_bytes += len(data)
        self._make_room()
        return extent

    def _touch(self, extent: _Extent) -> None:
        self._segment(extent).move_to_end(extent.id)

    def _segment(self, extent: _Extent) -> OrderedDict[int, _Extent]:
        if extent.protected:
            return self._protected
        return self._served if extent.id in self._served else self._probation

    def _promote(self, extent: _Extent) -> None:
        if extent.protected:
            return
        del self._segment(extent)[extent.id]
        self._protected[extent.id] = extent
        extent.protected = True
        self._protected_bytes += len(extent.data)
        while self._protected_bytes > self.memory_bytes * PROTECTED_SHARE:
            _, oldest = self._protected.popitem(last=False)
            oldest.protected = False
            self._protected_bytes -= len(oldest.data)
            self._probation[oldest.id] = oldest

    def _make_room(self) -> None:
        self._sweep_leaving()
        # The newest extent stays in any case: whoever fetched it is about to read it.
        while (
            self._cached_bytes + self._leaving_bytes > self.memory_bytes
            and len(self._served) + len(self._probation) + len(self._protected) > 1
        ):
            on_probation = len(self._probation) > 1 or not self._protected
            segment = self._served or (self._probation if on_probation else self._protected)
            self._evict(next(iter(segment.values())))
            self._sweep_leaving()

    def _evict(self, extent: _Extent) -> None:
        del self._segment(extent)[extent.id]
        if extent.protected:
            self._protected_bytes -= len(extent.data)
        for number in extent.blocks:
            block_key = BlockKey(extent.ref.key, extent.ref.write_id, number)
            if self._where.get(block_key) is extent:
                del self._where[block_key]
        self._cached_bytes -= len(extent.data)
        self.counters.evicted_bytes += len(extent.data)
        self._leaving.append(extent.data)
        self._leaving_bytes += len(extent.data)

    def _sweep_leaving(self) -> None:
        kept = []
        for data in self._leaving:
            if sys.getrefcount(data) > _UNPINNED_REFERENCES:  # a view adds one
                kept.append(data)
            else:
                self._leaving_bytes -= len(data)
        self._leaving = kept


@dataclass(slots=True)
class _Extent:
    """blocks: number -> [start, end) in data. served_to: highest byte that a reader got."""

    id: int
    ref: ObjectRef
    data: bytes
    view: memoryview
    blocks: dict[int, tuple[int, int]]
    served_to: int = 0
    protected: bool = False

    def block(self, number: int) -> memoryview:
        start, end = self.blocks[number]
        return self.view[start:end]


@dataclass(slots=True, eq=False)
class _Flight:
    task: asyncio.Task[dict[int, memoryview]]
    keys: list[BlockKey]
    waiting: int = 0
    goes_on: bool = False


def _adjacent_runs(
    blocks: Sequence[tuple[int, BlockEntry]], limit_bytes: int
) -> list[list[tuple[int, BlockEntry]]]:
    """Split into runs without a gap, of at most `limit_bytes` (or of one block)."""
    runs: list[list[tuple[int, BlockEntry]]] = []
    size = 0
    for number, entry in blocks:
        if runs:
            last = runs[-1][-1][1]
            if last.position + last.size == entry.position and size + entry.size <= limit_bytes:
                runs[-1].append((number, entry))
                size += entry.size
                continue
        runs.append([(number, entry)])
        size = entry.size
    return runs


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
