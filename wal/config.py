"""Settings of one log's writer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WalConfig:
    """object_max_bytes: records in one object; a full one goes at once. 8 MiB keeps its PUT short
    beside a store's bandwidth and its blocks few.
    object_max_batches: likewise; bounds the time that composing holds up the loop (about 2 us a
    batch).
    latency_target_s: from append to durable, as long as the PUT budget allows it; while a PUT is
    under way a batch waits for company no longer than this less the time a PUT takes.
    put_budget_per_s: PUTs a second that small objects may cost on average, with a burst of two
    seconds; None where requests cost nothing.
    outstanding_limit_bytes: appended and not yet durable, at most; callers stop well before, and
    one that does not is a bug.
    """

    object_max_bytes: int = 8 << 20
    object_max_batches: int = 4096
    latency_target_s: float = 0.1
    put_budget_per_s: float | None = None
    outstanding_limit_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.object_max_bytes < 1 or self.object_max_batches < 1:
            raise ValueError("an object of the log must hold at least one byte and one batch")
        if self.latency_target_s < 0:
            raise ValueError("latency_target_s must not be negative")
        if self.put_budget_per_s is not None and self.put_budget_per_s <= 0:
            raise ValueError("put_budget_per_s must be above 0, or None for no budget")
        if self.outstanding_limit_bytes < self.object_max_bytes:
            raise ValueError("outstanding_limit_bytes must hold at least one object")
