"""Where retention moves the log starts: the look into the oldest range of each partition.

What was found is remembered until it can have changed, so a pass over partitions of which nothing
goes is a look at memory. What one pass may ask of the store is bounded; the next one goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from broker.config.topic import TopicConfig
from objectstore.errors import Corrupt, NotFound
from s3stream.refs import ObjectRange
from s3stream.stream import Stream

from .partition import Partition
from .retention import Reached, newest_of, reached, runs

log = logging.getLogger(__name__)

# In one pass: objects of which the index is asked for, and blocks that are read for their batches.
INDEXES_AT_MOST = 256
BLOCKS_AT_MOST = 32


@dataclass(slots=True)
class _Oldest:
    """What goes next of a stream whose log start is `start`.

    newest_ms: it goes by age when this is too old; None: never. above_bytes: it goes by size when
    there is so much too much, counted from the beginning of the range `within`.
    """

    start: int
    newest_ms: int | None
    above_bytes: int
    within: tuple[str, int, int]


class LogStarts:
    """Of the partitions that a broker leads."""

    def __init__(self) -> None:
        self._oldest: dict[int, _Oldest] = {}
        self._indexes_left = 0
        self._blocks_left = 0

    async def due(self, partitions: Iterable[Partition], now_ms: int) -> list[tuple[int, int]]:
        """(stream id, new start offset) where something goes; one pass.

        Raises what the store raises, but for what is wrong with one partition's objects.
        """
        self._indexes_left, self._blocks_left = INDEXES_AT_MOST, BLOCKS_AT_MOST
        before, self._oldest = self._oldest, {}
        starts = []
        for partition in partitions:
            stream, config = partition.stream, partition.config
            known = before.get(stream.stream_id)
            if not config.deletes:
                continue
            if known is not None:
                self._oldest[stream.stream_id] = known
            try:
                start = await self._start_of(stream, config, now_ms)
            except (NotFound, Corrupt) as error:
                if not isinstance(error, NotFound):
                    log.warning("retention passes stream %d by: %s", stream.stream_id, error)
                continue  # merged or trimmed meanwhile: the next pass sees what is there then
            if start > stream.start_offset:
                starts.append((stream.stream_id, start))
        return starts

    async def _start_of(self, stream: Stream, config: TopicConfig, now_ms: int) -> int:
        retention_ms, retention_bytes = config.retention_ms, config.retention_bytes
        entry = stream.entry
        log_start = entry.start_offset
        if retention_ms is None and retention_bytes is None:
            return log_start
        excess = -1
        if retention_bytes is not None:
            excess = sum(one.size_bytes for one in [*entry.history, *entry.ranges])
            excess -= retention_bytes
        ranges = [*entry.history, *entry.ranges]
        found = reached(ranges, log_start, excess, retention_ms, now_ms)
        if found.stays == len(ranges):
            return found.start
        one = ranges[found.stays]
        if one.batch_count == 1 or not self._may_go(stream.stream_id, one, found, config, now_ms):
            return found.start
        if self._indexes_left <= 0:
            return found.start
        self._indexes_left -= 1
        within = found
        if found.stays < len(entry.history):
            archived = await stream.history_of(one)
            within = reached(archived, found.start, found.excess, retention_ms, now_ms)
            if within.stays == len(archived):
                return within.start
            one = archived[within.stays]
        start, oldest = await self._within_range(stream, one, within, config, now_ms)
        if oldest is not None:
            oldest.within = _identity(ranges[found.stays])
            oldest.above_bytes += found.excess - within.excess
            self._oldest[stream.stream_id] = oldest
        return start

    def _may_go(
        self, stream_id: int, one: ObjectRange, found: Reached, config: TopicConfig, now_ms: int
    ) -> bool:
        """Whether a part of that range may be due: so, or not known."""
        known = self._oldest.get(stream_id)
        if known is None or known.start != max(found.start, one.base_offset):
            return True
        retention_ms = config.retention_ms
        if (
            retention_ms is not None
            and known.newest_ms is not None
            and now_ms - known.newest_ms > retention_ms
        ):
            return True
        # What a merge joined begins elsewhere.
        return found.excess >= 0 and (
            known.within != _identity(one) or found.excess >= known.above_bytes
        )

    async def _within_range(
        self, stream: Stream, one: ObjectRange, found: Reached, config: TopicConfig, now_ms: int
    ) -> tuple[int, _Oldest | None]:
        """(new start, what goes next, as far as it is known)."""
        parts = await stream.parts_of(one)
        inner = reached(parts, found.start, found.excess, config.retention_ms, now_ms)
        if inner.stays == len(parts):
            return inner.start, None  # they say less of the range than it says itself
        part = parts[inner.stays]
        start, excess, above = inner.start, inner.excess, part.size_bytes
        newest = newest_of(parts, inner.stays)
        if config.retention_ms is not None and part.batch_count > 1:
            # About when the part was begun: when the one before it ended.
            since = parts[inner.stays - 1].max_timestamp if inner.stays else -1
            if since >= 0 and now_ms - since <= config.retention_ms + config.segment_ms:
                newest = since + config.segment_ms
            elif self._blocks_left <= 0:
                return start, None
            else:
                self._blocks_left -= 1
                batches = await stream.batches_of(one, part.base_offset, part.end_offset)
                above_start = [batch for batch in batches if batch.end_offset > start]
                excess -= sum(batch.size_bytes for batch in batches) - sum(
                    batch.size_bytes for batch in above_start
                )
                rolled = runs(above_start, config.segment_ms, config.segment_bytes)
                inner = reached(rolled, start, excess, config.retention_ms, now_ms)
                start, excess = inner.start, inner.excess
                if inner.stays < len(rolled):
                    newest = newest_of(rolled, inner.stays)
                    above = rolled[inner.stays].size_bytes
        return start, _Oldest(
            max(start, one.base_offset), newest, found.excess - excess + above, _identity(one)
        )


def _identity(one: ObjectRange) -> tuple[str, int, int]:
    return one.object.key, one.base_offset, one.end_offset
