"""Who is cut off: the controller, or the one who does not hear it? (PROTOCOL 8.5)

Nothing here is about safety, which needs no clock: it is about a cluster that comes to rest, with
the right ones in it. Time goes in ticks; what is due happens before the next one, in any order.
At the start links are cut and processes die, in every combination, and then nothing changes.

    links      bits of pairs, two for each: from the lower to the higher, and back
    down       per process "up", "refuses" (its host answers for it) or "silent"
    apart      bits of those that do not reach the store
    controller, term, age: ticks since the log grew
    quiet      per process: ticks since it heard the controller, or a new term began
    waits      per process: for how long it has to be quiet before it seals
    unheard    per process: ticks since the controller heard it
    few        ticks for which the controller has heard fewer than half
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import combinations, product
from typing import ClassVar, NamedTuple

from .explore import Model


class State(NamedTuple):
    links: int
    down: tuple[str, ...]
    apart: int
    tick: int
    controller: int
    term: int
    age: int
    quiet: tuple[int, ...]
    waits: tuple[int, ...]
    unheard: tuple[int, ...]
    few: int
    fenced: int
    wrong: str


class Silence(Model[State]):
    """timeout: the session time-out in ticks; a heartbeat is due each tick. settled_after: ticks.
    ordinary: clients make the controller write records at any time. stores: processes may be cut
    off from the store. one_way: links may be cut in one direction only.
    """

    RULES: ClassVar[Mapping[str, str]] = {
        "growth_spares": "8.5: who sees the log grow does not seal it",
        "misses_early": "8.5: heartbeat records begin when some are missed, not at the time-out",
        "few_are_silent": "8.5: who hears fewer than half writes no heartbeat record",
        "few_fence_late": "8.5: ... and fences nobody until half as long again has passed",
        "few_add_nothing": "8.5 (as mended): ... and adds no other record before that either",
        "confirmed_only": "10.1 (as mended): only a controller that the store confirmed is heard",
        "heard_both_ways": "8.5 (as mended): who says that it gets no answer is missed too",
        "loser_waits": "8.5: who lost a term waits twice as long, each time",
    }

    def __init__(
        self,
        processes: int = 3,
        timeout: int = 4,
        *,
        ordinary: bool = False,
        stores: bool = False,
        one_way: bool = False,
        off: Collection[str] = (),
    ) -> None:
        super().__init__(off)
        self.n, self.timeout, self.ordinary, self.stores = processes, timeout, ordinary, stores
        self.pairs = list(combinations(range(processes), 2))
        self.one_way = one_way
        self.settled_after = 8 * timeout
        self.terms_at_most = processes + 1

    def start(self) -> State:
        zeros = (0,) * self.n
        waits = (self.timeout,) * self.n
        return State(0, (), 0, 0, 0, 0, 0, zeros, waits, zeros, 0, 0, "")

    def reaches(self, s: State, i: int, j: int) -> bool:
        """What i sends to j arrives."""
        if i == j:
            return True
        pair = 2 * self.pairs.index((min(i, j), max(i, j))) + (i > j)
        return s.down[i] == s.down[j] == "up" and bool(s.links >> pair & 1)

    def answered(self, s: State, j: int) -> bool:
        """The heartbeats of j arrive, and so do their answers."""
        return self.reaches(s, j, s.controller) and self.reaches(s, s.controller, j)

    def hears(self, s: State, j: int) -> bool:
        """What the controller takes for hearing j."""
        if self.on("heard_both_ways"):
            return self.answered(s, j)
        return self.reaches(s, j, s.controller)

    def others(self, s: State) -> list[int]:
        return [j for j in range(self.n) if j != s.controller and not s.fenced >> j & 1]

    def hears_half(self, s: State) -> bool:
        others = self.others(s)
        return 2 * sum(self.hears(s, j) for j in others) >= len(others)

    def works(self, s: State, i: int) -> bool:
        return s.down[i] == "up" and not s.apart >> i & 1

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        if not s.down:
            yield from self._configure(s)
            return
        if s.wrong or s.tick > self.settled_after:
            return
        due = [*self._controller(s), *self._suspects(s)]
        yield from due
        if self.ordinary and s.age and self.works(s, s.controller):
            unheard = not self.hears_half(s) and self.few(s)
            if not (unheard and self.on("few_add_nothing")):
                yield f"P{s.controller} adds a record", s._replace(age=0)
        if not due:
            yield f"tick {s.tick + 1}", self._tick(s)

    def few(self, s: State) -> bool:
        return s.few < self.timeout + self.timeout // 2

    def _configure(self, s: State) -> Iterator[tuple[str, State]]:
        for down in product(("up", "refuses", "silent"), repeat=self.n):
            for links in self._links():
                for apart in range(1 << self.n) if self.stores else (0,):
                    told = self._describe(links, down, apart)
                    yield told, s._replace(links=links, down=down, apart=apart)

    def _links(self) -> list[int]:
        values = range(4) if self.one_way else (0, 3)
        every = product(values, repeat=len(self.pairs))
        return [sum(one << 2 * k for k, one in enumerate(each)) for each in every]

    def _describe(self, links: int, down: tuple[str, ...], apart: int) -> str:
        signs = ("-", "<-", "->")
        cut = [
            f"P{i}{signs[links >> 2 * k & 3]}P{j}"
            for k, (i, j) in enumerate(self.pairs)
            if links >> 2 * k & 3 != 3
        ]
        dead = [f"P{i} {state}" for i, state in enumerate(down) if state != "up"]
        gone = [f"P{i} does not reach the store" for i in range(self.n) if apart >> i & 1]
        return "; ".join(["cut: " + (", ".join(cut) or "none"), *dead, *gone])

    def _tick(self, s: State) -> State:
        heard = tuple(self.hears(s, j) for j in range(self.n))
        answered = tuple(self.answered(s, j) for j in range(self.n))
        confirmed = self.works(s, s.controller) or not self.on("confirmed_only")
        up = s.down[s.controller] == "up"
        quiet = tuple(0 if answered[j] and confirmed else s.quiet[j] + 1 for j in range(self.n))
        unheard = tuple(0 if heard[j] or not up else s.unheard[j] + 1 for j in range(self.n))
        top = 16 * self.timeout
        return s._replace(
            tick=s.tick + 1,
            age=min(s.age + 1, self.timeout),
            quiet=tuple(min(one, top) for one in quiet),
            unheard=tuple(min(one, 2 * self.timeout) for one in unheard),
            few=0 if self.hears_half(s) else min(s.few + 1, 2 * self.timeout),
        )

    def _controller(self, s: State) -> Iterator[tuple[str, State]]:
        c = s.controller
        if not self.works(s, c) or s.fenced >> c & 1:
            return
        misses = 1 if self.on("misses_early") else self.timeout
        missing = [j for j in self.others(s) if s.unheard[j] >= misses]
        if not missing:
            return
        refused = all(s.down[j] == "refuses" for j in missing)
        half = self.hears_half(s) or refused
        if s.age and (half or not self.on("few_are_silent")):
            yield f"P{c} writes a heartbeat record", s._replace(age=0)
        if half or not (self.few(s) and self.on("few_fence_late")):
            for j in missing:
                if s.unheard[j] >= self.timeout:
                    yield f"P{c} fences P{j}", self._fence(s, j, half)

    def _fence(self, s: State, j: int, half: bool) -> State:
        wrong = ""
        # Who lost a term before is fenced by the winner, though it lives: that is how it ends.
        if self.works(s, j) and not half and s.waits[j] == self.timeout:
            wrong = f"P{s.controller}, which hears fewer than half, fenced P{j}, which is well"
        return s._replace(fenced=s.fenced | 1 << j, age=0, wrong=wrong)

    def _suspects(self, s: State) -> Iterator[tuple[str, State]]:
        due = [p for p in self.others(s) if self.works(s, p) and s.quiet[p] >= s.waits[p]]
        if self.on("growth_spares"):
            due = [] if s.age < self.timeout else due
        for p in due:
            losers = [s.controller, *(q for q in due if q != p)]
            waits = s.waits
            if self.on("loser_waits"):
                waits = tuple(
                    min(2 * wait, 8 * self.timeout) if i in losers else wait
                    for i, wait in enumerate(s.waits)
                )
            wrong = ""
            if self.works(s, s.controller) and self.hears_half(s):
                wrong = f"P{p} sealed the term of P{s.controller}, which hears at least half"
            zeros = (0,) * self.n
            yield (
                f"P{p} seals, and begins term {s.term + 1}",
                s._replace(
                    controller=p,
                    term=s.term + 1,
                    age=0,
                    quiet=zeros,
                    unheard=zeros,
                    few=0,
                    waits=waits,
                    wrong=wrong,
                ),
            )

    # What must hold

    def fault(self, s: State) -> str | None:
        if s.wrong:
            return s.wrong
        if s.term > self.terms_at_most:
            return f"{s.term} terms have begun, and it goes on"
        if not s.down or s.tick <= self.settled_after:
            return None
        if not any(self.works(s, i) for i in range(self.n)):
            return None
        if not self.works(s, s.controller):
            return f"after {s.tick} ticks there is no controller"
        unled = [j for j in self.others(s) if not self.answered(s, j)]
        if unled:
            return f"after {s.tick} ticks P{s.controller} leads without hearing {unled}"
        return None
