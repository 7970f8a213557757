"""Breadth-first search of everything that a model can do, and the shortest way to a fault.

A model says where it starts, what can happen next in each state, and what is wrong with a state.
The search visits every state once, in order of distance, so the first fault has a shortest trace.
States are compared exactly, or, for large sizes, by a 64-bit hash of theirs: with n states the
chance that one was missed is about n * n / 2**65 (3 million: one in four million).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

S = TypeVar("S", bound=Hashable)


class Model(ABC, Generic[S]):
    """One subject of the protocol.

    RULES: each rule that can be switched off, and what it says. off: those that are. A state is
    made of tuples, ints, bools, strings and None; never of -2, whose hash is that of -1.
    """

    RULES: ClassVar[Mapping[str, str]] = {}

    def __init__(self, off: Collection[str] = ()) -> None:
        unknown = set(off) - set(self.RULES)
        if unknown:
            raise ValueError(f"{type(self).__name__} has no rule {sorted(unknown)}")
        self.off = frozenset(off)

    def on(self, rule: str) -> bool:
        assert rule in self.RULES, rule
        return rule not in self.off

    @abstractmethod
    def start(self) -> S: ...

    @abstractmethod
    def steps(self, state: S) -> Iterable[tuple[str, S]]:
        """(what happens, the state after it) in an order that depends on the state alone."""

    @abstractmethod
    def fault(self, state: S) -> str | None:
        """Which invariant the state breaks, in words; None: none."""

    def goal(self, state: S) -> bool | None:
        """Whether the state is one that must stay within reach for ever; None: no such claim."""
        return None

    def canonical(self, state: S) -> Hashable:
        """The same for states that differ in nothing but the names of interchangeable parts."""
        return state


@dataclass(frozen=True, slots=True)
class Found:
    """fault: None where every state holds. trace: what happened, to the fault, shortest first.

    exhausted: all states were visited. depth: steps to the farthest one. seconds: of a processor.
    """

    states: int
    transitions: int
    depth: int
    seconds: float
    exhausted: bool
    fault: str | None = None
    trace: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return self.fault is None and self.exhausted


class _Seen(Generic[S]):
    """States by number, in the order in which they were found, and the state before each."""

    def __init__(self, model: Model[S], exact: bool) -> None:
        self._model = model
        self._exact = exact
        self._numbers: dict[Hashable, int] = {}
        self._before = array("q")

    def __len__(self) -> int:
        return len(self._before)

    def _key(self, state: S) -> Hashable:
        key = self._model.canonical(state)
        return key if self._exact else hash(key)

    def number(self, state: S, before: int) -> tuple[int, bool]:
        """Its number, and whether it is new."""
        key = self._key(state)
        found = self._numbers.get(key)
        if found is not None:
            return found, False
        number = len(self._before)
        self._numbers[key] = number
        self._before.append(before)
        return number, True

    def trace(self, number: int) -> tuple[str, ...]:
        """Walked again from the start: only numbers were kept."""
        path = []
        while number > 0:
            path.append(number)
            number = self._before[number]
        state, told = self._model.start(), []
        for wanted in reversed(path):
            for what, after in self._model.steps(state):
                if self._numbers[self._key(after)] == wanted:
                    told.append(what)
                    state = after
                    break
            else:
                raise AssertionError(f"{self._model}: steps depend on more than the state")
        return tuple(told)


def explore(
    model: Model[S],
    *,
    start: S | None = None,
    at_most: int = 10_000_000,
    exact: bool = True,
    reach_goal: bool = False,
) -> Found:
    """Visit every state; stop at the first fault.

    start: begin there (a trace then tells what follows it). reach_goal: demand besides that from
    every state one can be reached for which `goal` is true; the state that is nearest to the start
    and has lost its way is the fault.
    """
    began = time.process_time()
    first = model.start() if start is None else start
    if start is not None:
        model = _Elsewhere(model, start)
    seen: _Seen[S] = _Seen(model, exact)
    seen.number(first, -1)
    queue: deque[tuple[S, int, int]] = deque([(first, 0, 0)])
    edges_from, edges_to = array("q"), array("q")
    goals: list[int] = []
    transitions, depth = 0, 0

    def found(fault: str | None, number: int, exhausted: bool) -> Found:
        trace = seen.trace(number) if fault is not None else ()
        took = time.process_time() - began
        return Found(len(seen), transitions, depth, took, exhausted, fault, trace)

    while queue:
        state, number, depth = queue.popleft()
        fault = model.fault(state)
        if fault is not None:
            return found(fault, number, False)
        if reach_goal and model.goal(state):
            goals.append(number)
        for _, after in model.steps(state):
            transitions += 1
            other, new = seen.number(after, number)
            if reach_goal:
                edges_from.append(number)
                edges_to.append(other)
            if new:
                queue.append((after, other, depth + 1))
        if len(seen) > at_most:
            return found(None, 0, False)
    if reach_goal:
        lost = _first_lost(len(seen), edges_from, edges_to, goals)
        if lost is not None:
            return found("whatever happens from here on, the goal is out of reach", lost, True)
    return found(None, 0, True)


def _first_lost(
    states: int, edges_from: array[int], edges_to: array[int], goals: Iterable[int]
) -> int | None:
    """The lowest number of a state from which no goal can be reached."""
    into: list[list[int]] = [[] for _ in range(states)]
    for source, target in zip(edges_from, edges_to, strict=True):
        into[target].append(source)
    reaches = bytearray(states)
    queue = deque(goals)
    for goal in queue:
        reaches[goal] = 1
    while queue:
        for source in into[queue.popleft()]:
            if not reaches[source]:
                reaches[source] = 1
                queue.append(source)
    lost = reaches.find(0)
    return None if lost < 0 else lost


class _Elsewhere(Model[S]):
    """The same model, begun in another state."""

    def __init__(self, model: Model[S], start: S) -> None:
        super().__init__()
        self._model, self._start = model, start

    def start(self) -> S:
        return self._start

    def steps(self, state: S) -> Iterable[tuple[str, S]]:
        return self._model.steps(state)

    def fault(self, state: S) -> str | None:
        return self._model.fault(state)

    def goal(self, state: S) -> bool | None:
        return self._model.goal(state)

    def canonical(self, state: S) -> Hashable:
        return self._model.canonical(state)


def follow(model: Model[S], script: Iterable[str], start: S | None = None) -> S:
    """The state after the steps that begin with these words, one after the other.

    Raises AssertionError where no step, or more than one, does, or where there is a fault already.
    """
    state = model.start() if start is None else start
    for words in script:
        choices = {what: after for what, after in model.steps(state) if what.startswith(words)}
        can = [what for what, _ in model.steps(state)]
        assert len(choices) == 1, f"{words!r} is one of {sorted(choices)}; there are {can}"
        assert model.fault(state) is None, f"before {words!r}: {model.fault(state)}"
        state = next(iter(choices.values()))
    return state
