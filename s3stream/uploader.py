"""From the log to large objects: when, what, and the record that makes it so.

    snapshot   X = the newest folded object; every open stream's tail up to there
    part       log objects whose shares are large stay where they are, see `adoption`
    write      the rest, as one data object or a few: sorted by stream, then offset
    record     Uploaded(objects, X), or Adopted(objects, X, those that stay): its fold puts the new
               ranges in the tail's place
    checkpoint pages and delta; then the log is trimmed to X + 1

Batches come from the log cache, where they are pinned until the record is folded; what an earlier
process left in its log (an adopted tail) is read and written along. A failed request is repeated
for as long as it takes; the snapshot stays.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

from objectstore.create import Backoff, OnTrouble
from objectstore.errors import Corrupt, NotFound, StoreError
from wal.format import BatchEntry, Kind
from wal.parallel import each_of

from .adoption import is_adopted
from .batches import entries_of, in_line
from .checkpoint import Checkpointer
from .config import S3StreamConfig
from .control import Adopted, Uploaded, encode_control
from .entries import StreamEntry
from .log_cache import LogCache
from .object_reader import ObjectReader
from .object_writer import ObjectWriter, WrittenObject
from .refs import ObjectRange, ObjectRef
from .registry import StreamRegistry

_WHOLE = 1 << 62
# One PUT of 64 MiB goes at some 80 MB/s on S3: several keep up with producers that are faster.
_OBJECTS_AT_ONCE = 4
# Batches, in about a millisecond: a large upload of small ones must not hold up the loop.
_GATHERED_AT_ONCE = 4096


@dataclass(slots=True)
class _Unit:
    """One stream's batches in one object of a log. entries: None where they must be read."""

    stream_id: int
    range: ObjectRange
    entries: list[BatchEntry] | None


class Uploader:
    """append: puts a control record into the log and returns, durable and folded, with its seq.

    waiting: how many appenders the back-pressure holds.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        cache: LogCache,
        reader: ObjectReader,
        writer: ObjectWriter,
        checkpointer: Checkpointer,
        config: S3StreamConfig,
        *,
        append: Callable[[bytes], Awaitable[int]],
        waiting: Callable[[], int],
        now_ms: Callable[[], int],
        rng: Random,
        on_trouble: OnTrouble | None = None,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._reader = reader
        self._writer = writer
        self._checkpointer = checkpointer
        self._config = config
        # Of `config` at first; a dynamic setting of the broker.
        self.producer_expiration_ms = config.producer_expiration_ms
        self._append = append
        self._waiting = waiting
        self._now_ms = now_ms
        self._rng = rng
        self._on_trouble = on_trouble
        self._wake = asyncio.Event()
        self._pending_since = math.inf
        self._active_at = -math.inf
        self._asked = False
        self._waits = False
        # Bytes of tails that could not be read: they alone must not start upload after upload.
        self._unreadable: dict[int, int] = {}
        # Bytes of tails that will most likely stay where they are: no reason to upload.
        self._home_bytes = 0
        self.uploads = 0
        self.uploaded_bytes = 0
        self.adopted_objects = 0
        self.adopted_bytes = 0

    def put_off_s(self, now: float) -> float:
        """See StreamStorage.put_off_s."""
        idle_s = now - self._active_at
        if idle_s < self._config.idle_after_s:
            return 0.0
        return max(0.0, self._config.housekeeping_s - idle_s)

    def touch(self, now: float) -> None:
        """A client did something: what age alone asks for may go in the next seconds."""
        self._active_at = now

    def notice(self, now: float) -> None:
        """Something became durable, or somebody waits. Cheap; called at every log object."""
        if self._pending_since == math.inf and self._pending():
            self._pending_since = now
            self._wake.set()
        elif self._waits and (self._urgent() or self._checkpoint_due() or self._due_at() <= now):
            self._wake.set()

    def expect_home(self, size_bytes: int) -> None:
        """Batches of a log object that became durable, and that is to be adopted."""
        self._home_bytes += size_bytes

    def ask(self) -> None:
        """Upload what there is now, whatever its size."""
        self._asked = True
        self._wake.set()

    async def run(self) -> None:
        """Raises Fenced or LogClosed when the log ends, and Corrupt for a bug."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if self._asked or self._urgent() or self._due_at() <= loop.time():
                self._asked = False
                await self.upload()
            elif self._checkpoint_due():
                await self._checkpointer.write()
            else:
                self._waits = True
                try:
                    async with asyncio.timeout_at(self._look_again_at(loop.time())):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                finally:
                    self._waits = False

    # When

    def _pending(self) -> bool:
        return self._readable_bytes() > 0 or self._sealed() > 0 or self._registry.has_sources

    def _readable_bytes(self) -> int:
        return self._registry.tail_bytes - sum(self._unreadable.values())

    def _sealed(self) -> int:
        return self._cache.pinned_bytes - self._cache.open_bytes

    def _urgent(self) -> bool:
        """By size or count; with appenders waiting, as soon as it is worth a request."""
        config = self._config
        sealed = self._sealed()
        return (
            self._readable_bytes() - self._home_bytes >= config.upload_trigger_bytes
            or sealed >= config.log_cache_bytes // 2
            or self._registry.folded_seq - self._registry.uploaded_seq >= config.upload_max_objects
            or (self._waiting() > 0 and sealed > 0 and sealed * 4 >= self._cache.open_bytes)
        )

    def _checkpoint_due(self) -> bool:
        checkpoint = self._registry.checkpoint
        as_of = checkpoint.as_of_seq if checkpoint is not None else -1
        return self._registry.folded_seq - as_of >= self._config.checkpoint_objects

    def _due_at(self) -> float:
        """By age: at once while there is traffic, else not before the housekeeping pass."""
        if self._pending_since == math.inf:
            return math.inf
        due_at = self._pending_since + self._config.upload_max_age_s
        if due_at > self._active_at + self._config.idle_after_s:
            due_at = max(due_at, self._active_at + self._config.housekeeping_s)
        return due_at

    def _look_again_at(self, now: float) -> float | None:
        """When time alone may change the answer; whether there is traffic is seen then."""
        if self._pending_since == math.inf:
            return None
        of_age_at = self._pending_since + self._config.upload_max_age_s
        return of_age_at if now < of_age_at else self._due_at()

    # What

    async def upload(self) -> None:
        """One upload of all that is durable now, with its checkpoint."""
        registry = self._registry
        up_to_seq = registry.folded_seq
        home_bytes = self._home_bytes
        self._unreadable.clear()
        to_copy, adopted = self._part(self._snapshot())
        groups = self._pack(to_copy)
        made: list[WrittenObject | None] = []
        # What must be read takes memory that is counted nowhere: one object of it at a time. And
        # before the rest, which leaves out the streams that could not be read.
        to_read = [one for one in groups if any(unit.entries is None for unit in one)]
        for group in to_read:
            made.append(await self._write_group(group))
        in_memory = [one for one in groups if all(unit.entries is not None for unit in one)]
        made += await each_of(self._write_group, in_memory, _OBJECTS_AT_ONCE)
        written = [one for one in made if one is not None]
        for one in written:
            registry.learn_index(one.ref, one.index)
        # Crashed before this is durable: the objects are garbage, the log still has everything.
        objects = [one.ref for one in written]
        before_ms = self._now_ms() - self.producer_expiration_ms
        record = Uploaded(objects, up_to_seq, before_ms)
        if adopted:
            record = Adopted(objects, up_to_seq, before_ms, adopted)
        await self._append(encode_control(record))
        self._home_bytes -= home_bytes
        self._writer.numbers.settle([one.number for one in written])
        self.uploads += 1
        await self._checkpointer.write()
        self._pending_since = math.inf
        self.notice(asyncio.get_running_loop().time())

    async def _write_group(self, group: list[_Unit]) -> WrittenObject | None:
        """One data object; None where nothing of it could be read."""
        entries = await self._gather(group)
        if not entries:
            return None
        written = await self._writer.write_records(
            Kind.DATA, entries, part_bytes=self._config.data_object_bytes
        )
        self.uploaded_bytes += written.ref.size_bytes
        return written

    def _snapshot(self) -> list[_Unit]:
        """By stream id and offset."""
        units: list[_Unit] = []
        for stream_id in sorted(self._registry.entries):
            entry = self._registry.entries[stream_id]
            if entry.closed or entry.uploaded_to >= entry.next_offset:
                continue
            cached = self._cache.stream(stream_id)
            for one in entry.tail():
                if one.end_offset > entry.start_offset:
                    batches = cached.between(one.base_offset, one.end_offset)
                    units.append(_Unit(stream_id, one, batches))
        return units

    def _part(self, units: list[_Unit]) -> tuple[list[_Unit], list[ObjectRef]]:
        """(what is to be copied, the log objects that stay what they are in).

        For each object it is all or nothing: half of it stored twice would help nobody.
        """
        shares: dict[ObjectRef, dict[int, int]] = {}
        kept_out: dict[ObjectRef, None] = {}
        for unit in units:
            ref, stream_id = unit.range.object, unit.stream_id
            of_streams = shares.setdefault(ref, {})
            of_streams[stream_id] = of_streams.get(stream_id, 0) + unit.range.size_bytes
            if _has_large(self._registry.entries[stream_id], unit.range):
                kept_out[ref] = None  # another object's batch: uploads bring it in line
        least_bytes = self._config.adopt_share_bytes
        adopted = {
            ref: sum(of_streams.values())
            for ref, of_streams in shares.items()
            if ref not in kept_out
            and is_adopted(ref.size_bytes, list(of_streams.values()), least_bytes)
        }
        self.adopted_objects += len(adopted)
        self.adopted_bytes += sum(adopted.values())
        to_copy = [unit for unit in units if unit.range.object not in adopted]
        return to_copy, sorted(adopted)

    def _pack(self, units: list[_Unit]) -> list[list[_Unit]]:
        """Groups, one for each object; a stream that fills an object gets its own."""
        limit = self._config.data_object_bytes
        sizes: dict[int, int] = {}
        for unit in units:
            sizes[unit.stream_id] = sizes.get(unit.stream_id, 0) + unit.range.size_bytes
        groups: list[list[_Unit]] = []
        shared: list[_Unit] = []
        shared_bytes = own_bytes = 0
        owner: int | None = None
        for unit in units:
            size = unit.range.size_bytes
            if sizes[unit.stream_id] >= limit:
                if owner != unit.stream_id or own_bytes + size > limit:
                    groups.append([])
                    owner, own_bytes = unit.stream_id, 0
                groups[-1].append(unit)
                own_bytes += size
                continue
            if shared and shared_bytes + size > limit:
                groups.append(shared)
                owner = None
                shared, shared_bytes = [], 0
            shared.append(unit)
            shared_bytes += size
        if shared:
            groups.append(shared)
        return groups

    async def _gather(self, group: list[_Unit]) -> list[BatchEntry]:
        entries: list[BatchEntry] = []
        rest_at = _GATHERED_AT_ONCE
        for unit in group:
            if unit.stream_id in self._unreadable:
                continue
            if unit.entries is not None:
                entries += map(in_line, unit.entries)
                if len(entries) >= rest_at:
                    rest_at = len(entries) + _GATHERED_AT_ONCE
                    await asyncio.sleep(0)
                continue
            try:
                entries += await self._read(unit)
            except (NotFound, Corrupt) as error:
                # Its ranges stay where they are, in the other log's object: only it is late.
                self._tell(unit.range.object.key, error)
                entry = self._registry.entries.get(unit.stream_id)
                if entry is not None and not entry.closed:
                    self._unreadable[unit.stream_id] = sum(one.size_bytes for one in entry.tail())
                entries = [one for one in entries if one.stream_id != unit.stream_id]
        return entries

    async def _read(self, unit: _Unit) -> list[BatchEntry]:
        backoff = Backoff(self._rng)
        one = unit.range
        while True:
            try:
                batches = await self._reader.read_stream(
                    unit.stream_id, [one], one.base_offset, one.end_offset, _WHOLE
                )
            except (NotFound, Corrupt):
                raise
            except StoreError as error:
                self._tell(one.object.key, error)
                await asyncio.sleep(backoff.next_s())
            else:
                found: list[BatchEntry] = []
                for run in batches:
                    found += entries_of(unit.stream_id, run, one.object.key)
                return found

    def _tell(self, key: str, error: StoreError) -> None:
        if self._on_trouble is not None:
            self._on_trouble(key, error)


def _has_large(entry: StreamEntry, one: ObjectRange) -> bool:
    return any(one.base_offset <= large.base_offset < one.end_offset for large in entry.large)
