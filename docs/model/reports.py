"""Rounds that overlap, and brokers that fold the metadata log late (PROTOCOL 8.4, 9.1, 9.2).

One object X moves from leader to leader. A round may be begun while an earlier one is still being
gathered, by a collector that was replaced and does not know. What a broker let go of is named once,
by its next report; so it matters to which round that report goes.

    records   the metadata log: ("round", number), ("leads", broker), ("opened", broker)
    folded    per broker: how many of them it has folded
    holds     bits: brokers that refer to X; since: bits, those that did since their last report
    opening   per broker: the place of the record that its last opening answers
    answered  per broker and round: whether it has reported
    named     bits: rounds in which a report named X
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import ClassVar, NamedTuple

from .explore import Model

Record = tuple[str, int]


class State(NamedTuple):
    records: tuple[Record, ...]
    folded: tuple[int, ...]
    holds: int
    since: int
    opening: tuple[int, ...]
    answered: tuple[tuple[bool, ...], ...]
    named: int
    deleted: bool
    moves: int


class Reports(Model[State]):
    """brokers, moves, rounds: at most so many of each."""

    RULES: ClassVar[Mapping[str, str]] = {
        "let_go_by_record": "8.4: a broker lets go when it has folded `opened`, not when told",
        "newest_round": "9.2 (as mended): a broker answers the newest round that it has folded",
        "folded_round": "9.2: a report is composed after the round's record",
    }

    def __init__(
        self, brokers: int = 2, moves: int = 1, rounds: int = 2, off: Collection[str] = ()
    ) -> None:
        super().__init__(off)
        self.n, self.moves, self.rounds = brokers, moves, rounds

    def start(self) -> State:
        answered = ((False,) * self.rounds,) * self.n
        first = (("leads", 0), ("opened", 0))
        opening = (0, *[-1] * (self.n - 1))
        return State(first, (2,) * self.n, 1, 1, opening, answered, 0, False, self.moves)

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        yield from self._record(s)
        for i in range(self.n):
            if s.folded[i] < len(s.records):
                folded = (*s.folded[:i], s.folded[i] + 1, *s.folded[i + 1 :])
                what, number = s.records[s.folded[i]]
                yield f"B{i} folds: {what} {number}", s._replace(folded=folded)
            yield from self._follow(s, i)
            yield from self._report(s, i)
        for r in range(self._begun(s)):
            if all(answered[r] for answered in s.answered) and not s.named >> r & 1:
                yield f"round {r} ends: X is garbage", s._replace(deleted=True)

    def _begun(self, s: State) -> int:
        return sum(what == "round" for what, _ in s.records)

    def _leader(self, records: tuple[Record, ...]) -> tuple[int, int, bool]:
        """Who leads, where the record that says so is, and whether it has opened."""
        place = max(i for i, record in enumerate(records) if record[0] == "leads")
        leader = records[place][1]
        return leader, place, ("opened", leader) in records[place:]

    def _record(self, s: State) -> Iterator[tuple[str, State]]:
        def record(what: str, number: int) -> State:
            return s._replace(records=(*s.records, (what, number)))

        if self._begun(s) < self.rounds:
            number = self._begun(s)
            yield f"record: round {number} begins", record("round", number)
        leader, place, opened = self._leader(s.records)
        if opened and s.moves:
            for j in range(self.n):
                if j != leader:
                    after = record("leads", j)._replace(moves=s.moves - 1)
                    yield f"record: B{j} leads after B{leader}", after
        if not opened and s.opening[leader] == place:
            yield f"record: B{leader} has opened", record("opened", leader)

    def _follow(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        """Broker i does what the records that it has folded ask for."""
        leader, place, opened = self._leader(s.records[: s.folded[i]])
        if leader == i and s.opening[i] < place:
            opening = (*s.opening[:i], place, *s.opening[i + 1 :])
            after = s._replace(holds=s.holds | 1 << i, since=s.since | 1 << i, opening=opening)
            yield f"B{i} opens, and refers to X", after
        if not self.on("let_go_by_record"):
            leader, place, _ = self._leader(s.records)
            opened = s.opening[leader] == place
        if leader != i and opened and s.holds >> i & 1:
            yield f"B{i} lets go of X", s._replace(holds=s.holds & ~(1 << i))

    def _report(self, s: State, i: int) -> Iterator[tuple[str, State]]:
        known = [number for what, number in s.records[: s.folded[i]] if what == "round"]
        if not self.on("folded_round"):
            known += range(len(known), self.rounds)
        elif self.on("newest_round"):
            known = known[-1:]
        for r in known:
            if s.answered[i][r]:
                continue
            names = bool((s.holds | s.since) >> i & 1)
            mine = (*s.answered[i][:r], True, *s.answered[i][r + 1 :])
            bit = 1 << i
            told = f"B{i} reports to round {r}: {'X' if names else 'nothing'}"
            yield (
                told,
                s._replace(
                    answered=(*s.answered[:i], mine, *s.answered[i + 1 :]),
                    named=s.named | names << r,
                    since=s.since & ~bit | s.holds & bit,
                ),
            )

    def fault(self, s: State) -> str | None:
        return "X was deleted, while the stream lives from it" if s.deleted else None
