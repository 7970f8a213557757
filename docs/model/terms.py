"""Controllers succeed one another, snapshots let old records go, readers lag (PROTOCOL 8, 10.1).

Each term has a log of its own, whose end is exact (the model of one log proves that). A record is a
decision that depends on all before it: it gives out the next number. So a controller that acts on
less than everything gives one out twice.

    terms      per term (values, end, maker, trim, gone): the numbers given out; where the log was
               ended (-1: not) and by whom; trim: as the newest durable header says; gone: how many
               records were deleted
    snapshots  (term, place, value, there): everything before that place; there: not deleted
    processes  (role, term, place, image, extra)
               "read" tailing, "list" from the newest snapshot, "get" picked snapshot `extra`,
               "lead" controller (extra: the value under way, 0: none), "dead"
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from itertools import pairwise
from typing import ClassVar, NamedTuple

from .explore import Model

NOBODY = -1


class Term(NamedTuple):
    values: tuple[int, ...]
    end: int
    maker: int
    trim: int
    gone: int


class Snapshot(NamedTuple):
    term: int
    place: int
    value: int
    there: bool


class Process(NamedTuple):
    role: str
    term: int
    place: int
    image: int
    extra: int


EMPTY = Term((), -1, NOBODY, 0, 0)


class State(NamedTuple):
    terms: tuple[Term, ...]
    snapshots: tuple[Snapshot, ...]
    processes: tuple[Process, ...]
    deaths: int


class Terms(Model[State]):
    """terms, values, snapshots, deaths: at most so many. kept: newer snapshots that an old one has
    to have before it goes (the protocol says two).
    """

    RULES: ClassVar[Mapping[str, str]] = {
        "read_to_end": "8.1: the new owner reads the last term to its end before it decides",
        "empty_sealed": "8.1: an empty term is sealed at 0",
        "gap_checked": "8.3: a missing next record is the tail only if nothing lies beyond it",
        "snapshot_first": "8.3: records go after a snapshot beyond them is durable",
        "snapshot_kept": "8.3: a snapshot goes after two newer ones",
        "snapshot_durable": "8.3: a snapshot is an image of durable records",
        "confirmed": "10.1: a controller answers as one that was confirmed by its term's log",
    }

    def __init__(
        self,
        processes: int = 2,
        terms: int = 2,
        values: int = 3,
        snapshots: int = 1,
        deaths: int = 0,
        *,
        kept: int = 1,
        off: Collection[str] = (),
    ) -> None:
        super().__init__(off)
        self.n, self.terms, self.values = processes, terms, values
        self.snapshots, self.deaths, self.kept = snapshots, deaths, kept

    def start(self) -> State:
        """P0 owns term 0, whose first record is there; nobody else has read it."""
        first = Process("lead", 0, 1, 1, 0)
        others = (Process("read", 0, 0, 0, 0),) * (self.n - 1)
        return State((Term((1,), -1, NOBODY, 0, 0),), (), (first, *others), self.deaths)

    def canonical(self, state: State) -> Hashable:
        """Processes are alike, but for who made an end that nobody has followed yet."""
        named = {term.maker for term in state.terms}
        rest = sorted(p for i, p in enumerate(state.processes) if i not in named)
        makers = tuple((i, state.processes[i]) for i in sorted(named - {NOBODY}))
        return state._replace(processes=()), makers, tuple(rest)

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        for i, process in enumerate(s.processes):
            if process.role == "lead":
                yield from self._lead(s, i, process)
            elif process.role == "read":
                yield from self._read(s, i, process)
                yield from self._seal(s, i, process)
            elif process.role != "dead":
                yield from self._load(s, i, process)
            if s.deaths and process.role != "dead":
                gone = _with(s, i, process._replace(role="dead", extra=0))
                yield f"P{i} dies", gone._replace(deaths=s.deaths - 1)

    # Deciding

    def _lead(self, s: State, i: int, p: Process) -> Iterator[tuple[str, State]]:
        term = s.terms[p.term]
        if term.end >= 0 and not p.extra:
            yield f"P{i} asks, and finds term {p.term} sealed", _with(s, i, _again(p))
        if not p.extra and p.image < self.values:
            yield f"P{i} decides: number {p.image + 1}", _with(s, i, p._replace(extra=p.image + 1))
        if p.extra:
            if term.end >= 0:
                yield f"P{i} meets the seal of term {p.term}", _with(s, i, _again(p))
            else:
                trim = self._trim(s, p)
                after = term._replace(values=(*term.values, p.extra), trim=max(term.trim, trim))
                later = p._replace(place=p.place + 1, image=p.extra, extra=0)
                told = f"P{i}'s record is durable: number {p.extra}"
                yield told, _with(_with_term(s, p.term, after), i, later)
        if len(s.snapshots) < self.snapshots and p.place:
            value = p.image if self.on("snapshot_durable") else max(p.image, p.extra)
            place = p.place + (value > p.image)
            made = Snapshot(p.term, place, value, True)
            if made not in s.snapshots:
                snapshots = tuple(sorted((*s.snapshots, made)))
                told = f"P{i} writes the snapshot {p.term}-{place - 1}"
                yield told, s._replace(snapshots=snapshots)
        yield from self._retire(s, i, p)

    def _trim(self, s: State, p: Process) -> int:
        """What the header says of a record that is sent now: the snapshot's own record stays."""
        if not self.on("snapshot_first"):
            return p.place
        own = [one.place - 1 for one in s.snapshots if one.term == p.term and one.place <= p.place]
        return max(own, default=0)

    def _retire(self, s: State, i: int, p: Process) -> Iterator[tuple[str, State]]:
        """Whoever leads, or still believes so, deletes what it knows to be needless."""
        newest = max((one for one in s.snapshots if one.term <= p.term), default=None)
        for number, term in enumerate(s.terms[: p.term + 1]):
            below = term.trim
            if number < p.term and term.end >= 0:
                beyond = newest is not None and newest.term > number
                below = term.end if beyond or not self.on("snapshot_first") else term.trim
            if below > term.gone:
                told = f"P{i} deletes the records of term {number} below {below}"
                yield told, _with_term(s, number, term._replace(gone=below))
        for k, one in enumerate(s.snapshots):
            newer = [x for x in s.snapshots[k + 1 :] if x.there]
            old = len(newer) >= self.kept
            if not self.on("snapshot_kept"):
                old = any(x != one and x.term == p.term and x.there for x in s.snapshots)
            if one.there and old:
                dropped = one._replace(there=False)
                snapshots = (*s.snapshots[:k], dropped, *s.snapshots[k + 1 :])
                told = f"P{i} deletes the snapshot {one.term}-{one.place - 1}"
                yield told, s._replace(snapshots=snapshots)

    # Reading

    def _read(self, s: State, i: int, p: Process) -> Iterator[tuple[str, State]]:
        if p.term == len(s.terms):
            mine = s.terms[p.term - 1].maker == i
            if mine:
                leads = Process("lead", p.term, 0, p.image, 0)
                after = s._replace(terms=(*s.terms, EMPTY))
                yield f"P{i} begins term {p.term}", _with(after, i, leads)
            return
        term = s.terms[p.term]
        if p.place < term.gone:
            if self.on("gap_checked"):
                yield f"P{i} finds records beyond a gap: starts again", _with(s, i, _again(p))
        elif p.place < len(term.values):
            value = term.values[p.place]
            after = _with(s, i, p._replace(place=p.place + 1, image=value))
            yield f"P{i} folds number {value}", after
        elif term.end >= 0:
            yield (
                f"P{i} goes on to term {p.term + 1}",
                _with(s, i, p._replace(term=p.term + 1, place=0)),
            )

    def _load(self, s: State, i: int, p: Process) -> Iterator[tuple[str, State]]:
        if p.role == "list":
            there = [k for k, one in enumerate(s.snapshots) if one.there]
            if not there:
                yield f"P{i} lists: no snapshot", _with(s, i, Process("read", 0, 0, 0, 0))
            else:
                one = s.snapshots[there[-1]]
                told = f"P{i} lists: the newest snapshot is {one.term}-{one.place - 1}"
                yield told, _with(s, i, p._replace(role="get", extra=there[-1]))
            return
        one = s.snapshots[p.extra]
        if one.there:
            loaded = Process("read", one.term, one.place, one.value, 0)
            yield f"P{i} reads the snapshot {one.term}-{one.place - 1}", _with(s, i, loaded)
        else:
            yield f"P{i}'s snapshot is gone", _with(s, i, _again(p))

    def _seal(self, s: State, i: int, p: Process) -> Iterator[tuple[str, State]]:
        """Suspicion may come at any time, to one who has not read everything either."""
        last = p.term == len(s.terms)
        if last:
            # The maker of the last term's end has not begun its own: that is sealed at 0.
            if s.terms[-1].maker == i or not self.on("empty_sealed") or p.term >= self.terms:
                return
            empty = EMPTY._replace(end=0, maker=i)
            yield f"P{i} seals the empty term {p.term}", s._replace(terms=(*s.terms, empty))
            return
        term = s.terms[p.term]
        if term.end >= 0 or p.term + 1 >= self.terms or p.term + 1 < len(s.terms):
            return
        if not term.values and not self.on("empty_sealed"):
            return
        sealed = _with_term(s, p.term, term._replace(end=len(term.values), maker=i))
        told = f"P{i} seals term {p.term} at {len(term.values)}"
        if self.on("read_to_end"):
            yield told, sealed
        else:
            leads = Process("lead", p.term + 1, 0, p.image, 0)
            yield told, _with(sealed._replace(terms=(*s.terms, EMPTY)), i, leads)

    # What must hold

    def fault(self, s: State) -> str | None:
        values = [value for term in s.terms for value in term.values]
        for before, value in pairwise(values):
            if value != before + 1:
                return f"the numbers given out are {values}"
        for one in s.snapshots:
            term = s.terms[one.term]
            if term.end >= 0 and one.value != _value_at(s, one.term, one.place):
                return f"the snapshot {one.term}-{one.place - 1} holds what never happened"
        for i, p in enumerate(s.processes):
            if p.role == "read" and p.image != _value_at(s, p.term, p.place):
                return f"P{i} has folded {p.image}, which is not what lies before its place"
            stale = p.role == "lead" and s.terms[p.term].end >= 0 and p.image < values[-1]
            if stale and not self.on("confirmed"):
                return f"P{i} answers as controller from an image that ends at {p.image}"
        return self._unreadable(s)

    def _unreadable(self, s: State) -> str | None:
        """Whether everything can be read from the newest snapshot on."""
        there = [one for one in s.snapshots if one.there]
        first, place = (there[-1].term, there[-1].place) if there else (0, 0)
        for number in range(first, len(s.terms)):
            term = s.terms[number]
            if term.gone > place:
                return f"records of term {number} below {term.gone} are gone, and in no snapshot"
            place = 0
        return None

    def goal(self, state: State) -> bool:
        """Somebody alive leads a term that goes on, and all others alive are at its tail."""
        alive = [p for p in state.processes if p.role != "dead"]
        leads = [p for p in alive if p.role == "lead" and state.terms[p.term].end < 0]
        ahead = (len(state.terms) - 1, len(state.terms[-1].values))
        at_tail = all((p.term, p.place) >= ahead for p in alive if p.role != "lead")
        return (bool(leads) or len(state.terms) >= self.terms) and at_tail


def _value_at(s: State, term: int, place: int) -> int:
    """The last number given out before that place of the log."""
    before = [value for one in s.terms[:term] for value in one.values]
    if term < len(s.terms):
        if place > len(s.terms[term].values):
            return NOBODY
        before += s.terms[term].values[:place]
    return before[-1] if before else 0


def _again(p: Process) -> Process:
    return Process("list", p.term, p.place, p.image, 0)


def _with(s: State, i: int, process: Process) -> State:
    return s._replace(processes=(*s.processes[:i], process, *s.processes[i + 1 :]))


def _with_term(s: State, number: int, term: Term) -> State:
    return s._replace(terms=(*s.terms[:number], term, *s.terms[number + 1 :]))
