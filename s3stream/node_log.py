"""Everything a broker holds of streams: one log, its caches, its uploads.

    append -> log cache and log writer -> durable -> fold -> high watermarks move
                                              \\-> uploader, back-pressure

`run()` owns all tasks and ends with Fenced when another process has ended the log. Nothing here
polls: an idle broker has one timer at most, the housekeeping pass.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random

from objectstore.errors import Corrupt, StoreError
from objectstore.store import ObjectStore
from wal.durable_future import DurableFuture
from wal.errors import LogClosed, LogError
from wal.format import BatchEntry, Kind, LargeBatchRef
from wal.keys import wal_log
from wal.parallel import first_error
from wal.writer import DurableObject, LogWriter

from .adoption import is_adopted
from .archive import Archiver
from .back_pressure import Admission, BackPressure
from .block_cache import BlockCache
from .checkpoint import Checkpointer
from .config import S3StreamConfig
from .control import (
    Closing,
    Dropped,
    OpenedStream,
    Opening,
    Received,
    Trimmed,
    encode_control,
)
from .entries import Appointment
from .fold import ref_of
from .foreground import Foreground
from .handoff import HandingOver, HandoffRef, read_contents
from .log_cache import CachedStream, LogCache
from .metadata.records import BlobRef
from .object_reader import ObjectReader
from .object_writer import ObjectWriter
from .read_ahead import ReadAhead
from .references import ObjectNumbers
from .registry import StreamRegistry
from .stream import Stream
from .takeover import SourceRef, read_source
from .uploader import Uploader

OnTrouble = Callable[[StoreError | None], None]


class StreamStorage:
    """The streams of one incarnation.

    incarnation, window: as the metadata log gave them out.
    block_cache: of uploaded objects; made here, in memory only, when none is given.
    on_trouble: the log's store trouble (None: over), for readiness and back-off.
    on_upload_trouble: the same of uploads, which nobody waits for while there is memory.
    store: for what clients wait for. wal_store, upload_store: the same bucket at other
    priorities, for the log itself, and for uploads and read-ahead.
    """

    def __init__(
        self,
        store: ObjectStore,
        incarnation: int,
        window: int,
        config: S3StreamConfig,
        *,
        rng: Random,
        now_ms: Callable[[], int],
        block_cache: BlockCache | None = None,
        on_trouble: OnTrouble | None = None,
        on_upload_trouble: OnTrouble | None = None,
        wal_store: ObjectStore | None = None,
        upload_store: ObjectStore | None = None,
    ) -> None:
        self.store = store
        self.incarnation = incarnation
        self.config = config
        self.registry = StreamRegistry(incarnation)
        self.numbers = ObjectNumbers(incarnation=incarnation)
        self._own_block_cache = block_cache is None
        self.block_cache = block_cache or BlockCache(config.block_cache_bytes)
        self.reader = ObjectReader(store, self.block_cache)
        self.read_ahead = ReadAhead(
            self.reader, upload_store or store, total_bytes=self.block_cache.memory_bytes // 2
        )
        self.cache = LogCache(config.log_cache_bytes)
        self._streams: dict[int, Stream] = {}
        self.wal = LogWriter(
            wal_store or store,
            wal_log(incarnation),
            window,
            config.wal,
            rng=rng,
            on_durable=self._on_durable,
            on_trouble=on_trouble,
        )
        self.object_writer = ObjectWriter(
            upload_store or store,
            incarnation,
            self.numbers,
            rng=rng,
            on_trouble=on_upload_trouble,
        )
        self.archiver = Archiver(
            self.registry,
            self.reader,
            self.object_writer,
            config,
            append=self.append_control,
        )
        self.checkpointer = Checkpointer(
            self.registry,
            self.object_writer,
            config,
            append=self.append_control,
            set_trim=self.wal.set_trim,
            archiver=self.archiver,
        )
        self.pressure = BackPressure(
            config.log_cache_bytes,
            int(config.log_cache_bytes * config.log_cache_reserve),
            pinned_bytes=lambda: self.cache.pinned_bytes,
            overdue=self._overdue,
            on_wait=self._somebody_waits,
        )
        self.uploader = Uploader(
            self.registry,
            self.cache,
            self.reader,
            self.object_writer,
            self.checkpointer,
            config,
            append=self.append_control,
            waiting=lambda: self.pressure.waiting,
            now_ms=now_ms,
            rng=rng,
        )
        self.foreground = Foreground(config.busy_bytes_per_s, config.busy_patience_s)
        self.handing_over = HandingOver(
            self.registry,
            self.object_writer,
            append=self._append_control,
            settled=self._controls_settled,
        )
        self._last_control: DurableFuture | None = None
        # Called when objects were added to a stream's history or left it.
        self.on_history: Callable[[], None] | None = None
        self._uploading: asyncio.Task[None] | None = None
        self._touched_at = -math.inf
        self._closed = False

    # Streams

    def stream(self, stream_id: int) -> Stream | None:
        return self._streams.get(stream_id)

    def streams(self) -> list[Stream]:
        return list(self._streams.values())

    async def open_streams(
        self,
        appointments: Iterable[tuple[int, int, Appointment]],
        source: SourceRef | HandoffRef | None = None,
    ) -> list[Stream]:
        """Lead streams, in one record: durable, and so open, when this returns.

        appointments: (stream id, leader epoch, metadata record). source: what the ended log that
        holds them left, or what a live one told as it closed them; None: they are new, or were
        closed in this log.
        Raises Fenced, LogClosed, Corrupt, or what reading the source raises.
        """
        opened = [OpenedStream(*one) for one in appointments]
        if not opened:
            return []
        held: tuple[str, ...] = ()
        record: Opening | Received = Opening(opened)
        if source is not None:
            wanted = {one.stream_id for one in opened}
            if isinstance(source, HandoffRef):
                told_in = BlobRef(*source.contents)
                found = await read_contents(self.store, source, wanted)
                record = Received(opened, source.incarnation, source.move, told_in)
            else:
                told_in = BlobRef(*source.recovery)
                found = await read_source(self.store, source, wanted)
                record = Opening(opened, source.incarnation, told_in)
            missing = sorted(wanted - found.entries.keys())
            if missing:
                raise Corrupt(
                    f"{told_in.key}: incarnation {source.incarnation} left nothing of streams "
                    f"{missing}"
                )
            held = found.held
            self.registry.learn_source(told_in, found)
        # A control record comes before the data of its object: a batch of the epoch before that is
        # on its way must not come after the new one.
        await self._drain([one.stream_id for one in opened])
        # Crashed before this is durable: the source still has everything.
        await self.append_control(encode_control(record))
        # If we took over ourselves, the recovery object is of our making: it is referred to now.
        self.numbers.settle_keys(held)
        streams = []
        for one in opened:
            entry = self.registry.entry(one.stream_id)
            known = self._streams.get(one.stream_id)
            if known is not None:
                known.closing = False
            if known is None or known.entry is not entry:
                self.cache.drop(one.stream_id)
                cached = self.cache.stream(one.stream_id)
                known = Stream(self, entry, cached, self.reader, self.read_ahead)
                self._streams[one.stream_id] = known
            streams.append(known)
        return streams

    async def close_streams(
        self, stream_ids: Sequence[int], move: Appointment | None = None
    ) -> None:
        """Nothing more is appended to them; what was appended is durable when this returns."""
        await self._drain(stream_ids)
        await self.append_control(encode_control(Closing(list(stream_ids), move)))
        for stream_id in stream_ids:
            self._streams.pop(stream_id, None)

    async def hand_over(self, moves: Mapping[int, Sequence[int]]) -> dict[int, BlobRef]:
        """Close streams for planned moves: where the next leaders read what they held.

        moves: stream ids by the move's number; a move that was closed for before is only told
        again. Durable when this returns. Raises Corrupt, Fenced, LogClosed.
        """
        todo = {m: ids for m, ids in moves.items() if self.registry.contents_of(m) is None}
        if todo:
            stream_ids = [one for ids in todo.values() for one in ids]
            await self._drain(stream_ids)
            await self.handing_over.close(todo)
            for stream_id in stream_ids:
                self._streams.pop(stream_id, None)
        told = {move: self.registry.contents_of(move) for move in moves}
        return {move: contents for move, contents in told.items() if contents is not None}

    async def drop_streams(self, stream_ids: Sequence[int]) -> None:
        """Deleted, or opened elsewhere: this log lets go of them. Unknown ones are passed by."""
        known = [one for one in stream_ids if one in self.registry]
        if not known:
            return
        await self._drain(known)
        await self.append_control(encode_control(Dropped(known)))
        for stream_id in known:
            self._streams.pop(stream_id, None)
            self.cache.drop(stream_id)
            self.read_ahead.forget_stream(stream_id)

    async def _drain(self, stream_ids: Sequence[int]) -> None:
        # A control record comes before the data of its object: it must not overtake a batch.
        for stream_id in stream_ids:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.closing = True
        for stream_id in stream_ids:
            stream = self._streams.get(stream_id)
            if stream is not None:
                await stream.drained()

    def trim_streams(self, starts: Sequence[tuple[int, int]]) -> DurableFuture:
        """New start offsets of many streams in one record; durable when the future resolves."""
        return self._append_control(encode_control(Trimmed(list(starts))))

    # Appending

    def append_batch(self, entry: BatchEntry, cached: CachedStream) -> DurableFuture:
        """Of `Stream.append`. The batch is in the log cache from now on."""
        future = self.wal.append(entry)
        self.cache.add(cached, entry)
        if entry.reference is not None:
            key = entry.reference.key
            # Folded by then, so the log refers to it; or the log has ended.
            future.add_done_callback(lambda _: self.numbers.settle_keys([key]))
        return future

    async def write_large_batch(
        self, entry: BatchEntry, give_up_after_s: float | None = None
    ) -> LargeBatchRef:
        """Write a batch to an object of its own, before it has an offset.

        The caller then sets offset and epoch, and appends it with this as `reference`; or, if it
        will not, calls `forget_large_batch`. Raises StoreUnavailable after `give_up_after_s`.
        """
        written = await self.object_writer.write_records(
            Kind.BATCH, [entry], give_up_after_s=give_up_after_s
        )
        return LargeBatchRef(written.ref.key, written.ref.write_id, written.ref.size_bytes)

    def forget_large_batch(self, reference: LargeBatchRef) -> None:
        """It will not be appended: the collector may have it."""
        self.numbers.settle_keys([reference.key])

    async def append_control(self, record: bytes) -> int:
        """Durable and folded when it returns: the sequence of its object."""
        return await self._append_control(record)

    def _append_control(self, record: bytes) -> DurableFuture:
        self._last_control = future = self.wal.append_control(record)
        return future

    async def _controls_settled(self) -> None:
        """Until the fold has made of every control record so far what it will. Raises Fenced."""
        while self._last_control is not None and not self._last_control.done():
            await asyncio.shield(self._last_control)

    def try_admit(self, size_bytes: int, *, own: bool = False) -> Admission | None:
        """Room for so many bytes of batches at once; None: wait with `admit`."""
        return self.pressure.try_admit(size_bytes, own=own)

    async def admit(self, size_bytes: int, *, own: bool = False) -> Admission:
        """Room for so many bytes of batches, first come first served.

        own: the broker's own writes, which have a reserve. Release it once they are appended:
        `with await storage.admit(n): ...`. Raises LogClosed or Fenced when the log has ended.
        """
        return await self.pressure.admit(size_bytes, own=own)

    def set_producer_expiration(self, expiration_ms: int) -> None:
        """From the next upload on, instead of `config.producer_expiration_ms`."""
        self.uploader.producer_expiration_ms = expiration_ms

    def touch(self) -> None:
        """A client did something: the broker is not idle."""
        self._touched_at = asyncio.get_running_loop().time()
        self.uploader.touch(self._touched_at)

    @property
    def is_idle(self) -> bool:
        """No client did anything of late."""
        now = asyncio.get_running_loop().time()
        return now - self._touched_at >= self.config.idle_after_s

    def put_off_s(self) -> float:
        """For work that can wait: seconds until it may go on. 0 while clients do something, and
        again once they have done nothing for as long as housekeeping waits.
        """
        return self.uploader.put_off_s(asyncio.get_running_loop().time())

    def merge_put_off_s(self) -> float:
        """As `put_off_s`, for work that also waits while clients keep this broker busy."""
        now = asyncio.get_running_loop().time()
        return max(self.uploader.put_off_s(now), self.foreground.put_off_s(now))

    def read_from_store(self, size_bytes: int) -> None:
        """A client was given so much of what is not in the log cache."""
        self.foreground.note(asyncio.get_running_loop().time(), size_bytes)

    # The log's side

    def _on_durable(self, obj: DurableObject) -> None:
        ref = ref_of(obj.key, obj.write_id, obj.size_bytes, obj.index)
        folded = self.registry.fold(obj.seq, ref, obj.index)
        if obj.entries:
            self._seal_cached(obj)
            self.foreground.note(asyncio.get_running_loop().time(), obj.size_bytes)
            self.touch()
        if folded.uploaded_seq is not None:
            self.cache.uploaded(folded.uploaded_seq)
        if folded.history and self.on_history is not None:
            self.on_history()
        for stream_id in folded.streams:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.advanced()
        self.pressure.changed()
        self.uploader.notice(asyncio.get_running_loop().time())

    def _seal_cached(self, obj: DurableObject) -> None:
        counts: dict[int, int] = {}
        shares: dict[int, int] = {}
        in_line = True
        for one in obj.index.ranges:
            counts[one.stream_id] = counts.get(one.stream_id, 0) + one.batch_count
            shares[one.stream_id] = shares.get(one.stream_id, 0) + one.size_bytes
            in_line = in_line and one.reference is None
        # Readable where it is, and most likely adopted there: memory need not wait for that.
        stays_home = in_line and is_adopted(
            obj.size_bytes, list(shares.values()), self.config.adopt_share_bytes
        )
        self.cache.seal(obj.seq, counts, stays_home=stays_home)
        if stays_home:
            self.uploader.expect_home(sum(shares.values()))

    def _overdue(self) -> bool:
        waiting = self.registry.folded_seq - self.registry.uploaded_seq
        return waiting >= 2 * self.config.upload_max_objects

    def _somebody_waits(self) -> None:
        self.uploader.notice(asyncio.get_running_loop().time())

    # Life

    async def run(self) -> None:
        """Until closed. Raises Fenced; anything else is a bug."""
        uploading = asyncio.get_running_loop().create_task(self.uploader.run(), name="uploader")
        self._uploading = uploading
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._run_log(uploading), name="wal-writer")
                tasks.create_task(self._watch(uploading), name="uploader-watch")
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            uploading.cancel()
            self.pressure.fail(self.wal.fenced or LogClosed(f"{self.wal.log}: closed"))
            await asyncio.gather(uploading, return_exceptions=True)

    async def _run_log(self, uploading: asyncio.Task[None]) -> None:
        try:
            await self.wal.run()
        finally:
            uploading.cancel()

    async def _watch(self, uploading: asyncio.Task[None]) -> None:
        await asyncio.wait([uploading])
        if not uploading.cancelled() and (error := uploading.exception()) is not None:
            if isinstance(error, LogError):
                return  # the writer ends too, and says why
            raise error

    async def flush(self) -> None:
        await self.wal.flush()

    async def confirm(self) -> None:
        """Raises Fenced when another process has ended this log (PROTOCOL 10)."""
        await self.wal.confirm()

    async def close(self, deadline_s: float | None = None) -> None:
        """Flush, leave a checkpoint for the next to start from, stop. `run()` returns then.

        What is not done by the deadline is left as a crash would leave it.
        """
        if self._closed:
            return
        self._closed = True
        loop = asyncio.get_running_loop()
        end_at = None if deadline_s is None else loop.time() + deadline_s
        try:
            async with asyncio.timeout_at(end_at):
                await self._stop_uploading()
                await self.wal.flush()
                checkpoint = self.registry.checkpoint
                as_of = -1 if checkpoint is None else self.registry.checkpoint_seq
                if self.registry.folded_seq != as_of:
                    await self.checkpointer.write()
        except (TimeoutError, LogError):
            pass
        left_s = None if end_at is None else max(0.0, end_at - loop.time())
        await self.wal.close(left_s)
        await self._close_reader()

    async def abort(self) -> None:
        """Stop as a crash would."""
        self._closed = True
        self.wal.abort()
        await self._close_reader()

    async def _stop_uploading(self) -> None:
        if self._uploading is not None:
            self._uploading.cancel()
            await asyncio.wait([self._uploading])

    async def _close_reader(self) -> None:
        await self.read_ahead.close()
        await self.reader.close()
        if self._own_block_cache:
            await self.block_cache.close()

    # For rounds of deletion

    def references(self) -> set[str]:
        """Keys referred to at this moment; a round hears of more, see `Reporter`."""
        return self.registry.references.held()
