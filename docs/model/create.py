"""One place of a log, two who want it: a writer and a sealer (PROTOCOL 2).

The writer sends a conditional create as often as it likes; copies may arrive at any later time, and
answers may be lost. What it believes afterwards must be true for ever.

    store   None | (who, version)     who: "W" writer, "S" sealer
    copies  PUTs of the writer on their way: how many of each version
    replies answers that are on their way to the writer, as a set of bits
    belief  "open" | "written" | "refused" | "given up"
    known   the version that the writer was told is there, once "written"
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, NamedTuple

from .explore import Model

OK, TAKEN, UNKNOWN = 1, 2, 4


class State(NamedTuple):
    store: tuple[str, int] | None
    copies: tuple[int, int]
    replies: int
    belief: str
    version: int
    sent: int
    sealed: bool


class Create(Model[State]):
    """attempts: PUTs that the writer sends at most."""

    RULES: ClassVar[Mapping[str, str]] = {
        "header_decides": "2: after a 412 the header found there decides, not the 412",
        "write_id_checked": "2: another's write id is not ours",
        "absent_is_sent_again": "2: absent after a time-out: send again, it may still come",
        "bytes_fixed": "3.2: the bytes are fixed when the first PUT is sent",
    }

    def __init__(self, attempts: int = 3, off: Collection[str] = ()) -> None:
        super().__init__(off)
        self.attempts = attempts

    def start(self) -> State:
        return State(None, (0, 0), 0, "open", 0, 0, False)

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        if s.belief == "open" and s.sent < self.attempts:
            yield from self._send(s)
        for version in (0, 1):
            if s.copies[version]:
                yield from self._arrive(s, version)
        if s.belief == "open" and s.replies:
            yield from self._hear(s)
        if not s.sealed:
            taken = "it is taken" if s.store else "accepted"
            store = s.store or ("S", 0)
            yield f"sealer creates the seal: {taken}", s._replace(store=store, sealed=True)

    def _send(self, s: State) -> Iterator[tuple[str, State]]:
        versions = (0,) if self.on("bytes_fixed") or not s.sent else (s.version, 1)
        for version in dict.fromkeys(versions):
            copies = (s.copies[0] + (version == 0), s.copies[1] + (version == 1))
            told = f"writer sends attempt {s.sent + 1}" + (", with other bytes" * version)
            yield told, s._replace(copies=copies, version=version, sent=s.sent + 1)

    def _arrive(self, s: State, version: int) -> Iterator[tuple[str, State]]:
        copies = (s.copies[0] - (version == 0), s.copies[1] - (version == 1))
        free = s.store is None
        store = s.store or ("W", version)
        reply, word = (OK, "created") if free else (TAKEN, "412")
        after = s._replace(store=store, copies=copies)
        yield f"a PUT arrives: {word}", after._replace(replies=s.replies | reply)
        yield f"a PUT arrives: {word}, but its answer is lost", after
        yield "a PUT times out, and may still arrive", s._replace(replies=s.replies | UNKNOWN)

    def _hear(self, s: State) -> Iterator[tuple[str, State]]:
        if s.replies & OK:
            yield "writer hears that it was created", s._replace(belief="written", replies=0)
        if s.replies & TAKEN:
            yield from self._decide(s, "hears 412")
        if s.replies & UNKNOWN:
            yield from self._decide(s, "hears of a time-out")

    def _decide(self, s: State, why: str) -> Iterator[tuple[str, State]]:
        s = s._replace(replies=0)
        if why == "hears 412" and not self.on("header_decides"):
            yield f"writer {why}: not ours", s._replace(belief="refused")
        elif s.store is None:
            if not self.on("absent_is_sent_again"):
                yield f"writer {why}, finds nothing: it failed", s._replace(belief="given up")
            else:
                yield f"writer {why}, finds nothing: goes on", s
        elif s.store[0] == "W" or not self.on("write_id_checked"):
            yield f"writer {why}, finds its write id: written", s._replace(belief="written")
        else:
            yield f"writer {why}, finds another's write id", s._replace(belief="refused")

    def fault(self, s: State) -> str | None:
        if s.belief == "written" and s.store != ("W", s.version):
            return "the writer acknowledged bytes that are not in the store"
        if s.belief == "refused" and (s.store is None or s.store[0] == "W"):
            return "the writer takes itself for fenced by its own object"
        if s.belief == "given up" and s.store is not None and s.store[0] == "W":
            return "a batch that was told to have failed is in the log"
        return None
