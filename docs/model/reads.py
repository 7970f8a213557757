"""For how long an old leader may answer for the newest (PROTOCOL 8.2, 8.5, 10.1).

O leads and reaches only C, the old controller. C fences it, or C2 does, which has ended the term of
C and does not hear O; N takes over and acknowledges. From then on O must not be a confirmed leader:
what it would tell as the newest is not. Confirmations last for a session time-out; time goes in
ticks, the same for all.

    now        the tick
    beat       when O sent the heartbeat that is on its way, or -1
    answer     (on its way, what it confirms O as of), the latter -1 where there is none
    heard      when a heartbeat of O last reached C
    confirmed  when O was last confirmed; controller: when C was, by a record of its own or a GET
    grown      when C's log last grew
    sealed     when C2 ended C's term, or -1
    fencer     who fenced O: "", "C" or "C2"; from then on N acknowledges

States are alike when these are as long ago: longer than two time-outs makes no difference.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import ClassVar, NamedTuple

from .explore import Model

NEVER = -1


class State(NamedTuple):
    now: int
    beat: int
    answer: int
    heard: int
    confirmed: int
    controller: int
    grown: int
    sealed: int
    fencer: str


class Reads(Model[State]):
    """timeout: the session time-out in ticks. gets: C may confirm itself by a GET, which does not
    make its log grow. at_once: C2 has C's node id, and seals without waiting.
    """

    RULES: ClassVar[Mapping[str, str]] = {
        "age_carried": "10.1 (as mended): an answer is as old as the controller's own confirmation",
        "sent_counts": "10.1: a heartbeat confirms as of when it was sent",
        "controller_confirmed": "10.1: only a controller that was confirmed itself answers",
        "full_timeout": "7.1, 8.5: a new controller gives everybody a whole time-out",
    }

    def __init__(
        self,
        timeout: int = 3,
        *,
        gets: bool = False,
        at_once: bool = False,
        off: Collection[str] = (),
    ) -> None:
        super().__init__(off)
        self.timeout, self.gets, self.at_once = timeout, gets, at_once

    def start(self) -> State:
        return State(0, NEVER, NEVER, 0, 0, 0, 0, NEVER, "")

    def canonical(self, state: State) -> Hashable:
        ages = [min(state.now - one, 2 * self.timeout + 1) for one in state[1:-1]]
        there = (state.beat == NEVER, state.answer == NEVER, state.sealed == NEVER)
        return there, tuple(ages), state.fencer

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        yield f"tick {s.now + 1}", s._replace(now=s.now + 1)
        yield from self._confirm(s)
        if s.sealed == NEVER:
            yield "C's record is durable", s._replace(grown=s.now, controller=s.now)
            if self.gets:
                yield "C asks its log, nobody has ended it", s._replace(controller=s.now)
            if self.at_once or s.now - s.grown >= self.timeout:
                yield "C2 ends the term of C", s._replace(sealed=s.now)
            silent = s.now - s.heard >= self.timeout
        else:
            waits = self.timeout if self.on("full_timeout") else 0
            silent = s.now - s.sealed >= waits
        if silent and not s.fencer:
            who = "C" if s.sealed == NEVER else "C2"
            told = f"{who} fences O; N takes over and acknowledges"
            yield told, s._replace(fencer=who)

    def _confirm(self, s: State) -> Iterator[tuple[str, State]]:
        if s.beat == NEVER and s.answer == NEVER:
            yield "O sends a heartbeat to C", s._replace(beat=s.now)
        fresh = s.now - s.controller < self.timeout or not self.on("controller_confirmed")
        # Once C has fenced O itself it says so in its answer.
        if s.beat != NEVER and fresh and s.fencer != "C":
            as_of = s.beat if self.on("sent_counts") else s.now + 2 * self.timeout
            if self.on("age_carried"):
                as_of = min(as_of, s.controller)
            yield "C answers it", s._replace(beat=NEVER, answer=as_of, heard=s.now)
        if s.answer != NEVER:
            as_of = min(s.answer, s.now)
            yield "O hears the answer", s._replace(answer=NEVER, confirmed=max(s.confirmed, as_of))

    def fault(self, s: State) -> str | None:
        if s.fencer and s.now < s.confirmed + self.timeout:
            return "O is a confirmed leader, and tells an old end for the newest"
        return None
