"""One log on conditional creates: writing, trimming, deleting, sealing, its end (PROTOCOL 3 and 4).

One writer, who may be paused at any point and whose PUTs may arrive late and twice; sealers, each
of whom may sleep between any two of its requests; a collector, whose deletions may happen at any
time after they were decided, and again. Reading a log back is a pure look at the store.

    store    per place: ABSENT, DATA, SEAL (or SEAL + the sealer's number, where there is no `end`)
    headers  the `durable` of each object composed so far; `trim` and `checkpoint` follow from it
    copies   per object: its PUTs on their way
    acked    the prefix that is durable as the writer knows; got: bits, landed beyond it
    doomed   bits: places whose deletion was decided
    sealers  (phase, place, bits to be sealed): list, half, put, judge, end; won,
             lost
    end      of `<log>/end`, or -1; adopted: somebody has read the log to its end
    read_to  how far a reader has counted the log's objects
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import ClassVar, NamedTuple

from .explore import Model

ABSENT, DATA, SEAL = 0, 1, 2
Sealer = tuple[str, int, int]


class State(NamedTuple):
    store: tuple[int, ...]
    headers: tuple[int, ...]
    copies: tuple[int, ...]
    alive: bool
    acked: int
    got: int
    doomed: int
    sealers: tuple[Sealer, ...]
    end: int
    adopted: bool
    read_to: int


class Log(Model[State]):
    """objects: that the writer composes. copies: of each PUT. checkpoint_every: 0: `trim` runs up
    to `durable`; else every so many-th object carries a checkpoint, and trim obeys 3.5. reader:
    somebody also reads the log while it is written. page: a sealer's LIST is no snapshot: places
    from there on are on a second page, listed later.
    """

    RULES: ClassVar[Mapping[str, str]] = {
        "contiguous_ack": "3.3: acknowledgements only over the contiguous prefix",
        "trim_below_checkpoint": "3.5: trim passes neither its checkpoint nor what that lacks",
        "trim_in_header": "3.6: deleted below the trim that a header says, not by a word",
        "trim_durable": "3.6: ... of an object that is durable",
        "count_contiguous": "3.7: an object counts only when all before it are there",
        "below_trim_absent": "3.7: keys below trim are taken for absent",
        "start_from_header": "4.1: the sealer starts from the highest object's header",
        "whole_window": "4.1: seals at all of k ... k+W",
        "list_again": "4.1: ... waits until each place is decided, and lists again",
        "window_at_end": "4.1 (as mended): end only when all of end ... end+W are decided",
        "validate": "4.2: a seal is void where data above shows that the log went on",
        "lowest_counts": "4.3: the lowest valid seal is the end, not the first accepted",
        "end_object": "4.4: the end is final by one more create",
        "collect_after_end": "4.4: nothing goes because the log ended before `end` is there",
        "seals_kept": "1: seals are never deleted",
        "stop_at_seal": "4.5: the old writer meets a seal after its prefix and stops",
        "confirm_next_unused": "10.1 (as mended): the GET asks for the next unused place",
    }

    def __init__(
        self,
        objects: int,
        window: int,
        sealers: int = 1,
        copies: int = 1,
        *,
        checkpoint_every: int = 0,
        reader: bool = False,
        page: int = 0,
        off: Collection[str] = (),
    ) -> None:
        super().__init__(off)
        self.objects, self.window, self.copies = objects, window, copies
        self.sealers, self.every, self.reader = sealers, checkpoint_every, reader
        self.page = page
        self.places = objects + window + 1
        self.owners_by_seal = not self.on("end_object")

    def start(self) -> State:
        sealers: tuple[Sealer, ...] = (("list", 0, 0),) * self.sealers
        empty = (ABSENT,) * self.places
        none = (0,) * self.objects
        return State(empty, (), none, True, 0, 0, 0, sealers, -1, False, 0)

    def canonical(self, state: State) -> Hashable:
        if self.owners_by_seal or self.sealers == 1:
            return state
        return state._replace(sealers=tuple(sorted(state.sealers)))

    # What a header says, and what follows from it

    def checkpoint(self, headers: tuple[int, ...], below: int) -> int:
        """The newest object below that carries a checkpoint; -1: none."""
        return (below - 1) // self.every * self.every if below > 0 else -1

    def trim(self, headers: tuple[int, ...], i: int) -> int:
        durable = headers[i]
        if not self.every or not self.on("trim_below_checkpoint"):
            return durable
        carrier = self.checkpoint(headers, durable)
        return 0 if carrier < 0 else headers[carrier]

    def void(self, s: State, place: int) -> bool:
        if not self.on("validate"):
            return False
        return any(
            s.store[i] == DATA and max(s.headers[i], self.trim(s.headers, i)) > place
            for i in range(place + 1, len(s.headers))
        )

    def begin(self, s: State) -> int:
        """Where to look from: the trim of the highest data object."""
        held = [i for i in range(len(s.headers)) if s.store[i] == DATA]
        if not held:
            return 0
        return self.trim(s.headers, held[-1]) if self.on("start_from_header") else held[0]

    def first_missing(self, s: State) -> int:
        place = self.begin(s)
        while place < self.places and s.store[place] == DATA:
            place += 1
        return place

    def unreadable(self, s: State) -> str | None:
        """Why who reads the log to its end does not find all that was acknowledged."""
        end = s.end
        if end == 0:
            return None
        if s.store[end - 1] != DATA:
            return f"the last object before the end, {end - 1}, is not there"
        first = self.trim(s.headers, end - 1)
        if not self.on("below_trim_absent"):
            first = next(i for i in range(end) if s.store[i] == DATA)
        for i in range(first, end):
            if s.store[i] != DATA:
                return f"a hole at {i}: the log runs from {first} to {end}"
        if not self.every:
            return None
        carrier = self.checkpoint(s.headers, end)
        if carrier < first:
            return f"trimmed to {first}, and no checkpoint in what is left" if first else None
        if s.headers[carrier] < first:
            return f"objects from {s.headers[carrier]} to {first} are in no checkpoint"
        return None

    # What can happen

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        yield from self._write(s)
        yield from self._collect(s)
        for j in range(self.sealers):
            yield from self._seal(s, j)
        if s.end >= 0 and not s.adopted:
            yield f"a new leader reads the log to its end {s.end}", s._replace(adopted=True)
        if self.reader and s.end < 0:
            yield from self._read(s)

    def _write(self, s: State) -> Iterator[tuple[str, State]]:
        nxt = len(s.headers)
        if s.alive and nxt < self.objects and nxt - s.acked < self.window:
            headers = (*s.headers, s.acked)
            told = f"writer sends {nxt} (trim {self.trim(headers, nxt)}, durable {s.acked})"
            yield told, s._replace(headers=headers, copies=_put(s.copies, nxt, self.copies))
        for i in range(nxt):
            if s.copies[i]:
                yield from self._arrive(s._replace(copies=_put(s.copies, i, s.copies[i] - 1)), i)

    def _arrive(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        met = s.store[i]
        listens = s.alive and i >= s.acked
        if met >= SEAL:
            if not listens:
                yield f"a PUT of {i} meets a seal", s
            elif self.on("stop_at_seal"):
                yield f"a PUT of {i} meets a seal: the writer stops", s._replace(alive=False, got=0)
            else:
                yield f"a PUT of {i} meets a seal: the writer goes on", self._landed(s, i)
            return
        if met == ABSENT:
            s = s._replace(store=_put(s.store, i, DATA))
        if listens:
            after = self._landed(s, i)
            yield f"PUT {i} arrives; acknowledged: {after.acked}", after
            yield f"PUT {i} arrives, its answer is lost", s
        else:
            yield f"a late PUT of {i} arrives", s

    def _landed(self, s: State, i: int) -> State:
        got, acked = s.got | 1 << i, s.acked
        if not self.on("contiguous_ack"):
            return s._replace(acked=max(acked, i + 1))
        while got >> acked & 1:
            got &= ~(1 << acked)
            acked += 1
        return s._replace(got=got, acked=acked)

    def _collect(self, s: State) -> Iterator[tuple[str, State]]:
        bits, why = 0, ""
        ended = s.end >= 0 and s.adopted
        if not self.on("collect_after_end"):
            ended = ended or any(phase == "end" for phase, _, _ in s.sealers)
        if ended:
            why = "of the ended log"
            for i in range(self.places):
                if s.store[i] == DATA or (s.store[i] >= SEAL and not self.on("seals_kept")):
                    bits |= 1 << i
        else:
            trim = self._durable_trim(s)
            why = f"below trim {trim}"
            for i in range(trim):
                bits |= (s.store[i] == DATA) << i
        if bits & ~s.doomed:
            yield f"collector decides to delete what is {why}", s._replace(doomed=s.doomed | bits)
        for i in range(self.places):
            if s.doomed >> i & 1 and s.store[i]:
                yield f"collector deletes {i}", s._replace(store=_put(s.store, i, ABSENT))

    def _durable_trim(self, s: State) -> int:
        if not self.on("trim_in_header"):
            return s.acked
        if self.on("trim_durable"):
            believed = range(s.acked)
        else:
            believed = range(len(s.headers))
        return max(
            (self.trim(s.headers, i) for i in believed if i < s.acked or s.store[i] == DATA),
            default=0,
        )

    def _seal(self, s: State, j: int) -> Iterator[tuple[str, State]]:
        phase, place, todo = s.sealers[j]

        def now(phase: str, place: int, todo: int = 0) -> State:
            return s._replace(sealers=_put_sealer(s.sealers, j, (phase, place, todo)))

        if phase == "list":
            if self.page:
                data = sum((s.store[i] == DATA) << i for i in range(self.page))
                seals = sum((s.store[i] >= SEAL) << i for i in range(self.page))
                yield f"S{j} lists the first page", now("half", data, seals)
            else:
                yield from self._list(s, j, s)
        elif phase == "half":
            listed = tuple(
                DATA if place >> i & 1 else SEAL if todo >> i & 1 else ABSENT
                for i in range(self.page)
            )
            view = s._replace(store=(*listed, *s.store[self.page :]))
            highest = max((i for i in range(self.objects) if view.store[i] == DATA), default=None)
            if highest is not None and s.store[highest] != DATA:
                yield f"S{j} does not find {highest} any more, lists again", now("list", 0)
            else:
                yield from self._list(s, j, view)
        elif phase == "put":
            for i in range(place, self.places):
                if not todo >> i & 1:
                    continue
                left = todo & ~(1 << i)
                taken = s.store[i] != ABSENT
                if not taken and not self.on("lowest_counts"):
                    after = now("end", i)
                else:
                    again = now("list", 0) if self.on("list_again") else now("judge", place)
                    after = now("put", place, left) if left else again
                if not taken:
                    value = SEAL + j if self.owners_by_seal else SEAL
                    after = after._replace(store=_put(s.store, i, value))
                yield f"S{j} creates a seal at {i}: {'taken' if taken else 'accepted'}", after
        elif phase == "judge":
            end = place
            while end < self.places and s.store[end] == DATA:
                end += 1
            good = end < self.places and s.store[end] >= SEAL and not self.void(s, end)
            if good and all(s.store[end : end + self.window + 1]):
                yield f"S{j} judges the seal at {end}: valid", now("end", end)
            else:
                yield f"S{j} finds no valid seal from {place} on, starts over", now("list", 0)
        elif phase == "end":
            if s.end < 0:
                yield f"S{j} creates `end`: {place}", now("won", place)._replace(end=place)
            else:
                yield f"S{j} finds `end` there", now("lost", s.end)

    def _list(self, s: State, j: int, seen: State) -> Iterator[tuple[str, State]]:
        """seen: as the listing showed the store."""

        def now(phase: str, place: int, todo: int = 0) -> State:
            return s._replace(sealers=_put_sealer(s.sealers, j, (phase, place, todo)))

        if s.end >= 0 and self.on("end_object"):
            yield f"S{j} finds `end`", now("lost", s.end)
            return
        k = self.first_missing(seen)
        undecided = 0
        for i in range(k, k + self.window + 1):
            undecided |= (seen.store[i] == ABSENT) << i
        decided = not undecided or not (self.on("window_at_end") and self.on("whole_window"))
        if seen.store[k] >= SEAL and decided and not self.void(seen, k):
            if not self.owners_by_seal:
                yield f"S{j} lists: a valid seal at {k}", now("end", k)
            elif s.store[k] == SEAL + j:
                end = k if s.end < 0 else s.end
                yield f"S{j} lists: its own valid seal at {k}", now("won", k)._replace(end=end)
            else:
                yield f"S{j} lists: another's valid seal at {k}", now("lost", k)
            return
        if not self.on("whole_window"):
            undecided &= 1 << k
        if undecided:
            yield f"S{j} lists: the first missing is {k}", now("put", k, undecided)
        elif seen is not s:
            yield f"S{j} lists: {k} is overtaken, lists again", now("list", 0)

    def _read(self, s: State) -> Iterator[tuple[str, State]]:
        if self.on("count_contiguous"):
            place = self.first_missing(s)
        else:
            place = max((i + 1 for i in range(self.objects) if s.store[i] == DATA), default=0)
        if place > s.read_to:
            yield f"a reader counts all below {place}", s._replace(read_to=place)

    # What must hold

    def fault(self, s: State) -> str | None:
        winners = [phase for phase, _, _ in s.sealers].count("won")
        if winners > 1:
            return "two processes own what follows this log"
        if s.end < 0:
            return None
        if s.acked > s.end:
            return f"the log ended at {s.end}, but {s.acked} objects are acknowledged"
        if s.read_to > s.end:
            return f"the log ended at {s.end}, but a reader has counted {s.read_to}"
        if not s.adopted:
            return self.unreadable(s)
        asked = len(s.headers) if self.on("confirm_next_unused") else s.acked
        if s.alive and s.store[asked] == ABSENT:
            return f"the old writer asks for {asked}, finds nothing, and answers old reads"
        return None

    def goal(self, state: State) -> bool:
        return state.end >= 0


def _put(values: tuple[int, ...], i: int, value: int) -> tuple[int, ...]:
    return (*values[:i], value, *values[i + 1 :])


def _put_sealer(values: tuple[Sealer, ...], i: int, value: Sealer) -> tuple[Sealer, ...]:
    return (*values[:i], value, *values[i + 1 :])
