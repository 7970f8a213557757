"""Which leaderships to move so that brokers have equally much to do. Pure.

Goals: bytes in, bytes out, requests, processor, partitions. How far a broker is from the mean of a
goal counts in parts of that mean, and of a least amount that is worth a move; the imbalance is the
sum of the squares over all brokers and goals. A step moves the partition that lessens it most:

    begun      where a broker is above the mean by more than the given share, in a goal that matters
    taken      if it lessens the whole imbalance by a least amount, so that steps come to an end,
               and none takes back what another did
    racks      of targets that are about as good, the one whose rack leads fewest of the topic

A partition's part of requests and processor is not known: it is taken to be that of its bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Of one plan: few, so that the next one sees what they did.
STEPS = 8
# What a move must take off the imbalance at least.
LEAST_GAIN = 0.02
# Gains within this share of the best are as good.
AS_GOOD = 0.9


class Amounts(NamedTuple):
    """bytes and requests a second; processor: thousandths of a core."""

    bytes_in: float
    bytes_out: float
    requests: float
    processor: float
    partitions: float


GOALS = ("bytes in", "bytes out", "requests", "processor", "partitions")
# Less than this above the mean is not worth a move.
LEAST = Amounts(256 << 10, 256 << 10, 200, 200, 1)
NOTHING = Amounts(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class BrokerLoad:
    """Of one that may lead more. amounts: of now."""

    incarnation: int
    amounts: Amounts
    rack: str | None = None


@dataclass(frozen=True, slots=True)
class Movable:
    """A partition that is open where it is. share: of all bytes of its leader, 0 to 1.

    led_in: how many partitions of its topic each rack leads.
    """

    stream_id: int
    leader: int
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    share: float = 0.0
    led_in: Mapping[str, int] = field(default_factory=dict)


class Step(NamedTuple):
    """goal: in which the source had too much. above: of the mean, as a share of it."""

    stream_id: int
    source: int
    target: int
    goal: str
    above: float


class Stuck(NamedTuple):
    """A broker that has too much of something, and no partition whose move would help.

    hottest: the stream with the largest share of its bytes, if any is known.
    """

    incarnation: int
    goal: str
    above: float
    hottest: int | None
    share: float


@dataclass(frozen=True, slots=True)
class Plan:
    """before, after: by incarnation; after is what is expected."""

    steps: tuple[Step, ...]
    stuck: tuple[Stuck, ...]
    before: Mapping[int, Amounts]
    after: Mapping[int, Amounts]


def plan_steps(
    brokers: Sequence[BrokerLoad],
    movable: Iterable[Movable],
    above: float,
    *,
    resting: Collection[int] = (),
    steps: int = STEPS,
) -> Plan:
    """above: so far above the mean, as a share of it, a broker has too much. resting: streams that
    were moved a moment ago.
    """
    before = {one.incarnation: one.amounts for one in sorted(brokers, key=_by_incarnation)}
    if len(before) < 2:
        return Plan((), (), before, before)
    state = _State(brokers, movable, resting)
    taken: list[Step] = []
    stuck: list[Stuck] = []
    while len(taken) < steps:
        stuck = []
        step = None
        for excess, incarnation, goal in state.too_much(above):
            step = state.best_step(incarnation, goal, excess)
            if step is not None:
                break
            stuck.append(state.stuck(incarnation, goal, excess))
        if step is None:
            break
        state.take(step)
        taken.append(step)
    return Plan(tuple(taken), tuple(stuck), before, dict(state.amounts))


def imbalance(amounts: Mapping[int, Amounts]) -> float:
    """See above; 0.0: everything is even."""
    if not amounts:
        return 0.0
    mean = _mean(amounts)
    return sum(
        ((one[g] - mean[g]) / max(mean[g], LEAST[g])) ** 2
        for one in amounts.values()
        for g in range(len(GOALS))
    )


def _by_incarnation(one: BrokerLoad) -> int:
    return one.incarnation


def _mean(amounts: Mapping[int, Amounts]) -> Amounts:
    return Amounts(*(sum(column) / len(amounts) for column in zip(*amounts.values(), strict=True)))


class _State:
    def __init__(
        self, brokers: Sequence[BrokerLoad], movable: Iterable[Movable], resting: Collection[int]
    ) -> None:
        ordered = sorted(brokers, key=_by_incarnation)
        self.amounts = {one.incarnation: one.amounts for one in ordered}
        self._racks = {one.incarnation: one.rack for one in ordered}
        self._mean = _mean(self.amounts)  # moves do not change it
        self._scale = Amounts(*(max(m, w) for m, w in zip(self._mean, LEAST, strict=True)))
        self._movable: dict[int, list[Movable]] = {one: [] for one in self.amounts}
        self._weights: dict[int, Amounts] = {}
        for one in sorted(movable, key=lambda one: (-one.share, one.stream_id)):
            if one.leader in self._movable and one.stream_id not in resting:
                self._movable[one.leader].append(one)
                leader = self.amounts[one.leader]
                self._weights[one.stream_id] = Amounts(
                    min(one.bytes_in, leader.bytes_in),
                    min(one.bytes_out, leader.bytes_out),
                    leader.requests * one.share,
                    leader.processor * one.share,
                    1,
                )

    def too_much(self, above: float) -> list[tuple[float, int, int]]:
        """(excess as a share of the mean, incarnation, goal), most first."""
        found = []
        for incarnation, amounts in self.amounts.items():
            for goal in range(len(GOALS)):
                excess = amounts[goal] - self._mean[goal]
                if excess > LEAST[goal] and excess > above * self._mean[goal]:
                    found.append((excess / self._mean[goal], incarnation, goal))
        found.sort(key=lambda one: (-one[0], one[1], one[2]))
        return found

    def best_step(self, source: int, goal: int, excess: float) -> Step | None:
        options: list[tuple[float, int, int, Movable]] = []
        cold_seen = False
        for one in self._movable[source]:
            weight = self._weights[one.stream_id]
            if not weight[goal]:
                continue
            if not one.share:
                # All of them weigh the same: one is as good as the next.
                if cold_seen:
                    continue
                cold_seen = True
            for target in self.amounts:
                if target != source and self.amounts[target][goal] < self._mean[goal]:
                    gain = self._gain(weight, source, target)
                    if gain >= LEAST_GAIN:
                        options.append((gain, one.stream_id, target, one))
        if not options:
            return None
        best = max(gain for gain, _, _, _ in options)
        good = [option for option in options if option[0] >= best * AS_GOOD]
        _, stream_id, target, _ = min(
            good,
            key=lambda o: (o[3].led_in.get(self._racks[o[2]] or "", 0), -o[0], o[1], o[2]),
        )
        return Step(stream_id, source, target, GOALS[goal], excess)

    def _gain(self, weight: Amounts, source: int, target: int) -> float:
        """How much less the imbalance would be."""
        have, get = self.amounts[source], self.amounts[target]
        # (a - w)^2 + (b + w)^2 is a^2 + b^2 - 2 w (a - b - w).
        return sum(
            2 * w * (a - b - w) / scale**2
            for a, b, w, scale in zip(have, get, weight, self._scale, strict=True)
        )

    def stuck(self, incarnation: int, goal: int, excess: float) -> Stuck:
        known = [one for one in self._movable[incarnation] if one.share]
        hottest = known[0] if known else None
        return Stuck(
            incarnation,
            GOALS[goal],
            excess,
            None if hottest is None else hottest.stream_id,
            0.0 if hottest is None else hottest.share,
        )

    def take(self, step: Step) -> None:
        weight = self._weights[step.stream_id]
        for incarnation, sign in ((step.source, -1), (step.target, 1)):
            self.amounts[incarnation] = Amounts(
                *(
                    max(a + sign * w, 0.0)
                    for a, w in zip(self.amounts[incarnation], weight, strict=True)
                )
            )
        # Once in a plan: what it does there is not known yet.
        self._movable[step.source] = [
            one for one in self._movable[step.source] if one.stream_id != step.stream_id
        ]
