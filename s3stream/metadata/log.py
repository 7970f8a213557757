"""The writing side of the metadata log: the one process that owns a term adds records to it.

Two images are kept. `image` is what the durable prefix adds up to, and all that anybody acts on.
`planned` runs ahead by the records that were appended and are not durable yet: decisions are
checked against it, so that two at the same time do not both make one topic. An answer that tells of
a decision waits for the future that `append` gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from objectstore.store import ObjectStore
from wal.config import WalConfig
from wal.keys import meta_log
from wal.store_trouble import OnTrouble
from wal.writer import DurableObject, LogWriter

from .apply import apply
from .image import MetadataImage
from .records import Position, Record, encode_record
from .retire import Retirement
from .snapshot import write_snapshot
from .tail import fold

OnImage = Callable[[MetadataImage, MetadataImage], None]
# Sequence and records of a durable object, before the image that they lead to is told.
OnObject = Callable[[int, list[bytes]], None]

# Comes after every real sequence, so that a planned record always follows what is durable.
_PLANNED_SEQ = 2**63

SNAPSHOT_RECORDS = 1000
SNAPSHOT_BYTES = 4 << 20
# Each start leaves a term of a few records, and reading it costs the next start five requests, one
# after the other.
SNAPSHOT_TERMS = 16


class Unsnapshot(NamedTuple):
    """What had to be read after the newest snapshot."""

    records: int = 0
    size_bytes: int = 0
    terms: int = 0


class TermLog:
    """Records of one term, appended by its owner; snapshots in the background.

    image: everything before this term. on_image: called with the old and the new image, in order,
    for each durable object.
    """

    def __init__(
        self,
        store: ObjectStore,
        term: int,
        window: int,
        image: MetadataImage,
        *,
        rng: Random,
        on_image: OnImage,
        on_trouble: OnTrouble | None = None,
        on_object: OnObject | None = None,
        unsnapshot: Unsnapshot = Unsnapshot(),  # noqa: B008
        snapshot_records: int = SNAPSHOT_RECORDS,
        snapshot_bytes: int = SNAPSHOT_BYTES,
    ) -> None:
        self.term = term
        self.image = image
        self.planned = image
        self._store = store
        self._rng = rng
        self._on_image = on_image
        self._on_object = on_object
        self._on_trouble = on_trouble
        self._log = meta_log(term)
        self._writer = LogWriter(
            store,
            self._log,
            window,
            WalConfig(),
            rng=rng,
            on_durable=self._fold,
            on_trouble=on_trouble,
        )
        self._retirement = Retirement(store)
        self._ahead = 0  # records in `planned` that are not in `image`
        self._planned_n = 0
        self._last: asyncio.Future[int] | None = None
        self._records, self._bytes, self._terms = unsnapshot
        self._snapshot_records = snapshot_records
        self._snapshot_bytes = snapshot_bytes
        self._snapshot_due = asyncio.Event()
        self._check_due()

    @property
    def ahead(self) -> int:
        """Records appended and not durable yet."""
        return self._ahead

    @property
    def ahead_bytes(self) -> int:
        """Of those records, about."""
        return self._writer.pending_bytes + self._writer.in_flight_bytes

    @property
    def last_confirmed_at(self) -> float:
        """Loop time; so long ago nobody had ended this term."""
        return self._writer.last_confirmed_at

    @property
    def waiting_s(self) -> float:
        """How long ago the oldest object that is not durable yet was sent; 0: all are."""
        return self._writer.oldest_put_s

    @property
    def is_ours(self) -> bool:
        """Nobody was seen to have ended this term, and this writer takes records."""
        return self._writer.is_open

    def append(self, records: Sequence[Record]) -> asyncio.Future[int]:
        """Append records, all in one log object; nothing is awaited.

        The future is shared (shield it) and resolves when they are durable and in `image`;
        raises Fenced where the term was ended by another. Raises Corrupt, and appends nothing,
        where they cannot follow what was planned.
        """
        assert records
        planned, n = self.planned, self._planned_n
        for record in records:
            n += 1
            planned = apply(planned, record, Position(self.term, _PLANNED_SEQ, n))
        # Only now: a record that cannot follow would stop every reader of this log, for ever.
        self._last = self._writer.append_many((), [encode_record(record) for record in records])
        self.planned, self._planned_n = planned, n
        self._ahead += len(records)
        return self._last

    async def settled(self) -> None:
        """Wait until everything appended so far is durable: what an answer was based on.

        Raises Fenced.
        """
        if self._last is not None and not (self._last.done() and self._ahead == 0):
            await asyncio.shield(self._last)

    async def confirm(self) -> None:
        """Make sure that nobody had ended this term when this was called: one GET.

        Raises Fenced, LogClosed, or StoreError: not known.
        """
        await self._writer.confirm()

    def _fold(self, durable: DurableObject) -> None:
        before = self.image
        self.image = fold(before, self._log, durable.seq, durable.controls)
        self._ahead -= len(durable.controls)
        assert self._ahead >= 0, (durable.key, self._ahead)
        if self._ahead == 0:
            self.planned = self.image
        self._records += len(durable.controls)
        self._bytes += durable.size_bytes
        self._retirement.note_durable(self._log, durable.index.decoded_header(durable.key).trim)
        self._check_due()
        if self._on_object is not None:
            self._on_object(durable.seq, durable.controls)
        self._on_image(before, self.image)

    def _check_due(self) -> None:
        if (
            self._records >= self._snapshot_records
            or self._bytes >= self._snapshot_bytes
            or self._terms >= SNAPSHOT_TERMS
        ):
            self._snapshot_due.set()

    async def run(self) -> None:
        """Owner's task: until closed or aborted. Raises Fenced; anything else is a bug."""
        writer = asyncio.create_task(self._writer.run(), name=f"metadata-log-{self.term}")
        snapshots = asyncio.create_task(self._snapshots(), name=f"snapshots-{self.term}")
        try:
            await asyncio.wait((writer, snapshots), return_when=asyncio.FIRST_COMPLETED)
            for task in (writer, snapshots):
                if task.done():
                    task.result()
        finally:
            for task in (writer, snapshots):
                task.cancel()
            # A snapshot cut short may still appear, whole or not at all: both do no harm.
            await asyncio.gather(writer, snapshots, return_exceptions=True)

    async def _snapshots(self) -> None:
        while True:
            await self._snapshot_due.wait()
            self._snapshot_due.clear()
            if self.image.position.term != self.term:
                continue  # nothing of ours is durable yet; the next record asks again
            self._records = self._bytes = self._terms = 0
            image = self.image
            name = await write_snapshot(self._store, image, rng=self._rng)
            # The record at the snapshot's place stays: a trim never passes its own checkpoint.
            self._writer.set_trim(name.seq, name.seq)
            await self._retirement.run(name)

    async def close(self, deadline_s: float | None = None) -> None:
        """Write what is pending, then stop; after `deadline_s` the rest is dropped."""
        await self._writer.close(deadline_s)

    def abort(self) -> None:
        self._writer.abort()
