"""Writing a cut down, in the formats that a takeover uses and with nothing but conditional creates.

    1. every term and every log that has no `end` is ended: whoever still writes there is fenced
    2. a log of our own, wal/X, of one object: a checkpoint that holds what is kept of each
       partition; and its `end`
    3. one object of a term of our own: incarnation X is registered, everybody else is fenced,
       every log that was unended is recorded as ended, X leads every partition, X is fenced
    4. a snapshot of the image after it, so that nobody reads the metadata log from below

So what a broker finds that starts here is one dead incarnation whose log it has to take over, as
after any crash. Crashed before 4: the cut can be made again. X is above every incarnation that any
key speaks of, our term above every term, and stream and producer ids go on after a gap, since what
is lost of the metadata log may have given some out.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from broker.controller.membership import FIRST_NODE_ID
from objectstore.create import create_once
from objectstore.errors import Corrupt, NotFound
from objectstore.store import ObjectStore
from s3stream.control import Checkpoint, encode_control
from s3stream.entries import PageRef, StreamEntry
from s3stream.fold import lead
from s3stream.index_pages import encode_entries, split
from s3stream.metadata import records as r
from s3stream.metadata.image import (
    BrokerRegistration,
    MetadataImage,
    PartitionImage,
    changed,
)
from s3stream.metadata.records import Position, encode_record
from s3stream.metadata.snapshot import write_snapshot
from s3stream.metadata.tail import fold
from wal.errors import HoleInLog
from wal.format import Kind, compose, compose_blob, read_header
from wal.keys import LogName, data_key, meta_log, wal_log
from wal.seal import EndBody, SealBody, end_log

from .metadata import read_metadata
from .planning import Plan, newest_of, plan, unended
from .streams import OnProgress
from .survey import Listed, list_bucket

# Given out by records that may be lost; 2^63 is far away.
STREAM_IDS_LEFT_OUT = 1_000_000
PRODUCER_IDS_LEFT_OUT = 1_000_000_000
INLINE_BYTES = 1 << 20
PAGE_STREAMS = 4096
# How a process that makes a cut is named in seals and ends, with a number of its own behind.
MAKER = b"headwater verify --cut"
WINDOW = 8
ATTEMPTS = 8


class Settling:
    """One cut, by one process. now_ms: wall clock."""

    def __init__(
        self,
        store: ObjectStore,
        rng: Random,
        now_ms: Callable[[], int],
        on_progress: OnProgress = lambda done, of: None,
    ) -> None:
        self._store = store
        self._on_progress = on_progress
        self._rng = rng
        self._now_ms = now_ms
        self._process = MAKER + b" (" + rng.randbytes(16).hex().encode() + b")"

    async def run(self) -> Plan:
        """What was kept. Raises Fault where that is nothing, Corrupt where others keep deciding in
        this cluster, StoreError.
        """
        for _ in range(ATTEMPTS):
            term, kept = await self._end_everything()
            if await self._hand_over(term, kept):
                return kept
            # Somebody took our term for one that is deserted; what they registered is ended too.
        raise Corrupt(f"{meta_log(term)}: other processes keep deciding here; stop them first")

    async def _end_everything(self) -> tuple[int, Plan]:
        """(the term that is ours, what is kept). Afterwards nobody adds anything that counts."""
        listed = await list_bucket(self._store)
        metadata = await read_metadata(self._store, listed)
        term = await self._own_term(listed.terms[-1], metadata.image.window)
        # No incarnation is given out any more: end the logs of all that there are.
        listed = await list_bucket(self._store)
        image = (await read_metadata(self._store, listed)).image
        for incarnation in sorted({*listed.incarnations, *unended(image)}):
            if wal_log(incarnation) not in listed.ends:
                await self._stop_writer(
                    wal_log(incarnation), await self._window(image, listed, incarnation)
                )
        kept = await plan(self._store, self._on_progress)
        await self._end_logs(kept)
        return term, kept

    async def _hand_over(self, term: int, kept: Plan) -> bool:
        """False: another process has ended our term."""
        incarnation = newest_of(kept)
        first = self._first_records(kept, incarnation)
        epochs = {one.stream_id: _epoch_after(kept, one) for _, one in kept.image.partitions()}
        appointment = Position(term, 0, len(first))
        for stream_id, entry in kept.entries.items():
            lead(entry, epochs[stream_id], appointment)
        if not await self._write_log(
            incarnation, [kept.entries[one] for one in sorted(kept.entries)]
        ):
            return False
        leaders = [r.LeaderChange(one, incarnation, epochs[one], None) for one in sorted(epochs)]
        records = [*first, r.LeadersChanged(leaders), r.IncarnationFenced(incarnation)]
        return await self._write_term(kept.image, term, records)

    # Ending what is there

    async def _own_term(self, newest: int, window: int) -> int:
        """A term above all there are, and whose predecessor's `end` is ours."""
        term = newest
        while True:
            log = meta_log(term)
            try:
                ended = await end_log(self._store, log, window, self._process, self._rng)
            except (HoleInLog, Corrupt):
                if log in (await list_bucket(self._store)).ends:
                    term += 1  # its `end` cannot be read: whoever made it, we end the next one
                    continue
                highest = await self._seal_behind(log, window)
                # Behind the hole: who reads it must stop there, until our snapshot is written.
                await self._make_end(log, highest, window)
                continue
            term += 1
            if ended.ours:
                return term

    async def _stop_writer(self, log: LogName, window: int) -> None:
        try:
            await end_log(self._store, log, window, self._process, self._rng)
        except (HoleInLog, Corrupt):
            await self._seal_behind(log, window)

    async def _window(self, image: MetadataImage, listed: Listed, incarnation: int) -> int:
        known = image.incarnations.get(incarnation)
        if known is not None:
            return known.window
        for seq in listed.logs[wal_log(incarnation)]:
            try:
                return (await read_header(self._store, wal_log(incarnation).key(seq))).window
            except (Corrupt, NotFound):
                continue
        return WINDOW

    async def _seal_behind(self, log: LogName, window: int) -> int:
        """A log with a hole cannot be ended by the rules; its writer is stopped all the same: it
        cannot be further than a window from the newest object. Returns the last place sealed.
        """
        sealed_to = -1
        while True:
            there = [
                seq
                async for info in self._store.list(log.prefix)
                if (seq := log.seq_of(info.key)) is not None
            ]
            newest = max(there, default=0)
            if newest == sealed_to:
                return newest
            low, sealed_to = max(0, newest - window), newest + window + 1
            body = msgspec.msgpack.encode(SealBody(self._process, low))
            for seq in range(low, sealed_to + 1):
                if seq not in there:
                    await self._create(log.key(seq), Kind.SEAL, log.log_id, seq, body, window)

    async def _end_logs(self, kept: Plan) -> None:
        """The `end` of those whose holes kept them from being ended by the rules."""
        for incarnation in kept.listed.incarnations:
            if wal_log(incarnation) not in kept.listed.ends:
                await self._make_end(wal_log(incarnation), _end_of(kept, incarnation), WINDOW)

    async def _make_end(self, log: LogName, end: int, window: int) -> None:
        body = msgspec.msgpack.encode(EndBody(end, self._process))
        await self._create(log.end_key, Kind.END, log.log_id, end, body, window)

    # What takes its place

    def _predecessor(self, image: MetadataImage) -> BrokerRegistration:
        """A node id must stand for us; the next start of that node replaces us."""
        if image.brokers:
            return image.brokers[min(image.brokers)]
        return BrokerRegistration(FIRST_NODE_ID, -1, b"", (), None, True, None)

    def _first_records(self, kept: Plan, incarnation: int) -> list[r.Record]:
        image = kept.image
        broker = self._predecessor(image)
        live = [one.incarnation for one in image.live_brokers() if one.node_id != broker.node_id]
        ended = [
            r.IncarnationEnded(
                one,
                kept.states[one].end,
                self._process,
                None,
                incarnation,
                [],
            )
            for one in unended(image)
        ]
        return [
            r.TermBegun(self._process, broker.node_id, self._now_ms()),
            r.BrokerRegistered(
                node_id=broker.node_id,
                incarnation=incarnation,
                process=self._process,
                window=WINDOW,
                listeners=broker.listeners,
                rack=broker.rack,
                address_http=broker.address_http,
                level=broker.level,
            ),
            *(r.IncarnationFenced(one) for one in live),
            *ended,
            r.ProducerIdsAllocated(incarnation, image.next_producer_id, PRODUCER_IDS_LEFT_OUT),
        ]

    async def _write_log(self, incarnation: int, entries: list[StreamEntry]) -> bool:
        delta = encode_entries(entries)
        pages: list[PageRef] = []
        if len(delta) > INLINE_BYTES:
            delta = b""
            for number, part in enumerate(split(entries, PAGE_STREAMS, INLINE_BYTES)):
                key = data_key(incarnation, number)
                write_id, size = await self._create(
                    key, Kind.PAGE, incarnation, number, part.body, 0
                )
                pages.append(PageRef(key, write_id, size, part.low, part.high))
        record = encode_control(Checkpoint(-1, -1, pages, delta))
        if not await self._create_record(wal_log(incarnation), WINDOW, [record]):
            return False
        await self._make_end(wal_log(incarnation), 1, WINDOW)
        return True

    async def _write_term(self, image: MetadataImage, term: int, records: list[r.Record]) -> bool:
        log = meta_log(term)
        controls = [encode_record(one) for one in records]
        # Crash before this: nothing has been handed over; the next start reads the old logs, which
        # have ended, or the next cut begins again.
        if not await self._create_record(log, image.window, controls):
            return False
        after = fold(image, log, 0, controls)
        left_out = after.next_stream_id + STREAM_IDS_LEFT_OUT
        await write_snapshot(self._store, changed(after, next_stream_id=left_out), rng=self._rng)
        return True

    # Objects

    async def _create_record(self, log: LogName, window: int, controls: list[bytes]) -> bool:
        write_id = self._rng.randbytes(16)
        chunks, _, _ = compose(Kind.LOG, log.log_id, 0, 0, 0, None, window, write_id, (), controls)
        return await create_once(self._store, log.key(0), chunks, write_id, rng=self._rng)

    async def _create(
        self, key: str, kind: Kind, log_id: int, seq: int, body: bytes, window: int
    ) -> tuple[bytes, int]:
        """(write id, size). Whose object ends up there is the caller's question."""
        write_id = self._rng.randbytes(16)
        chunks, size = compose_blob(kind, log_id, seq, write_id, body, window=window)
        await create_once(self._store, key, chunks, write_id, rng=self._rng)
        return write_id, size


def _epoch_after(kept: Plan, place: PartitionImage) -> int:
    """Above every one that the metadata log, or the stream itself, knows of."""
    entry = kept.entries.get(place.stream_id)
    return max(place.leader_epoch, -1 if entry is None else entry.epoch) + 1


def _end_of(kept: Plan, incarnation: int) -> int:
    """What the metadata log recorded; else as far as the log could be read."""
    known = kept.image.incarnations.get(incarnation)
    if known is not None and known.ended is not None:
        return known.ended.end
    return kept.states[incarnation].end
