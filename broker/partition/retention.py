"""What a partition no longer keeps: by age and by size.

Kafka drops whole segments, the oldest first, each when its newest record is older than
`retention.ms`, or when what is left is still `retention.bytes`; the active one too, once all of it
is too old. Here nothing is cut into segments. What goes is looked at from coarse to fine:

    ranges    what the stream has in one object        known without asking
    blocks    of about 1 MiB in the oldest range       in the object's index
    batches   of the oldest block, in runs             where the block may span more than segment.ms

so nothing stays longer than in Kafka, and mostly less: `segment.ms` and `segment.bytes` bound what
one young batch holds back. What is not durable, and so the high watermark, is never passed.
Source: KIP-32, KIP-405; Kafka, UnifiedLog.deleteOldSegments and LogSegment.shouldRoll.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from s3stream.spans import Aged, Span


class Reached(NamedTuple):
    """How far retention comes in some parts of a log.

    start: the log start that it asks for. excess: bytes that are then still too many, negative
    where a bound leaves room. stays: position of the first part that stays.
    """

    start: int
    excess: int
    stays: int


def reached(
    parts: Sequence[Aged], log_start: int, excess: int, retention_ms: int | None, now_ms: int
) -> Reached:
    """parts: neighbours, by offset. excess: of what begins with the first of them; negative: no
    part goes by size. retention_ms: None: none goes by age.
    """
    start = log_start
    for position, part in enumerate(parts):
        if part.end_offset > log_start:
            newest = newest_of(parts, position)
            too_old = (
                retention_ms is not None and newest is not None and now_ms - newest > retention_ms
            )
            if not too_old and excess < part.size_bytes:
                return Reached(start, excess, position)
            start = part.end_offset
        excess -= part.size_bytes
    return Reached(start, excess, len(parts))


def newest_of(parts: Sequence[Aged], position: int) -> int | None:
    """The time by which a part goes: its own, or where its batches have none that of the next
    part that has one, which was written later; None: it never goes by age.
    """
    for part in parts[position:]:
        if part.max_timestamp >= 0:
            return part.max_timestamp
    return None


def runs(batches: Iterable[Span], segment_ms: int, segment_bytes: int) -> list[Span]:
    """Batches in runs as Kafka would roll segments: a run spans at most `segment_ms`, counted from
    its first batch, and has at most `segment_bytes`, or one batch.
    """
    found: list[Span] = []
    begun_ms = -1
    for one in batches:
        last = found[-1] if found else None
        if (
            last is None
            or last.size_bytes + one.size_bytes > segment_bytes
            or (begun_ms >= 0 and one.max_timestamp - begun_ms > segment_ms)
        ):
            found.append(one)
            begun_ms = one.max_timestamp
            continue
        begun_ms = one.max_timestamp if begun_ms < 0 else begun_ms
        found[-1] = Span(
            last.base_offset,
            one.end_offset,
            last.size_bytes + one.size_bytes,
            last.batch_count + one.batch_count,
            max(last.max_timestamp, one.max_timestamp),
        )
    return found
