"""Which objects of a log stay the home of their batches, instead of being copied by an upload.

A log object has the format of a data object. Where its streams' shares are large already, a copy
would cost as much as the log itself and give readers hardly anything: the record of the upload
then names the object as it is, the log is trimmed past it, and from there on it is a data object
that happens to lie under `wal/`. Merging puts it into a larger one in time, as it does with any.
"""

from __future__ import annotations

from collections.abc import Sequence


def is_adopted(object_bytes: int, shares: Sequence[int], least_share_bytes: int) -> bool:
    """Whether an object of a log is to be adopted by the next upload, as a whole.

    object_bytes: all of it. shares: bytes of its batches, one number for each stream whose tail
    is in it. least_share_bytes: of a share on average, so that readers of one stream do not meet
    many small pieces. At least half of the object must be wanted: another is rewritten by merging
    as soon as it is there, and that would be the copy that adopting saves.
    """
    wanted = sum(shares)
    return wanted >= max(1, least_share_bytes * len(shares)) and 2 * wanted >= object_bytes
