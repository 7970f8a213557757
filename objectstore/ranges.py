"""Byte ranges that lie close together, read as one: a request costs more than the gap."""

from __future__ import annotations

from collections.abc import Sequence

GAP_BYTES = 64 << 10


def merge_ranges(
    ranges: Sequence[tuple[int, int]], gap_bytes: int = GAP_BYTES
) -> list[tuple[int, int]]:
    """Sorted, disjoint ranges that cover all of `ranges`, empty ones left out.

    >>> merge_ranges([(10, 20), (0, 5), (900, 910)], gap_bytes=5)
    [(0, 20), (900, 910)]
    """
    merged: list[tuple[int, int]] = []
    for start, end in sorted(bounds for bounds in ranges if bounds[0] < bounds[1]):
        if merged and start <= merged[-1][1] + gap_bytes:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def cut_ranges(
    ranges: Sequence[tuple[int, int]], merged: Sequence[tuple[int, int]], pieces: Sequence[bytes]
) -> list[bytes]:
    """Each of `ranges` out of the piece that covers it; short where its piece is short.

    pieces: what was read for each of `merged`, in the same order.
    """
    found = []
    for start, end in ranges:
        if start >= end:
            found.append(b"")
            continue
        for (first, last), piece in zip(merged, pieces, strict=True):
            if first <= start and end <= last:
                # The usual case, one range in one piece, copies nothing.
                found.append(
                    piece if (first, last) == (start, end) else piece[start - first : end - first]
                )
                break
    assert len(found) == len(ranges), (ranges, merged)
    return found
