"""Deletes what nothing refers to, in rounds; runs on the controller.

    list        candidates: data objects, log objects, from where the last round stopped
    begin       a record in the metadata log; each live incarnation answers by a report in its log
    gather      the reports as they become durable; what ended logs still hold
    decide      see `garbage`
    end         a record; then the deletions, and unfinished uploads that their makers gave up

A collector that crashes or sleeps at any of these points does no harm: before the end nothing was
deleted, and after it only what is garbage for ever. A round that its collector left open is
ended, unused, by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from objectstore.create import Backoff
from objectstore.errors import NotFound, StoreError
from objectstore.store import ObjectStore, UploadInfo
from wal.format import Kind, ObjectHeader, ObjectIndex, read_header, read_index
from wal.keys import DATA_PREFIX, WAL_PREFIX, wal_log
from wal.parallel import each_of
from wal.survey import survey

from .control import Report, decode_control
from .garbage import Candidate, Round, streams_by_holder
from .history import read_history
from .metadata.image import MetadataImage
from .report import held_keys
from .takeover import SourceRef, read_source

log = logging.getLogger(__name__)

DELETE_AT_ONCE = 1000
HEADERS_AT_ONCE = 32
READS_AT_ONCE = 16
# About 20 MB of keys; what is left is listed by the next round.
CANDIDATES_AT_MOST = 100_000
# About 10 MB; a few for each start of a broker.
SEALS_REMEMBERED = 100_000
POLL_BASE_S = 0.05
POLL_CAP_S = 5.0


class RoundLog(Protocol):
    """The metadata log, as far as rounds need it."""

    @property
    def image(self) -> MetadataImage:
        """The newest durable one."""

    async def begin_round(self) -> int:
        """The round's number; its record is durable and in `image`. Raises Fenced."""

    async def end_round(self, number: int, *, abandoned: bool) -> None:
        """Durable when it returns."""


@dataclass(frozen=True, slots=True)
class RoundResult:
    """listed_all: the next round lists from the beginning again."""

    candidates: int
    deleted: int
    deleted_bytes: int
    aborted_uploads: int
    abandoned: bool
    listed_all: bool = True


@dataclass(slots=True)
class _Tail:
    """Where the reading of one live log stands. trim: of the last counted object."""

    next_seq: int
    trim: int
    report: Report | None = None


class Collector:
    """candidates_at_most: of each kind in one round; the next one lists on from there.

    patience_s: a round that lacks a report after as long is abandoned; the next one is as good.
    """

    def __init__(
        self,
        store: ObjectStore,
        rounds: RoundLog,
        *,
        rng: Random,
        candidates_at_most: int = CANDIDATES_AT_MOST,
        patience_s: float = 600.0,
    ) -> None:
        self._store = store
        self._rounds = rounds
        self._rng = rng
        self._at_most = candidates_at_most
        self._patience_s = patience_s
        # Where each live log stood at the last round: what was there then is not listed again.
        self._read_to: dict[int, int] = {}
        self._listed_to = {DATA_PREFIX: "", WAL_PREFIX: ""}
        # They stay for ever, so each is looked into once.
        self._seals: dict[str, None] = {}
        self.rounds_done = 0
        self.rounds_abandoned = 0
        self.deleted_objects = 0
        self.deleted_bytes = 0

    async def run_round(self) -> RoundResult:
        """One whole round. Raises Fenced, or the store's trouble: then call again later."""
        left_open = self._rounds.image.rounds.open
        if left_open is not None:
            await self._rounds.end_round(left_open, abandoned=True)
        before = self._rounds.image
        if before.unended():
            return RoundResult(0, 0, 0, 0, True)  # its end will be a reason to look again
        candidates = [*await self._list(DATA_PREFIX), *await self._list(WAL_PREFIX)]
        # Whatever is in a log by now was written before the round: reports come after it.
        tails = await self._tails_of(before)
        uploads = await self._store.list_uploads(DATA_PREFIX)
        number = await self._rounds.begin_round()
        current = Round(number, before, self._rounds.image)
        try:
            await self._gather(current, tails)
            doomed = current.garbage(candidates)
        except Exception:
            # Left open where even this fails, or where we are cancelled: the next round ends it.
            await self._rounds.end_round(number, abandoned=True)
            raise
        await self._rounds.end_round(number, abandoned=current.abandoned)
        return await self._finish(current, len(candidates), doomed, uploads)

    # Before the round's record

    async def _list(self, prefix: str) -> list[Candidate]:
        """The next so many objects, from where the last round stopped; around at the end."""
        found: list[Candidate] = []
        async for info in self._store.list(prefix, self._listed_to[prefix]):
            if info.key.endswith("/end"):
                continue
            found.append(Candidate(info.key, info.size_bytes))
            if len(found) >= self._at_most:
                self._listed_to[prefix] = info.key
                return found
        self._listed_to[prefix] = ""
        return found

    async def _tails_of(self, image: MetadataImage) -> dict[int, _Tail]:
        async def one(incarnation: int) -> _Tail:
            seen = await survey(
                self._store, wal_log(incarnation), self._read_to.get(incarnation, 0)
            )
            return _Tail(seen.first_missing, 0)

        live = [one for one in sorted(image.incarnations) if not image.incarnations[one].fenced]
        tails = dict(zip(live, await each_of(one, live, READS_AT_ONCE), strict=True))
        self._read_to = {incarnation: tail.next_seq for incarnation, tail in tails.items()}
        return tails

    # While it is open

    async def _gather(self, current: Round, tails: dict[int, _Tail]) -> None:
        await self._ask_images(current)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_s
        backoff = Backoff(self._rng, POLL_BASE_S)
        while current.waiting and not current.abandoned:
            for incarnation in list(current.waiting):
                tail = tails.setdefault(incarnation, _Tail(0, 0))
                await self._read_on(incarnation, tail, current.number)
                if tail.report is not None:
                    current.note_report(
                        incarnation,
                        await held_keys(self._store, tail.report),
                        tail.report.lowest_unsettled,
                        tail.trim,
                    )
            current.note_image(self._rounds.image)
            if current.waiting and not current.abandoned:
                if loop.time() >= give_up_at:
                    current.abandoned = True
                else:
                    await asyncio.sleep(backoff.next_s(POLL_CAP_S))

    async def _ask_images(self, current: Round) -> None:
        """What the images name, and what the ended logs that they point to hold."""
        for image in (current.before, current.after):
            current.note_named(one.contents.key for one in image.handoffs.values())
            for incarnation, wanted in sorted(streams_by_holder(image).items()):
                state = image.incarnations.get(incarnation)
                if state is None or state.recovery is None:
                    continue
                source = await read_source(
                    self._store, SourceRef(incarnation, state.recovery), wanted
                )
                current.note_named(source.held)
                for entry in source.entries.values():
                    current.note_named(one.object.key for one in [*entry.history, *entry.ranges])
                    for index in entry.history:
                        ranges = await read_history(self._store, index, entry.stream_id)
                        current.note_named(one.object.key for one in ranges)
                    current.note_named(one.reference.key for one in entry.large)

    async def _read_on(self, incarnation: int, tail: _Tail, round_number: int) -> None:
        """Count what has come to a live log since, up to its report.

        All below `next_seq` was there; so what follows it without a gap is in the durable prefix,
        whatever the log was trimmed to meanwhile.
        """
        name = wal_log(incarnation)
        start_after = name.key(tail.next_seq - 1) if tail.next_seq else name.prefix
        sizes: dict[int, int] = {}
        async for info in self._store.list(name.prefix, start_after):
            seq = name.seq_of(info.key)
            if seq is None or seq != tail.next_seq + len(sizes):
                break
            sizes[seq] = info.size_bytes

        async def read(seq: int) -> tuple[ObjectHeader, ObjectIndex | None]:
            key = name.key(seq)
            if Candidate(key, sizes[seq]).may_be_seal:
                header = await read_header(self._store, key)
                if header.kind is not Kind.LOG:
                    return header, None
            index = await read_index(self._store, key, sizes[seq])
            return index.decoded_header(key), index

        for seq, (header, index) in zip(
            sizes, await each_of(read, sizes, READS_AT_ONCE), strict=True
        ):
            if index is None:
                return  # a seal: the log is being ended, and the image will say so
            tail.next_seq = seq + 1
            tail.trim = max(tail.trim, header.trim)
            for record in index.controls:
                control = decode_control(record, name.key(seq))
                if isinstance(control, Report) and control.round == round_number:
                    tail.report = control

    # After its end

    async def _finish(
        self,
        current: Round,
        candidates: int,
        doomed: Sequence[Candidate],
        uploads: Sequence[UploadInfo],
    ) -> RoundResult:
        if current.abandoned:
            self.rounds_abandoned += 1
            return RoundResult(candidates, 0, 0, 0, True)
        doomed = await self._without_seals(doomed)
        for first in range(0, len(doomed), DELETE_AT_ONCE):
            await self._store.delete([one.key for one in doomed[first : first + DELETE_AT_ONCE]])
        aborted = 0
        for upload in uploads:
            # Listed before the round and settled by its report: nobody will complete it.
            if current.is_settled(upload.key):
                await self._store.abort_upload(upload)
                aborted += 1
        self.rounds_done += 1
        self.deleted_objects += len(doomed)
        deleted_bytes = sum(one.size_bytes for one in doomed)
        self.deleted_bytes += deleted_bytes
        if doomed:
            log.info("deleted %d objects, %d bytes", len(doomed), deleted_bytes)
        listed_all = not any(self._listed_to.values())
        return RoundResult(candidates, len(doomed), deleted_bytes, aborted, False, listed_all)

    async def _without_seals(self, doomed: Sequence[Candidate]) -> list[Candidate]:
        """A seal is found by its header alone: a void one may lie among the data it never ended."""

        async def is_data(one: Candidate) -> bool:
            try:
                if (await read_header(self._store, one.key)).kind is Kind.LOG:
                    return True
            except NotFound:
                return False
            if len(self._seals) < SEALS_REMEMBERED:
                self._seals[one.key] = None
            return False

        doomed = [one for one in doomed if one.key not in self._seals]
        small = [one for one in doomed if one.may_be_seal]
        data = dict(zip(small, await each_of(is_data, small, HEADERS_AT_ONCE), strict=True))
        return [one for one in doomed if data.get(one, True)]


class Rounds:
    """When to hold a round: when something may be garbage, and not sooner than the interval.

    What was let go of is named once more by the next report, so each occasion is worth two rounds.
    """

    def __init__(self, collector: Collector, *, interval_s: float, rng: Random) -> None:
        self._collector = collector
        self._interval_s = interval_s
        self._rng = rng
        self._wanted = asyncio.Event()
        self._owed = 0
        self.wanted()  # whoever was here before may have left something

    def wanted(self) -> None:
        """Something became garbage, or may have. Cheap."""
        self._owed = 2
        self._wanted.set()

    async def run(self, decides: Callable[[], bool]) -> None:
        """Ends with Fenced. decides: whether this process owns the controller's term."""
        backoff = Backoff(self._rng, 1.0)
        while True:
            await self._wanted.wait()
            await asyncio.sleep(self._interval_s)
            if not decides():
                self._settle(all_of_it=True)  # whoever decides has occasions of its own
                continue
            owed, self._owed = self._owed, 0
            try:
                result = await self._collector.run_round()
            except StoreError as error:
                log.info("the round of deletion is put off: %s", error)
                self._owed = max(self._owed, owed)
                await asyncio.sleep(backoff.next_s(self._interval_s))
                continue
            backoff = Backoff(self._rng, 1.0)
            done = result.listed_all and not result.abandoned
            self._owed = max(self._owed, owed - 1 if done else owed)
            self._settle()

    def _settle(self, *, all_of_it: bool = False) -> None:
        if all_of_it:
            self._owed = 0
        if self._owed == 0:
            self._wanted.clear()
