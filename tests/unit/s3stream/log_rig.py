"""A broker's streams over a store that several lives of it share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import TypeVar

from msgspec.structs import replace

from objectstore.store import ObjectStore
from protocol.record_batch import iter_headers, parse_header
from protocol.records import Record, encode_batch
from s3stream.batches import entry_of
from s3stream.config import S3StreamConfig
from s3stream.node_log import StreamStorage
from s3stream.object_writer import ObjectWriter
from s3stream.stream import Stream
from s3stream.takeover import SourceRef, recover, write_recovery_object
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import SimulatedStore
from wal import Fenced, LogClosed, end_log, wal_log
from wal.config import WalConfig
from wal.format import BatchEntry

WINDOW = 4
T = TypeVar("T")

SMALL = S3StreamConfig(
    log_cache_bytes=1 << 20,
    upload_trigger_bytes=1 << 19,
    wal=WalConfig(object_max_bytes=16 << 10, latency_target_s=0.01),
)


def run(body: Callable[[SimulatedLoop], Awaitable[T]], seed: int = 1) -> T:
    """Under virtual time."""
    loop = SimulatedLoop(seed)

    async def main() -> T:
        return await body(loop)

    return loop.run(main())


def make_entry(
    stream: Stream,
    *,
    records: int = 1,
    value: bytes = b"v",
    timestamp: int = 1000,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
) -> BatchEntry:
    """A batch for the stream's next offset."""
    base = stream.next_offset
    batch = encode_batch(
        [Record(base + i, timestamp, None, value) for i in range(records)],
        base,
        producer_id,
        producer_epoch,
        base_sequence,
        leader_epoch=stream.epoch,
    )
    view = memoryview(batch)
    return replace(entry_of(stream.stream_id, view, parse_header(view)), timestamp_ms=timestamp)


def flat(batches: Iterable[memoryview]) -> bytes:
    return b"".join(batches)


def offsets(batches: Iterable[memoryview]) -> list[tuple[int, int]]:
    """(base, last) of each batch."""
    return [(h.base_offset, h.last_offset) for view in batches for _, h in iter_headers(view)]


async def read_all(stream: Stream, max_bytes: int = 1 << 30) -> bytes:
    """From the start offset to the high watermark, fetch by fetch."""
    found = bytearray()
    offset = stream.start_offset
    while offset < stream.high_watermark:
        batches = await stream.fetch(offset, stream.high_watermark, max_bytes)
        assert batches, (stream.stream_id, offset)
        found += flat(batches)
        offset = offsets(batches)[-1][1] + 1
    return bytes(found)


async def until_recorded(stream: Stream) -> None:
    """Until an upload of all that the stream has is in the log; its checkpoint is not, yet."""
    recorded = asyncio.Event()

    def advanced(one: Stream) -> None:
        if not one.entry.tail():
            recorded.set()

    stream.on_advance.append(advanced)
    await recorded.wait()


class Life:
    """One incarnation of the broker, running."""

    def __init__(self, storage: StreamStorage, task: asyncio.Task[None]) -> None:
        self.storage = storage
        self.task = task

    async def kill(self) -> None:
        """As near to kill -9 as one task allows: nothing is flushed, nothing is said."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def close(self, deadline_s: float | None = None) -> None:
        await self.storage.close(deadline_s)
        await self.task


def begin(
    store: ObjectStore,
    incarnation: int,
    loop: SimulatedLoop,
    config: S3StreamConfig = SMALL,
    seed: int = 0,
) -> Life:
    storage = StreamStorage(
        store, incarnation, WINDOW, config, rng=Random(seed + incarnation), now_ms=loop.now_ms
    )
    return Life(storage, loop.create_task(storage.run()))


async def take_over(
    store: ObjectStore,
    dead: int,
    incarnation: int,
    loop: SimulatedLoop,
    config: S3StreamConfig = SMALL,
) -> tuple[Life, dict[int, Stream]]:
    """End the log of `dead`, read it, and open all that it led under `incarnation`."""
    rng = Random(dead)
    end = await end_log(store, wal_log(dead), WINDOW, b"process", rng)
    recovered = await recover(store, dead, end.end)
    life = begin(store, incarnation, loop, config)
    writer = ObjectWriter(store, incarnation, life.storage.numbers, rng=rng)
    blobs = await write_recovery_object(recovered, writer)
    wanted = [
        (one.stream_id, one.epoch + 1, (0, incarnation, n))
        for n, one in enumerate(recovered.entries.values())
        if not one.closed
    ]
    source = SourceRef(dead, blobs[0])
    opened = await life.storage.open_streams(wanted, source)
    return life, {one.stream_id: one for one in opened}


async def open_new(life: Life, ids: Sequence[int], epoch: int = 0) -> dict[int, Stream]:
    opened = await life.storage.open_streams([(one, epoch, (0, 1, one)) for one in ids])
    return {one.stream_id: one for one in opened}


@asynccontextmanager
async def living(
    loop: SimulatedLoop, config: S3StreamConfig = SMALL, store: ObjectStore | None = None
) -> AsyncIterator[tuple[Life, SimulatedStore]]:
    """A first life on a fair store; killed at the end."""
    bucket = store or SimulatedStore(loop, Random(7))
    life = begin(bucket, 1, loop, config)
    try:
        yield life, bucket  # type: ignore[misc]
    finally:
        if life.task.done():
            try:
                await life.task
            except (Fenced, LogClosed, asyncio.CancelledError):
                pass
        else:
            await life.kill()
