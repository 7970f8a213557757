"""Stories with a name: a script of steps, after which everything that can still happen is explored.

With the rules as they are every continuation holds; without the rule named, one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .catalog import AnyModel, Size
from .explore import Found, explore, follow


@dataclass(frozen=True)
class Scenario:
    """script: how each step begins. off: the rules whose absence loses something from there on.

    then: one way to lose it, to be told in the words of `says`.
    """

    name: str
    story: str
    size: Size
    script: Sequence[str]
    off: Sequence[str]
    then: Sequence[str] = ()
    says: str = ""

    def run(self, *, broken: bool) -> Found:
        size = replace(self.size, off=self.off) if broken else self.size
        model = size.model()
        start = follow(model, self.script)
        if broken and self.then:
            return self._told(model, start)
        return explore(model, start=start)

    def _told(self, model: AnyModel, start: Any) -> Found:
        state = follow(model, self.then, start)
        fault = model.fault(state)
        assert fault is not None and self.says in fault, fault
        return Found(0, 0, len(self.then), 0.0, False, fault, tuple(self.then))


SCENARIOS = (
    Scenario(
        "the paused writer (what broke SlateDB)",
        "A writer is paused with a PUT on its way. A new writer ends its log and takes over; a "
        "collector deletes what is left of it; then the old writer's PUT arrives.",
        Size("log", (2, 1, 1, 1)),
        (
            "writer sends 0",
            "PUT 0 arrives; acknowledged: 1",
            "writer sends 1",
            "S0 lists: the first missing is 1",
            "S0 creates a seal at 1: accepted",
            "S0 creates a seal at 2: accepted",
            "S0 lists: a valid seal at 1",
            "S0 creates `end`: 1",
            "a new leader reads the log to its end 1",
            "collector decides to delete what is of the ended log",
        ),
        ("seals_kept",),
        ("collector deletes 1", "PUT 1 arrives; acknowledged: 2"),
        "the log ended at 1, but 2 objects are acknowledged",
    ),
    Scenario(
        "the sealer that slept",
        "Two want to end a log. One lists it and falls asleep; the other ends it, it is read and "
        "collected; then the first one wakes and puts its seals where data was.",
        Size("log", (2, 2, 2, 1)),
        (
            "S0 lists: the first missing is 0",
            "writer sends 0",
            "PUT 0 arrives; acknowledged: 1",
            "S1 lists: the first missing is 1",
            "S1 creates a seal at 1: accepted",
            "S1 creates a seal at 2: accepted",
            "S1 creates a seal at 3: accepted",
        ),
        ("end_object",),
    ),
    Scenario(
        "the sealer that slept through a trim",
        "Trimmed keys are free again: a sealer that listed before the trim can put a seal there.",
        Size("log", (3, 2, 1, 1)),
        (
            "writer sends 0",
            "S0 lists: the first missing is 0",
            "PUT 0 arrives; acknowledged: 1",
            "writer sends 1",
            "PUT 1 arrives; acknowledged: 2",
            "collector decides to delete what is below trim 1",
            "collector deletes 0",
            "S0 creates a seal at 0: accepted",
        ),
        ("validate", "list_again"),
    ),
    Scenario(
        "the successor that never opened",
        "A stream is handed on; the new leader dies before its opening, then its successor too.",
        Size("handoff", (3, 1, 2, 0)),
        (
            "record: move 1, from I0 to I1",
            "I0 folds the next record",
            "I0's closing record for move 1",
            "record: I1 leads, source I0",
            "record: I1 is fenced",
            "the log of I1 is ended",
        ),
        ("source_kept",),
    ),
    Scenario(
        "the maker that was fenced",
        "A recovery index is written by a process that is already fenced; a collector finds it "
        "unnamed and falls asleep before it deletes.",
        Size("failover", (3, 2, 0)),
        (
            "record: I0 is fenced",
            "record: I1 is fenced",
            "the log of I0 is ended",
            "I1 writes the recovery index of I0",
            "collector finds nothing that names the recovery index of I0 by I1",
        ),
        ("void_if_fenced",),
    ),
    Scenario(
        "the collector that slept",
        "A round is decided and its collector falls asleep; the stream moves on and a second round "
        "runs before the first one's deletions happen.",
        Size("rounds", (2, 1, 1, 0, 2)),
        (
            "B0 draws a number for a merge: 0",
            "B0's object 0 is uploaded",
            "a collector lists",
            "record: a round begins",
            "B0 composes its report: B0's log object",
            "B0's record is durable: the contents are B0's object 0",
            "B0's report is durable, settled below",
            "B1 composes its report: nothing",
            "B1's report is durable, settled below 0",
            "the round ends",
        ),
        ("unsettled",),
    ),
    Scenario(
        "the controller that slept",
        "A controller decides and is paused before its record is sent. Another one seals the term "
        "and reads it to its end; then the first one wakes.",
        Size("terms", (2, 2, 3, 1, 0)),
        ("P0 decides: number 2", "P1 seals term 0 at 1"),
        ("confirmed",),
    ),
)
