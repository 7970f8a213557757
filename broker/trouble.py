"""What is wrong with the store at the moment: told once when it begins, once when it ends."""

from __future__ import annotations

import logging

from objectstore.errors import (
    AccessDenied,
    BucketMissing,
    Corrupt,
    StoreError,
    Throttled,
    UnsuitableStore,
)

log = logging.getLogger(__name__)


def advice(error: StoreError) -> str:
    """What an operator can do about it."""
    if isinstance(error, BucketMissing):
        return "create the bucket again, or point --store at the one that holds the cluster"
    if isinstance(error, AccessDenied):
        return "check the credentials and the bucket's policy; `headwater doctor` tells more"
    if isinstance(error, Throttled):
        return "the store asks for fewer requests; producers wait meanwhile"
    if isinstance(error, Corrupt):
        return "run `headwater verify` to see what is damaged"
    if isinstance(error, UnsuitableStore):
        return "use a store that honours conditional creates"
    return "check that the store is up and reachable, and has room; it is tried again"


class Trouble:
    """Reasons by the part that has them; a part is told of once until it is well again."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}

    def tell(self, part: str, error: StoreError | None) -> None:
        """error: what `part` met; None: it is well again."""
        if error is None:
            if self.reasons.pop(part, None) is not None:
                log.warning("%s can be written again", part)
            return
        text = f"{part} cannot be written: {error}; {advice(error)}"
        if part not in self.reasons:
            log.warning("%s", text)
        self.reasons[part] = text
