"""Where a partition's leader epochs ended. Source: KIP-101, KIP-279, KIP-320."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class EpochEnd(NamedTuple):
    """The end offset of a leader epoch; (-1, -1) where nothing is known."""

    epoch: int
    end_offset: int


def end_offset_for_epoch(
    epoch: int, epochs: Sequence[tuple[int, int]], log_start_offset: int, log_end_offset: int
) -> EpochEnd:
    """The end of the largest epoch that is not above `epoch`.

    epochs: (epoch, its first offset), ascending; the leader's last.
    """
    newest = epochs[-1][0]
    if epoch < 0 or epoch > newest:
        return EpochEnd(-1, -1)
    if epoch == newest:
        return EpochEnd(epoch, log_end_offset)
    found, end = -1, -1
    for (this, _), (_, next_start) in pairwise(epochs):
        if this <= epoch:
            found, end = this, next_start
    if found < 0:
        # Older than all that is known: Kafka answers with the epoch asked and where the
        # first known one starts.
        return EpochEnd(epoch, max(epochs[0][1], log_start_offset))
    return EpochEnd(found, max(end, log_start_offset))
