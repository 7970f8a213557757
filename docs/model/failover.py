"""Dead incarnations are taken over by many leaders, and more die meanwhile (PROTOCOL 5.4, 5.5, 7).

Two streams. I0 leads the first; the second it has closed, and I1 is appointed and has not opened
it yet. Recovery indexes are objects, made by some incarnation and named by a record; a collector
decides in one look (how a round gathers that look is another model), and deletes whenever it likes.

Objects are bits: the log objects of each incarnation that hold batches, one upload of each
incarnation for each stream, one recovery index for each (dead incarnation, maker).

    streams   what the image says: (leader, appointment, source)
    logs      per incarnation and stream (state, appointment, contents, needs)
              contents: bits of batches; needs: objects that must be there to read them
    fenced    bits; sealed: bits, the log has its `end`
    recovery  per incarnation the object that the record of its end names, or -1
    made      recovery objects written: (object, what it says of each stream)
    store     objects that are there; doomed: objects whose deletion was decided
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, NamedTuple

from .explore import Model

NOBODY = -1
STREAMS = (0, 1)
NAMES = "AB"


class Stream(NamedTuple):
    leader: int
    appointment: int
    source: int


class Entry(NamedTuple):
    state: str
    appointment: int
    contents: int
    needs: int


NOTHING = Entry("-", 0, 0, 0)
Entries = tuple[Entry, Entry]
Made = tuple[int, Entries]


class State(NamedTuple):
    streams: tuple[Stream, Stream]
    logs: tuple[Entries, ...]
    fenced: int
    sealed: int
    recovery: tuple[int, ...]
    made: tuple[Made, ...]
    store: int
    doomed: int
    acked: tuple[int, int]
    batches: int
    deaths: int


class Failover(Model[State]):
    """deaths, batches: at most so many happen; uploads: leaders upload what they lead."""

    RULES: ClassVar[Mapping[str, str]] = {
        "source_kept": "5.4: no opening in the dead log: the source stays what it was",
        "opened_by_stream": "5.5: `opened` lets the source go for the streams that it names",
        "needed_until_checkpoint": "6.2: the source's index is a reference until a checkpoint",
        "end_first": "7.1: the tail is read when the log's end is final, not before",
        "recover_all": "7.1: the recovery index holds closed and sourced streams too",
        "record_first": "7.2: leaders act on the durable record only",
        "void_if_fenced": "7.2: a record that names an object whose maker is fenced is void",
        "image_names": "9.3: what the image names, recovery indexes too, is named",
        "unended_named": "9.3: named too is what a fenced log holds before its index is recorded",
    }

    def __init__(
        self,
        incarnations: int = 3,
        deaths: int = 2,
        batches: int = 1,
        *,
        uploads: bool = True,
        off: Collection[str] = (),
    ) -> None:
        super().__init__(off)
        self.n, self.deaths, self.batches, self.uploads = incarnations, deaths, batches, uploads

    # Objects

    def wal(self, i: int) -> int:
        return 1 << i

    def upload(self, i: int, stream: int) -> int:
        return 1 << (self.n + 2 * i + stream)

    def index(self, dead: int, maker: int) -> int:
        """The number of the recovery object, whose bit is 1 << number."""
        return 3 * self.n + dead * self.n + maker

    def name(self, number: int) -> str:
        if number < self.n:
            return f"the log objects of I{number}"
        if number < 3 * self.n:
            i, stream = divmod(number - self.n, 2)
            return f"I{i}'s upload of {NAMES[stream]}"
        dead, maker = divmod(number - 3 * self.n, self.n)
        return f"the recovery index of I{dead} by I{maker}"

    def maker(self, number: int) -> int:
        if number < self.n:
            return number
        return (number - self.n) // 2 if number < 3 * self.n else (number - 3 * self.n) % self.n

    def start(self) -> State:
        tail = self.wal(0)
        first = (Entry("o", 0, 1, tail), Entry("c", 0, 1, tail))
        logs = (first, *[(NOTHING, NOTHING)] * (self.n - 1))
        streams = (Stream(0, 0, NOBODY), Stream(1, 1, 0))
        none = (NOBODY,) * self.n
        return State(streams, logs, 0, 0, none, (), tail, 0, (1, 1), 1, self.deaths)

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        yield from self._die(s)
        for i in range(self.n):
            if not s.sealed >> i & 1:
                for stream in STREAMS:
                    yield from self._lead(s, i, stream)
        yield from self._recover(s)
        yield from self._collect(s)

    # Deaths

    def live(self, s: State) -> list[int]:
        return [i for i in range(self.n) if not s.fenced >> i & 1]

    def _die(self, s: State) -> Iterator[tuple[str, State]]:
        live = self.live(s)
        for i in live:
            if s.deaths and len(live) > 1:
                after = s._replace(fenced=s.fenced | 1 << i, deaths=s.deaths - 1)
                yield f"record: I{i} is fenced", after
        for i in range(self.n):
            if s.fenced >> i & 1 and not s.sealed >> i & 1:
                yield f"the log of I{i} is ended", s._replace(sealed=s.sealed | 1 << i)

    # Recovery

    def _recover(self, s: State) -> Iterator[tuple[str, State]]:
        for dead in range(self.n):
            if not s.fenced >> dead & 1 or s.recovery[dead] != NOBODY:
                continue
            readable = s.sealed >> dead & 1 or not self.on("end_first")
            for maker in range(self.n):
                number = self.index(dead, maker)
                if maker != dead and readable and not any(one == number for one, _ in s.made):
                    # A fenced maker may do it too: it does not know yet.
                    made = (*s.made, (number, self._entries(s, dead)))
                    after = s._replace(made=tuple(sorted(made)), store=s.store | 1 << number)
                    yield f"I{maker} writes the recovery index of I{dead}", after
            if s.sealed >> dead & 1:
                for number, _ in s.made:
                    if number in range(self.index(dead, 0), self.index(dead + 1, 0)):
                        yield from self._record(s, dead, number)

    def _entries(self, s: State, dead: int) -> Entries:
        if self.on("recover_all"):
            return s.logs[dead]
        a, b = (s.logs[dead][k] if s.streams[k].leader == dead else NOTHING for k in STREAMS)
        return (a, b)

    def _record(self, s: State, dead: int, number: int) -> Iterator[tuple[str, State]]:
        live = self.live(s)
        if s.fenced >> self.maker(number) & 1 and self.on("void_if_fenced"):
            return
        recovery = (*s.recovery[:dead], number, *s.recovery[dead + 1 :])
        streams = list(s.streams)
        told = f"record: I{dead} has ended, {self.name(number)}"
        for k in STREAMS:
            if s.streams[k].leader == dead:
                streams[k] = self._appoint(s, k, live)
                told += f"; I{streams[k].leader} leads {NAMES[k]}, source I{streams[k].source}"
        yield told, s._replace(recovery=recovery, streams=(streams[0], streams[1]))

    def _appoint(self, s: State, k: int, live: list[int]) -> Stream:
        old = s.streams[k]
        source = old.leader
        entry = s.logs[old.leader][k]
        if self.on("source_kept") and not _answers(entry, old):
            source = old.source
        return Stream(live[0] if k == 0 else live[-1], old.appointment + 1, source)

    # Leaders

    def _lead(self, s: State, i: int, k: int) -> Iterator[tuple[str, State]]:
        stream, entry = s.streams[k], s.logs[i][k]
        if entry.state == "o":
            yield from self._use(s, i, k)
        if stream.leader == i and not _answers(entry, stream) and stream.source != NOBODY:
            yield from self._open(s, i, k, stream)
        if stream.leader == i and _answers(entry, stream) and stream.source != NOBODY:
            streams = list(s.streams)
            for other in STREAMS:
                of_same = streams[other].source == stream.source and streams[other].leader == i
                if other == k or (of_same and not self.on("opened_by_stream")):
                    streams[other] = streams[other]._replace(source=NOBODY)
            after = s._replace(streams=(streams[0], streams[1]))
            yield f"record: I{i} has opened {NAMES[k]}", after
        if entry.state == "c" and i not in (stream.leader, stream.source):
            yield f"I{i} lets go of {NAMES[k]}", _with(s, i, k, NOTHING)
        if not self.on("record_first"):
            dead = stream.leader
            for number, entries in s.made:
                in_line = self.live(s)[0 if k == 0 else -1] == i and s.sealed >> dead & 1
                if in_line and number // self.n == 3 + dead and entries[k].state == "o":
                    planned = self._appoint(s, k, self.live(s))
                    needs = entries[k].needs | 1 << number
                    opened = Entry("o", planned.appointment, entries[k].contents, needs)
                    if entry.state == "-":
                        yield f"I{i} opens {NAMES[k]} before the record", _with(s, i, k, opened)

    def _use(self, s: State, i: int, k: int) -> Iterator[tuple[str, State]]:
        entry = s.logs[i][k]
        if s.batches <= self.batches and k == 0:
            bit, needs = 1 << s.batches, entry.needs | self.wal(i)
            after = _with(s, i, k, entry._replace(contents=entry.contents | bit, needs=needs))
            acked = (s.acked[0] | bit, s.acked[1])
            after = after._replace(acked=acked, batches=s.batches + 1, store=s.store | self.wal(i))
            yield f"I{i} acknowledges batch {s.batches} of {NAMES[k]}", after
        made = self.upload(i, k)
        if self.uploads and not (s.store | s.doomed) & made and entry.needs:
            after = _with(s, i, k, entry._replace(needs=made))
            yield f"I{i} uploads {NAMES[k]}; a checkpoint", after._replace(store=s.store | made)

    def _open(self, s: State, i: int, k: int, stream: Stream) -> Iterator[tuple[str, State]]:
        number = s.recovery[stream.source]
        if number != NOBODY:
            held = dict(s.made)[number][k]
            needs = held.needs | 1 << number
        elif not s.sealed >> stream.source & 1 and s.logs[stream.source][k].state == "c":
            held = s.logs[stream.source][k]
            needs = held.needs
        else:
            return
        opened = Entry("o", stream.appointment, held.contents, needs)
        yield f"I{i} opens {NAMES[k]} from I{stream.source}", _with(s, i, k, opened)

    # Deletion, in one look

    def _collect(self, s: State) -> Iterator[tuple[str, State]]:
        garbage = s.store & ~self._named(s) & ~s.doomed
        numbers = [i for i in range(garbage.bit_length()) if garbage >> i & 1]
        numbers = [i for i in numbers if self._settled(s, i)]
        if numbers:
            doomed = s.doomed
            for i in numbers:
                doomed |= 1 << i
            told = ", ".join(self.name(i) for i in numbers)
            yield f"collector finds nothing that names {told}", s._replace(doomed=doomed)
        if s.doomed & s.store:
            yield "collector deletes", s._replace(store=s.store & ~s.doomed)

    def _named(self, s: State) -> int:
        named = 0
        for i in range(self.n):
            if not s.fenced >> i & 1:
                for entry in s.logs[i]:
                    named |= self._held(entry)
            elif s.recovery[i] == NOBODY:
                if self.on("unended_named"):
                    named |= s.logs[i][0].needs | s.logs[i][1].needs
            else:
                for k in STREAMS:
                    if i in (s.streams[k].leader, s.streams[k].source):
                        entry = dict(s.made)[s.recovery[i]][k]
                        named |= self._held(entry)
                        if self.on("image_names"):
                            named |= 1 << s.recovery[i]
        return named

    def _held(self, entry: Entry) -> int:
        if self.on("needed_until_checkpoint"):
            return entry.needs
        return entry.needs & ((1 << 3 * self.n) - 1)

    def _settled(self, s: State, number: int) -> bool:
        maker = self.maker(number)
        if number < self.n:  # log objects: of an ended log that nobody needs
            if s.recovery[maker] == NOBODY:
                return bool(s.fenced >> maker & 1) and not self.on("unended_named")
            return all(maker not in (one.leader, one.source) for one in s.streams)
        if s.fenced >> maker & 1:
            return True
        if number < 3 * self.n:
            return True  # its record was durable in the same step
        dead = (number - 3 * self.n) // self.n
        return s.recovery[dead] != NOBODY  # named by the record, or given up for another

    # What must hold

    def fault(self, s: State) -> str | None:
        for k in STREAMS:
            stream = s.streams[k]
            for i in (stream.leader, stream.source):
                if i == NOBODY:
                    return f"{NAMES[k]}: the chain leads nowhere"
                entry = s.logs[i][k]
                if i == stream.leader and not _answers(entry, stream):
                    continue
                needs = entry.needs
                if s.recovery[i] != NOBODY:
                    entry = dict(s.made)[s.recovery[i]][k]
                    needs = entry.needs | 1 << s.recovery[i]
                if needs & ~s.store:
                    missing = (needs & ~s.store).bit_length() - 1
                    return f"{NAMES[k]} needs {self.name(missing)}, which was deleted"
                if s.acked[k] & ~entry.contents:
                    return f"acknowledged batches of {NAMES[k]} are not where the chain leads"
                break
        return None

    def goal(self, state: State) -> bool:
        return all(
            not state.fenced >> one.leader & 1 and _answers(state.logs[one.leader][k], one)
            for k, one in enumerate(state.streams)
        )


def _answers(entry: Entry, stream: Stream) -> bool:
    return entry.state == "o" and entry.appointment == stream.appointment


def _with(s: State, i: int, k: int, entry: Entry) -> State:
    a, b = s.logs[i]
    entries = (entry, b) if k == 0 else (a, entry)
    return s._replace(logs=(*s.logs[:i], entries, *s.logs[i + 1 :]))
