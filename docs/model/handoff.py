"""One stream moves: handoffs, cancelled ones, failovers (PROTOCOL 5.4-5.6, 6, 7).

Each incarnation's log is exact and can be ended (the model of one log proves that); what is at
stake here is the chain: metadata image -> leader's log, or the source's. Brokers follow the image
as late as they like, and an answer to the controller may arrive at any later time.

    logs     per incarnation (state, appointment, contents, pending)
             state: "-" nothing of the stream, "o" open, "c" closed, "d" dropped
             appointment: that its last opening answers; contents: bits of batches in it;
             pending: bits of batches that were accepted, and are not durable yet
    images   those that some live broker has not folded yet, and the newest
    views    per incarnation: how many of them it has not seen
    answers  bits: the moves whose closing was reported
    acked    bits of batches; batches: how many there are
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, NamedTuple

from .explore import Model

NOBODY = -1


class Image(NamedTuple):
    """source: whose log holds the contents until `leader` has opened. target, move: of the move
    that is under way. fenced, ended: bits of incarnations.
    """

    leader: int
    appointment: int
    source: int
    target: int
    move: int
    fenced: int
    ended: int


class Entry(NamedTuple):
    state: str
    appointment: int
    contents: int
    pending: int


NOTHING = Entry("-", 0, 0, 0)
DROPPED = Entry("d", 0, 0, 0)


class State(NamedTuple):
    logs: tuple[Entry, ...]
    images: tuple[Image, ...]
    views: tuple[int, ...]
    answers: int
    acked: int
    batches: int
    moves: int
    deaths: int

    @property
    def image(self) -> Image:
        return self.images[-1]


class Handoff(Model[State]):
    """moves, deaths, batches: at most so many happen."""

    RULES: ClassVar[Mapping[str, str]] = {
        "source_kept": "5.4: no opening in the dead log: the source stays what it was",
        "opening_names_record": "5.4: the opening that answers the dead leader's own appointment",
        "source_before_own": "5.4: contents come from the source, not from an older closing",
        "opened_recorded": "5.5: the source lets go only when `opened` is recorded",
        "flush_first": "6.1: the old leader flushes before its closing record",
        "stops_accepting": "6.1: after its closing record the old leader accepts nothing",
        "answer_names_move": "6.3: an answer that names another move is ignored",
        "reopen_by_record": "6.3: who had closed and leads again writes a new opening first",
        "cancel_keeps_source": "6.3 (as mended): a cancelled move leaves the old log the source",
        "end_before_takeover": "7.1: the log is ended before others are appointed",
        "records_only": "8.4: brokers act on records, not on a message's word",
    }

    def __init__(
        self,
        incarnations: int = 3,
        moves: int = 1,
        deaths: int = 1,
        batches: int = 1,
        *,
        off: Collection[str] = (),
    ) -> None:
        super().__init__(off)
        self.n, self.moves, self.deaths, self.batches = incarnations, moves, deaths, batches

    def start(self) -> State:
        logs = (Entry("o", 0, 1, 0), *[NOTHING] * (self.n - 1))
        image = Image(0, 0, NOBODY, NOBODY, 0, 0, 0)
        return State(logs, (image,), (0,) * self.n, 0, 1, 1, self.moves, self.deaths)

    # The metadata log

    def record(self, s: State, **changes: int) -> State:
        """One more image; who lives has one more to fold."""
        image = s.image._replace(**changes)
        views = tuple(0 if image.ended >> i & 1 else v + 1 for i, v in enumerate(s.views))
        keep = max(views) + 1
        return s._replace(images=(*s.images, image)[-keep:], views=views)

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        yield from self._controller(s)
        for i in range(self.n):
            if not s.image.ended >> i & 1:
                yield from self._broker(s, i)

    def _controller(self, s: State) -> Iterator[tuple[str, State]]:
        im = s.image
        live = [i for i in range(self.n) if not im.fenced >> i & 1]
        if im.leader in live:
            yield from self._moves(s, live)
        entry = s.logs[im.leader]
        if im.source != NOBODY and entry.state in "oc" and entry.appointment == im.appointment:
            yield f"record: I{im.leader} has opened", self.record(s, source=NOBODY)
        for i in live:
            if s.deaths and len(live) > 1:
                fenced = self.record(s, fenced=im.fenced | 1 << i)
                yield f"record: I{i} is fenced", fenced._replace(deaths=s.deaths - 1)
        for i in range(self.n):
            if im.fenced >> i & 1 and not im.ended >> i & 1:
                after = self.record(s, ended=im.ended | 1 << i)
                yield (
                    f"the log of I{i} is ended",
                    _with_log(after, i, s.logs[i]._replace(pending=0)),
                )
        gone = im.ended if self.on("end_before_takeover") else im.fenced
        if gone >> im.leader & 1:
            source = self._source(s)
            for j in live:
                after = self.record(
                    s, leader=j, appointment=im.appointment + 1, source=source, target=NOBODY
                )
                yield f"record: I{j} leads after I{im.leader}, source I{source}", after

    def _moves(self, s: State, live: list[int]) -> Iterator[tuple[str, State]]:
        im = s.image
        if im.target == NOBODY:
            if s.moves and im.source == NOBODY:
                for j in live:
                    if j != im.leader:
                        after = self.record(s, target=j, move=im.move + 1)
                        told = f"record: move {im.move + 1}, from I{im.leader} to I{j}"
                        yield told, after._replace(moves=s.moves - 1)
            return
        answered = s.answers >> im.move & 1 if self.on("answer_names_move") else s.answers
        if answered and im.target in live:
            after = self.record(
                s,
                leader=im.target,
                appointment=im.appointment + 1,
                source=im.leader,
                target=NOBODY,
            )
            yield f"record: I{im.target} leads, source I{im.leader}", after
        source = im.leader if self.on("cancel_keeps_source") else NOBODY
        after = self.record(s, appointment=im.appointment + 1, source=source, target=NOBODY)
        yield f"record: move {im.move} is cancelled", after

    def _source(self, s: State) -> int:
        """Whose log holds the contents, now that the leader's has ended."""
        im = s.image
        entry = s.logs[im.leader]
        if not self.on("source_kept"):
            return im.leader
        if not self.on("opening_names_record"):
            return im.leader if entry.state in "ocd" else im.source
        opened = entry.state in "oc" and entry.appointment == im.appointment
        return im.leader if opened else im.source

    # A broker

    def _broker(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        if s.views[i]:
            views = (*s.views[:i], s.views[i] - 1, *s.views[i + 1 :])
            keep = max(views) + 1
            told = f"I{i} folds the next record"
            yield told, s._replace(views=views, images=s.images[-keep:])
        view, entry = s.images[-1 - s.views[i]], s.logs[i]
        answers_it = entry.appointment == view.appointment
        if entry.pending:
            yield from self._durable(s, i)
        if view.leader == i:
            moving = view.target != NOBODY
            if entry.state == "o" and answers_it and moving:
                yield from self._close(s, i, view)
            elif not (entry.state == "o" and answers_it) and not (entry.state == "c" and moving):
                yield from self._open(s, i, view)
            if self._accepts(entry, answers_it, moving):
                yield from self._accept(s, i)
        elif entry.state == "c" and (view.source != i or not self.on("opened_recorded")):
            yield f"I{i} lets go of the stream", _with_log(s, i, DROPPED)
        if not self.on("records_only"):
            if view.target == i and s.logs[view.leader].state == "c" and entry.state != "o":
                held = s.logs[view.leader].contents
                opened = Entry("o", view.appointment + 1, held, 0)
                yield f"I{i} opens, told by I{view.leader}", _with_log(s, i, opened)
            if entry.state == "o" and view.leader != i:
                yield from self._accept(s, i)

    def _accepts(self, entry: Entry, answers_it: bool, moving: bool) -> bool:
        if entry.state == "o" and answers_it:
            return not moving
        if entry.state != "c":
            return False
        if moving:
            return not self.on("stops_accepting")
        return not self.on("reopen_by_record")

    def _accept(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        if s.batches <= self.batches and not s.logs[i].pending:
            entry = s.logs[i]._replace(pending=1 << s.batches)
            told = f"I{i} accepts batch {s.batches}"
            yield told, _with_log(s, i, entry)._replace(batches=s.batches + 1)

    def _durable(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        entry = s.logs[i]
        # Behind a closing record nobody looks: the batch is in the log, and in no contents.
        held = entry.contents | entry.pending if entry.state == "o" else entry.contents
        after = _with_log(s, i, entry._replace(contents=held, pending=0))
        yield (
            f"I{i}'s batch is durable, acknowledged",
            after._replace(acked=s.acked | entry.pending),
        )

    def _close(self, s: State, i: int, view: Image) -> Iterator[tuple[str, State]]:
        entry = s.logs[i]
        if entry.pending and self.on("flush_first"):
            return
        after = _with_log(s, i, entry._replace(state="c"))
        told = f"I{i}'s closing record for move {view.move} is durable, and reported"
        yield told, after._replace(answers=s.answers | 1 << view.move)

    def _open(self, s: State, i: int, view: Image) -> Iterator[tuple[str, State]]:
        entry = s.logs[i]
        if entry.pending:
            return
        own = entry.state in "oc"
        if view.source not in (NOBODY, i) and not (own and not self.on("source_before_own")):
            # A live source is read from its closing record on, a dead one when its log has ended.
            readable = s.logs[view.source].state == "c" or view.ended >> view.source & 1
            if not readable and view.fenced >> view.source & 1 and self.on("end_before_takeover"):
                return
            held, where = s.logs[view.source].contents, f"from I{view.source}"
        elif own and (entry.state == "o" or self.on("reopen_by_record")):
            held, where = entry.contents, "from its own log"
        elif not own:
            held, where = 0, "from nowhere: empty"
        else:
            return
        opened = Entry("o", view.appointment, held, 0)
        yield f"I{i} opens {where}; its record is durable", _with_log(s, i, opened)

    # What must hold

    def chain(self, s: State) -> int:
        im = s.image
        entry = s.logs[im.leader]
        if entry.state in "oc" and entry.appointment == im.appointment:
            return entry.contents
        return s.logs[im.source].contents if im.source != NOBODY else 0

    def fault(self, s: State) -> str | None:
        lost = s.acked & ~self.chain(s)
        if not lost:
            return None
        batches = [i for i in range(s.batches) if lost >> i & 1]
        return f"acknowledged batches {batches} are not where the chain leads"

    def goal(self, state: State) -> bool:
        """A live leader that is open, and needs no source any more."""
        im = state.image
        entry = state.logs[im.leader]
        opened = entry.state == "o" and entry.appointment == im.appointment
        return opened and im.source == NOBODY and not im.fenced >> im.leader & 1


def _with_log(s: State, i: int, entry: Entry) -> State:
    return s._replace(logs=(*s.logs[:i], entry, *s.logs[i + 1 :]))
