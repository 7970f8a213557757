"""Rounds of deletion while references move, are merged, and die (PROTOCOL 5.1, 9).

One stream, whose contents are one object at a time: at first a log object of B0 below its trim,
which B0's checkpoint refers to as data; later what leaders merge it into. A leader also writes
checkpoints, whose page is an object. The stream moves by handoff and failover; the last broker
registers late. Collectors list, begin a round, hear reports, decide, and delete at any later time.

Objects are bits: bit 0 that log object of B0, bit 1 a later one, then `slots` numbered ones of each
broker. The later one has landed before B0 knows; it is durable, holds contents, is adopted as data
by a checkpoint, and trimmed past.

    read     what the new leader has read of the source: (content, what else its opening names)
    fresh    B0's later log object: 0 not sent, 1 landed, 2 durable, 3 below a durable trim
    logs     per broker: (state, content, page, named, covered)
             state: "-", "o" open, "c" closed; named: objects that records since the last checkpoint
             added; covered: those of them that the checkpoint under way will cover
    makers   per broker: (next, unsettled, merging, paging): objects drawn, bits of those not
             settled, and the objects that a merge and a checkpoint are writing (0: none)
    since    per broker: what it held at some moment since it composed its last report
    round    (phase, candidates, waiting, named, settled, ended); ended: brokers whose logs had
             ended at its record
    reports  per broker: (keys, lowest unsettled) of the composed report that is not durable yet
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, NamedTuple

from .explore import Model

NOBODY = -1
LOG_OBJECT, FRESH = 1, 2


class Entry(NamedTuple):
    state: str
    content: int
    page: int
    named: int
    covered: int

    @property
    def needs(self) -> int:
        """What must be there to recover the stream from this log."""
        return self.content | self.page | self.named


class Maker(NamedTuple):
    next: int
    unsettled: int
    merging: int
    paging: int


class Round(NamedTuple):
    phase: str
    candidates: int
    waiting: int
    named: int
    settled: int
    ended: int


NOTHING = Entry("-", 0, 0, 0, 0)
NO_ROUND = Round("none", 0, 0, 0, 0, 0)
NO_REPORT = (0, -1)
UNREAD = (0, 0)


class State(NamedTuple):
    leader: int
    source: int
    registered: int
    fenced: int
    read: tuple[int, int]
    fresh: int
    logs: tuple[Entry, ...]
    makers: tuple[Maker, ...]
    since: tuple[int, ...]
    store: int
    doomed: int
    round: Round
    reports: tuple[tuple[int, int], ...]
    moves: int
    deaths: int
    rounds: int


class Rounds(Model[State]):
    """slots: objects that each broker makes at most. pages: a checkpoint writes an object.
    late: the last broker registers late. fresh: B0 writes a log object more.
    """

    RULES: ClassVar[Mapping[str, str]] = {
        "listed_before": "9.1: candidates are what was listed before the round's record",
        "replay_named": "5.1 (as mended): what records since the checkpoint added stays named",
        "closed_untouched": "5.6: a merge after a stream's closing does not touch that stream",
        "pages_named": "9.2: pages are named in reports",
        "own_log_objects": "9.2 (as mended): own log objects are named where referred to",
        "own_on_its_way": "9.2 (as mended): ... those too that are not known to be durable yet",
        "adopted_log_objects": "9.2: other logs' objects are named where referred to",
        "union": "9.2: what was held at any moment since the last report, not what is held now",
        "unsettled": "9.2: what its maker has not settled is no garbage",
        "one_look": "9.2: keys and the lowest unsettled number are taken in one step",
        "ended_named": "9.3: what an ended log holds of the streams that it leads or is source of",
        "ended_at_record": "9.4 (as mended): an ended maker: whose end the round's record found",
        "waits": "9.5: who has not reported delays the round",
        "abandon": "9.5: when one is fenced before its report the round is abandoned",
    }

    def __init__(
        self,
        brokers: int = 2,
        slots: int = 1,
        moves: int = 1,
        deaths: int = 0,
        rounds: int = 1,
        *,
        pages: bool = False,
        late: bool = False,
        fresh: bool = False,
        off: Collection[str] = (),
    ) -> None:
        super().__init__(off)
        self.n, self.slots, self.pages, self.late = brokers, slots, pages, late
        self.fresh = fresh
        self.moves, self.deaths, self.rounds = moves, deaths, rounds

    def object(self, maker: int, number: int) -> int:
        return 1 << (2 + maker * self.slots + number)

    def name(self, bits: int) -> str:
        told = ["B0's log object"] if bits & LOG_OBJECT else []
        told += ["B0's later log object"] if bits & FRESH else []
        for i in range(self.n):
            for number in range(self.slots):
                if bits & self.object(i, number):
                    told.append(f"B{i}'s object {number}")
        return ", ".join(told) or "nothing"

    def start(self) -> State:
        first = Entry("o", LOG_OBJECT, 0, 0, 0)
        logs = (first, *[NOTHING] * (self.n - 1))
        makers = (Maker(0, 0, 0, 0),) * self.n
        since = (LOG_OBJECT, *[0] * (self.n - 1))
        known = (1 << self.n) - 1 & ~(self.late << self.n - 1)
        none = (NO_REPORT,) * self.n
        store = LOG_OBJECT
        left = (self.moves, self.deaths, self.rounds)
        return State(
            0, NOBODY, known, 0, UNREAD, 0, logs, makers, since, store, 0, NO_ROUND, none, *left
        )

    def live(self, s: State) -> list[int]:
        return [i for i in range(self.n) if (s.registered & ~s.fenced) >> i & 1]

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        yield from self._move(s)
        if s.leader in self.live(s) and s.logs[s.leader].state == "o":
            yield from self._make(s, s.leader)
        yield from self._round(s)
        if self.fresh and 0 in self.live(s):
            yield from self._write(s)
        if s.doomed & s.store:
            told = f"a collector deletes {self.name(s.doomed & s.store)}"
            yield told, s._replace(store=s.store & ~s.doomed)

    def _write(self, s: State) -> Iterator[tuple[str, State]]:
        """One log object more of B0, while it leads; no merge is under way when it is counted."""
        entry = s.logs[0]
        if s.fresh == 0 and entry.state == "o" and s.leader == 0:
            after = s._replace(fresh=1, store=s.store | FRESH)
            yield "B0's later log object lands", after
        elif s.fresh == 1 and not s.makers[0].merging:
            added = entry._replace(content=entry.content | FRESH)
            yield "B0's later log object is durable", self._hold(s, 0, added)._replace(fresh=2)
        elif s.fresh == 2:
            yield "B0's checkpoint adopts its later log object, trim passes it", s._replace(fresh=3)

    # The stream moves

    def _move(self, s: State) -> Iterator[tuple[str, State]]:
        live = self.live(s)
        entry = s.logs[s.leader]
        for j in range(self.n):
            if not s.registered >> j & 1:
                yield f"record: B{j} registers", s._replace(registered=s.registered | 1 << j)
        flushed = s.leader != 0 or s.fresh != 1
        if s.leader in live and entry.state == "o" and s.source == NOBODY and s.moves and flushed:
            for j in live:
                if j != s.leader:
                    maker = s.makers[s.leader]
                    # A checkpoint under way comes to nothing; a merge's record may still come.
                    going = maker._replace(paging=0, unsettled=maker.merging)
                    after = _with_maker(s, s.leader, going)
                    after = self._hold(after, s.leader, entry._replace(state="c", covered=0))
                    told = f"B{s.leader} closes, record: B{j} leads"
                    after = after._replace(leader=j, source=s.leader, read=UNREAD)
                    yield told, after._replace(moves=s.moves - 1)
        if s.leader in live and s.source != NOBODY:
            if entry.state != "o" and s.read == UNREAD:
                old = s.logs[s.source]
                read = (old.content, old.page | old.named)
                yield f"B{s.leader} reads what B{s.source} left", s._replace(read=read)
            elif entry.state != "o":
                opened = Entry("o", s.read[0], 0, s.read[1], 0)
                told = f"B{s.leader}'s opening from B{s.source} is durable"
                yield told, self._hold(s._replace(read=UNREAD), s.leader, opened)
            else:
                yield f"record: B{s.leader} has opened", s._replace(source=NOBODY)
        for i in live:
            if s.logs[i].state == "c" and i not in (s.leader, s.source):
                given_up = _with_maker(s, i, Maker(s.makers[i].next, 0, 0, 0))
                yield f"B{i} lets go", self._hold(given_up, i, NOTHING)
            if s.logs[i].state == "c" and s.makers[i].merging:
                yield from self._late_merge(s, i)
            if s.deaths and len(live) > 1:
                fenced = s._replace(fenced=s.fenced | 1 << i, deaths=s.deaths - 1)
                if i == 0 and s.fresh == 1:  # it landed, so it is before the end, and counts
                    held = s.logs[0]._replace(content=s.logs[0].content | FRESH)
                    fenced = self._hold(fenced, 0, held)._replace(fresh=2)
                yield f"record: B{i} is fenced, and its log ended", fenced
        if s.fenced >> s.leader & 1:
            source = s.leader if entry.state == "o" else s.source
            for j in live:
                told = f"record: B{j} leads after B{s.leader}, source B{source}"
                yield told, s._replace(leader=j, source=source, read=UNREAD)

    def _hold(self, s: State, i: int, entry: Entry) -> State:
        logs = (*s.logs[:i], entry, *s.logs[i + 1 :])
        since = (*s.since[:i], s.since[i] | self._held(entry, i), *s.since[i + 1 :])
        return s._replace(logs=logs, since=since)

    def _held(self, entry: Entry, i: int) -> int:
        """What broker i takes for its references."""
        held = entry.content
        if self.on("pages_named"):
            held |= entry.page
        if self.on("replay_named"):
            held |= entry.named
        if i == 0 and not self.on("own_log_objects"):
            held &= ~(LOG_OBJECT | FRESH)
        if i > 0 and not self.on("adopted_log_objects"):
            held &= ~(LOG_OBJECT | FRESH)
        return held

    # A leader merges, and writes checkpoints

    def _make(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        maker, entry = s.makers[i], s.logs[i]
        if maker.next < self.slots:
            new = self.object(i, maker.next)
            drawn = maker._replace(next=maker.next + 1, unsettled=maker.unsettled | new)
            if not maker.merging:
                told = f"B{i} draws a number for a merge: {maker.next}"
                yield told, _with_maker(s, i, drawn._replace(merging=new))
            if self.pages and not maker.paging:
                after = _with_maker(s, i, drawn._replace(paging=new))
                covered = entry._replace(covered=entry.named)
                told = f"B{i} draws a number for a page: {maker.next}"
                yield told, self._hold(after, i, covered)
        for made in (maker.merging, maker.paging):
            if made and not made & (s.store | s.doomed):
                yield f"{self.name(made)} is uploaded", s._replace(store=s.store | made)
        if maker.merging & (s.store | s.doomed):
            made = maker.merging
            after = _with_maker(s, i, maker._replace(merging=0, unsettled=maker.unsettled & ~made))
            merged = entry._replace(content=made, named=entry.named | made)
            told = f"B{i}'s record is durable: the contents are {self.name(made)}"
            yield told, self._hold(after, i, merged)
        if maker.paging & (s.store | s.doomed):
            made = maker.paging
            after = _with_maker(s, i, maker._replace(paging=0, unsettled=maker.unsettled & ~made))
            entry = entry._replace(page=made, named=entry.named & ~entry.covered, covered=0)
            yield f"B{i}'s checkpoint is durable: {self.name(made)}", self._hold(after, i, entry)

    def _late_merge(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        """A merge that was under way when the stream was closed."""
        made, entry = s.makers[i].merging, s.logs[i]
        if not made & (s.store | s.doomed):
            yield f"{self.name(made)} is uploaded", s._replace(store=s.store | made)
            return
        content = entry.content if self.on("closed_untouched") else made
        after = _with_maker(s, i, s.makers[i]._replace(merging=0, unsettled=0))
        merged = entry._replace(content=content, named=entry.named | made)
        told = f"B{i}'s record of {self.name(made)} is durable, after the closing"
        yield told, self._hold(after, i, merged)

    # Rounds

    def _round(self, s: State) -> Iterator[tuple[str, State]]:
        r = s.round
        if r.phase == "none" and s.rounds:
            listed = Round("listed", s.store, 0, 0, 0, 0)
            yield "a collector lists", s._replace(round=listed, rounds=s.rounds - 1)
        elif r.phase == "listed":
            waiting = s.registered & ~s.fenced
            begun = r._replace(phase="begun", waiting=waiting, named=self._ended(s))
            yield "record: a round begins", s._replace(round=begun._replace(ended=s.fenced))
        elif r.phase == "begun":
            yield from self._gather(s)

    def _ended(self, s: State) -> int:
        named = 0
        for i in (s.leader, s.source):
            if i != NOBODY and s.fenced >> i & 1 and self.on("ended_named"):
                named |= s.logs[i].needs
        return named

    def _gather(self, s: State) -> Iterator[tuple[str, State]]:
        r = s.round
        for i in range(self.n):
            if not r.waiting >> i & 1:
                continue
            if s.fenced >> i & 1:
                if self.on("abandon"):
                    yield f"B{i} was fenced: the round is abandoned", _no_round(s)
                else:
                    gone = r._replace(waiting=r.waiting & ~(1 << i))
                    yield f"B{i} was fenced: not waited for", s._replace(round=gone)
            elif s.reports[i] == NO_REPORT:
                yield self._compose(s, i)
            else:
                yield self._report(s, i)
        if not self.on("listed_before"):
            r = r._replace(candidates=s.store)
        if not r.waiting or not self.on("waits"):
            settled = r.settled if self.on("unsettled") else ~0
            garbage = r.candidates & ~r.named & (settled | self._settled_of_ended(s))
            garbage &= ~s.doomed
            told = f"the round ends: garbage is {self.name(garbage)}"
            yield told, _no_round(s)._replace(doomed=s.doomed | garbage)

    def _lowest(self, s: State, i: int) -> int:
        for number in range(s.makers[i].next):
            if s.makers[i].unsettled & self.object(i, number):
                return number
        return s.makers[i].next

    def _compose(self, s: State, i: int) -> tuple[str, State]:
        held = self._held(s.logs[i], i)
        keys = held | s.since[i] if self.on("union") else held
        if i == 0 and s.fresh == 1 and self.on("own_on_its_way"):
            keys |= FRESH
        reports = (*s.reports[:i], (keys, self._lowest(s, i)), *s.reports[i + 1 :])
        since = (*s.since[:i], held, *s.since[i + 1 :])
        return f"B{i} composes its report: {self.name(keys)}", s._replace(
            reports=reports, since=since
        )

    def _report(self, s: State, i: int) -> tuple[str, State]:
        keys, lowest = s.reports[i]
        if not self.on("one_look"):
            lowest = self._lowest(s, i)
        settled = s.round.settled
        if i == 0:  # below the trim that is read together with the report, not below an older one
            settled |= LOG_OBJECT | (FRESH if s.fresh == 3 else 0)
        for number in range(lowest):
            settled |= self.object(i, number)
        after = s.round._replace(
            waiting=s.round.waiting & ~(1 << i), named=s.round.named | keys, settled=settled
        )
        reports = (*s.reports[:i], NO_REPORT, *s.reports[i + 1 :])
        told = f"B{i}'s report is durable, settled below {lowest}"
        return told, s._replace(round=after, reports=reports)

    def _settled_of_ended(self, s: State) -> int:
        settled = 0
        ended = s.round.ended if self.on("ended_at_record") else s.fenced
        for i in range(self.n):
            if ended >> i & 1:
                for number in range(self.slots):
                    settled |= self.object(i, number)
                if i == 0 and 0 not in (s.leader, s.source):
                    settled |= LOG_OBJECT | FRESH
        return settled

    # What must hold

    def fault(self, s: State) -> str | None:
        entry = s.logs[s.leader]
        where = s.leader
        if entry.state != "o" and s.source != NOBODY:
            where = s.source
            entry = s.logs[where]
        if entry.state == "-":
            return "the chain leads nowhere"
        missing = entry.needs & ~s.store
        if missing:
            return f"B{where}'s log needs {self.name(missing)}, which was deleted"
        return None


def _with_maker(s: State, i: int, maker: Maker) -> State:
    return s._replace(makers=(*s.makers[:i], maker, *s.makers[i + 1 :]))


def _no_round(s: State) -> State:
    return s._replace(round=NO_ROUND, reports=(NO_REPORT,) * len(s.reports))
