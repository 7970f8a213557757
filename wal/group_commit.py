"""When to cut the next object of a log: pure decisions, no I/O and no clock of its own.

An idle log writes at once. While PUTs are under way what comes gathers, until the object is
full, or holds something that cannot wait, or a PUT has returned, or its oldest batch has waited
for the latency target less what a PUT takes. The PUT budget delays small objects beyond that and
refuses nothing; full objects and urgent ones (control records, flushes) go without asking it.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from .config import WalConfig

BURST_S = 2.0
PUT_SAMPLES = 32


class Reason(Enum):
    """Why an object was cut; counted for the metrics."""

    IDLE = "idle"
    FULL = "full"
    URGENT = "urgent"
    RETURNED = "returned"
    TARGET = "target"


class Pending(NamedTuple):
    """The oldest object that is not cut yet, and the log around it. Times: loop seconds."""

    oldest_at: float
    full: bool
    urgent: bool
    in_flight: int
    window: int


class Decision(NamedTuple):
    """reason: cut now, for this; None: ask again at `again_at`, or (None) after a change."""

    reason: Reason | None
    again_at: float | None = None


@dataclass(slots=True)
class Counts:
    """cut: by reason. over_budget: went without a token. conflicts: small objects that the budget
    held back beyond the latency target."""

    cut: dict[Reason, int]
    over_budget: int = 0
    conflicts: int = 0


class GroupCommit:
    def __init__(self, config: WalConfig) -> None:
        self._target_s = config.latency_target_s
        self._bucket = TokenBucket(config.put_budget_per_s)
        self._puts = PutTimes()
        self._returned = False
        self._starved = False
        self.counts = Counts(dict.fromkeys(Reason, 0))

    @property
    def put_p50_s(self) -> float:
        return self._puts.p50_s

    def set_budget(self, per_s: float | None, now: float) -> None:
        """The broker's share of the cluster's budget; None: no budget."""
        self._bucket.set_rate(per_s, now)

    def decide(self, now: float, pending: Pending) -> Decision:
        if pending.in_flight >= pending.window:
            return Decision(None)
        if pending.full:
            return Decision(Reason.FULL)
        if pending.urgent:
            return Decision(Reason.URGENT)
        due_at = pending.oldest_at + max(0.0, self._target_s - self._puts.p50_s)
        if pending.in_flight == 0:
            reason = Reason.RETURNED if self._returned else Reason.IDLE
        elif self._returned:
            reason = Reason.RETURNED
        elif now >= due_at:
            reason = Reason.TARGET
        else:
            return Decision(None, due_at)
        token_at = self._bucket.next_at(now)
        if token_at <= now:
            return Decision(reason)
        self._starved = token_at > due_at
        return Decision(None, token_at)

    def cut(self, now: float, reason: Reason) -> None:
        """The object that `decide` spoke of was cut."""
        self._returned = False
        self.counts.cut[reason] += 1
        if not self._bucket.take(now):
            self.counts.over_budget += 1
        if self._starved and reason is not Reason.FULL and reason is not Reason.URGENT:
            self.counts.conflicts += 1
        self._starved = False

    def put_returned(self, duration_s: float) -> None:
        self._returned = True
        self._puts.add(duration_s)


class TokenBucket:
    """rate: tokens a second, held for two seconds at most (and one token at least)."""

    def __init__(self, per_s: float | None) -> None:
        self._per_s = per_s
        self._tokens = self._burst()
        self._at: float | None = None

    def set_rate(self, per_s: float | None, now: float) -> None:
        self._refill(now)
        self._per_s = per_s
        self._tokens = min(self._tokens, self._burst())

    def next_at(self, now: float) -> float:
        """When there is a token: `now` or later."""
        if self._per_s is None:
            return now
        self._refill(now)
        # The tolerance keeps a timer that fires exactly on time from finding 0.999... tokens.
        lacking = 1.0 - 1e-6 - self._tokens
        return now if lacking <= 0 else now + (lacking + 1e-6) / self._per_s

    def take(self, now: float) -> bool:
        """False where there was none: the caller went all the same. Debt is not carried on."""
        if self._per_s is None:
            return True
        self._refill(now)
        had = self._tokens >= 1.0 - 1e-6
        self._tokens = max(0.0, self._tokens - 1.0)
        return had

    def _refill(self, now: float) -> None:
        if self._per_s is not None and self._at is not None and now > self._at:
            self._tokens = min(self._burst(), self._tokens + (now - self._at) * self._per_s)
        self._at = now if self._at is None else max(now, self._at)

    def _burst(self) -> float:
        return 1.0 if self._per_s is None else max(1.0, BURST_S * self._per_s)


class PutTimes:
    """Median of the last few PUTs, 0 before the first."""

    def __init__(self, samples: int = PUT_SAMPLES) -> None:
        self._samples = samples
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []

    @property
    def p50_s(self) -> float:
        return self._ordered[len(self._ordered) // 2] if self._ordered else 0.0

    def add(self, duration_s: float) -> None:
        if len(self._recent) == self._samples:
            self._ordered.remove(self._recent.popleft())
        self._recent.append(duration_s)
        insort(self._ordered, duration_s)
