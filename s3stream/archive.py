"""Moves the older ranges of long histories out of their entries, into index objects.

    archive   the oldest ranges of an entry that has many -> an index object -> record
    shorten   an index object of which much was trimmed -> a shorter one -> record

Before each checkpoint, which then writes only summaries of what was archived. Without it every
checkpoint would write a long history anew, and each of its ranges would stay in memory.

A crash before the record is durable leaves an index object that nothing names. The record tells
the digest of the ranges that it replaces: where they were merged or trimmed meanwhile it does
nothing, and is told again with what is there then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator

from objectstore.errors import StoreError
from wal.format import Kind
from wal.keys import WAL_PREFIX

from .config import S3StreamConfig
from .control import Archived, ArchivedRanges, ShortenedIndex, encode_control
from .entries import StreamEntry
from .history import digest, encode_history, summary
from .object_reader import ObjectReader
from .object_writer import ObjectWriter
from .refs import ObjectRange, ObjectRef
from .registry import StreamRegistry

log = logging.getLogger(__name__)

# Index objects written by one pass, so that the checkpoint is not kept waiting for long.
AT_ONCE = 64
# An index object is written anew when about this share of it was trimmed; until then its ranges
# keep their objects.
SHORTEN_SHARE = 1 / 8
# With so many times the usual number of ranges, those that merging may still join go too.
CROWDED = 4


class Archiver:
    """append: puts a control record into the log and returns, durable and folded, with its seq.

    archived, shortened: index objects written so far.
    """

    def __init__(
        self,
        registry: StreamRegistry,
        reader: ObjectReader,
        writer: ObjectWriter,
        config: S3StreamConfig,
        *,
        append: Callable[[bytes], Awaitable[int]],
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._writer = writer
        self._config = config
        self._append = append
        self.archived = 0
        self.shortened = 0

    async def run_once(self) -> None:
        """One pass over the streams that changed. One at a time, by one owner.

        Raises Fenced or LogClosed; trouble with writing is waited out.
        """
        numbers: list[int] = []
        archived: list[ArchivedRanges] = []
        shortened: list[ShortenedIndex] = []
        try:
            for entry in self._changed():
                for ranges in self._spare(entry):
                    if len(numbers) >= AT_ONCE:
                        break
                    index = await self._write(entry.stream_id, ranges, numbers)
                    archived.append(
                        ArchivedRanges(entry.stream_id, len(ranges), digest(ranges), index)
                    )
                old = self._trimmed_index(entry)
                if old is not None and len(numbers) < AT_ONCE:
                    left = await self._left_of(entry, old)
                    if left:
                        index = await self._write(entry.stream_id, left, numbers)
                        shortened.append(ShortenedIndex(entry.stream_id, old.object.key, index))
        except BaseException:
            self._writer.numbers.settle(numbers)  # none will ever be referred to
            raise
        if numbers:
            # Not settled when this fails: the record may be in the log, and become durable yet.
            await self._append(encode_control(Archived(archived, shortened)))
            self._writer.numbers.settle(numbers)
            self.archived += len(archived)
            self.shortened += len(shortened)

    def _changed(self) -> Iterator[StreamEntry]:
        registry = self._registry
        for stream_id in sorted(registry.changed):
            entry = registry.entries.get(stream_id)
            if entry is not None and not entry.closed:
                yield entry

    def _spare(self, entry: StreamEntry) -> list[list[ObjectRange]]:
        """What goes now, by offset, one list for each index object."""
        config = self._config
        uploaded = entry.first_range(entry.uploaded_to)
        found: list[list[ObjectRange]] = []
        if uploaded < config.history_ranges + config.history_keep:
            return found
        crowded = uploaded > CROWDED * (config.history_ranges + config.history_keep)
        for first in range(0, uploaded - config.history_keep, config.history_ranges):
            ranges = entry.ranges[first : first + config.history_ranges]
            if first + len(ranges) > uploaded - config.history_keep:
                break
            if not crowded and not all(self._is_own(one) for one in ranges):
                break
            found.append(ranges)
        return found

    def _is_own(self, one: ObjectRange) -> bool:
        """Whether merging has done what it can: the object holds this range alone, and it was made
        to; an adopted object of a log is small.
        """
        key = one.object.key
        return self._registry.references.count(key) == 1 and not key.startswith(WAL_PREFIX)

    def _trimmed_index(self, entry: StreamEntry) -> ObjectRange | None:
        """The oldest index object, where it is worth a shorter one (an estimate)."""
        if not entry.history:
            return None
        oldest = entry.history[0]
        gone = entry.start_offset - oldest.base_offset
        return oldest if gone >= SHORTEN_SHARE * (oldest.end_offset - oldest.base_offset) else None

    async def _left_of(self, entry: StreamEntry, index: ObjectRange) -> list[ObjectRange]:
        """What stays of an index object; [] where all does, or it cannot be read now."""
        try:
            ranges = await self._reader.history(index, entry.stream_id)
        except StoreError as error:
            log.warning("stream %d: its history stays as it is: %s", entry.stream_id, error)
            return []
        left = [one for one in ranges if one.end_offset > entry.start_offset]
        return left if len(left) <= (1 - SHORTEN_SHARE) * len(ranges) else []

    async def _write(
        self, stream_id: int, ranges: list[ObjectRange], numbers: list[int]
    ) -> ObjectRange:
        written = await self._writer.write_blob(Kind.HISTORY, encode_history(stream_id, ranges))
        numbers.append(written.number)
        key, write_id, size_bytes = written.ref
        return summary(ObjectRef(key, write_id, size_bytes, 0, 0), ranges)
