"""Compares what clients were told with what is there. Pure: histories in, findings out.

lost: acknowledged, and not at its offset (or, without one, nowhere); delivered, and not what is
stored there; stored, and never delivered to a group that reads everything.
duplicated: a value that is stored twice; all producers here are idempotent.
reordered: a record of a producer behind a later one of the same partition.
went_back: a member of a group was given a partition, and its first record lay before an offset
whose commit had been confirmed by then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .history import Acknowledged, ClientHistory, Delivered, Failed

# By partition, by offset.
Stored = Mapping[int, Mapping[int, str]]


@dataclass
class Verdict:
    """What must be nothing, each with words for a person."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    went_back: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered or self.went_back)


@dataclass(frozen=True)
class Figures:
    """acknowledgement_gaps_s: by producer, the longest time in which it had none of some partition,
    though it sends to all of them all the time; delivery_gaps_s: the same by group. p99_s: of the
    time from sending to the answer, of what was sent in the first seconds after the fault; None
    where nothing was.
    """

    acknowledged: int
    delivered: int
    acknowledgement_gaps_s: Mapping[str, float]
    delivery_gaps_s: Mapping[str, float]
    p99_s: float | None
    errors: tuple[Failed, ...]


def judge(histories: Sequence[ClientHistory], stored: Stored) -> Verdict:
    verdict = Verdict()
    _check_stored(stored, verdict)
    where = {value: p for p, records in stored.items() for value in records.values()}
    for history in histories:
        for told in history.acknowledged:
            if told.offset is None:
                if where.get(told.value) != told.partition:
                    verdict.lost.append(f"{told.value} was acknowledged, and is nowhere")
            elif (found := stored[told.partition].get(told.offset)) != told.value:
                place = f"{told.partition}@{told.offset}"
                verdict.lost.append(f"{told.value} was acknowledged at {place}: there is {found}")
        for given in history.delivered:
            if (found := stored[given.partition].get(given.offset)) != given.value:
                place = f"{given.partition}@{given.offset}"
                verdict.lost.append(
                    f"{given.value} was delivered to {history.name} from {place}: there is {found}"
                )
    for group in sorted({one.group for one in histories if one.group}):
        members = [one for one in histories if one.group == group]
        _check_delivered(group, members, stored, verdict)
        _check_commits(group, members, verdict)
    return verdict


def _check_stored(stored: Stored, verdict: Verdict) -> None:
    first: dict[str, str] = {}
    for partition, records in sorted(stored.items()):
        newest: dict[str, tuple[int, str]] = {}
        end = max(records, default=-1) + 1
        if holes := end - len(records):
            verdict.lost.append(f"{holes} offsets below {end} of partition {partition} are missing")
        for offset in sorted(records):
            value = records[offset]
            place = f"{partition}@{offset}"
            if value in first:
                verdict.duplicated.append(f"{value} is at {first[value]} and at {place}")
                continue
            first[value] = place
            sender, number = sent_as(value)
            before = newest.get(sender, (-1, ""))
            if number < before[0]:
                verdict.reordered.append(f"{value} at {place} is behind {before[1]}")
            else:
                newest[sender] = number, f"{value} at {place}"


def _check_delivered(
    group: str, members: Sequence[ClientHistory], stored: Stored, verdict: Verdict
) -> None:
    seen = {(one.partition, one.offset) for member in members for one in member.delivered}
    for partition, records in sorted(stored.items()):
        missing = [offset for offset in sorted(records) if (partition, offset) not in seen]
        if missing:
            verdict.lost.append(
                f"{len(missing)} records of partition {partition} never came to group {group}, "
                f"from {missing[0]} to {missing[-1]}"
            )


def _check_commits(group: str, members: Sequence[ClientHistory], verdict: Verdict) -> None:
    confirmed = sorted((c.at, c.partition, c.offset) for one in members for c in one.committed)
    for member in members:
        for index, assigned in enumerate(member.assigned):
            later = member.assigned[index + 1 :]
            until = later[0].at if later else float("inf")
            floor: dict[int, int] = {}
            for at, partition, offset in confirmed:
                if at < assigned.at:
                    floor[partition] = max(floor.get(partition, 0), offset)
            begun: set[int] = set()
            for given in member.delivered:
                fresh = assigned.at <= given.at < until and given.partition in assigned.partitions
                if not fresh or given.partition in begun:
                    continue
                begun.add(given.partition)
                if given.offset < floor.get(given.partition, 0):
                    verdict.went_back.append(
                        f"{member.name} of {group} began partition {given.partition} at "
                        f"{given.offset}, where {floor[given.partition]} was committed"
                    )


def sent_as(value: str) -> tuple[str, int]:
    sender, _, number = value.rpartition(".")
    return sender, int(number)


def measure(
    histories: Sequence[ClientHistory], began: float, ended: float, first_s: float = 10.0
) -> Figures:
    """began, ended: of the fault, and of the load."""
    errors = tuple(
        sorted((one for h in histories for one in h.failed), key=lambda one: (one.at, one.text))
    )
    took = [
        one.took_s
        for history in histories
        for one in history.acknowledged
        if one.took_s is not None and began <= one.at - one.took_s < began + first_s
    ]
    groups: dict[str, list[ClientHistory]] = defaultdict(list)
    for history in histories:
        if history.group:
            groups[history.group].append(history)
    return Figures(
        acknowledged=sum(len(one.acknowledged) for one in histories),
        delivered=sum(len(one.delivered) for one in histories),
        acknowledgement_gaps_s={
            one.name: longest_gap(_places(one.acknowledged, one.spreads), began, ended)
            for one in histories
            if one.acknowledged
        },
        delivery_gaps_s={
            name: longest_gap(
                (place for one in members for place in _places(one.delivered, True)), began, ended
            )
            for name, members in groups.items()
        },
        p99_s=percentile(took, 0.99) if took else None,
        errors=errors,
    )


def _places(
    events: Iterable[Acknowledged | Delivered], by_partition: bool
) -> Iterator[tuple[int, float]]:
    return ((one.partition if by_partition else 0, one.at) for one in events)


def longest_gap(events: Iterable[tuple[int, float]], began: float, ended: float) -> float:
    """Of any partition, of what reaches into the time from `began` to `ended`, in seconds.

    A partition of which nothing came after `began` was silent until the end.
    """
    times: dict[int, list[float]] = defaultdict(list)
    for partition, at in events:
        times[partition].append(at)
    longest = 0.0
    for found in times.values():
        found.sort()
        before = max((at for at in found if at < began), default=began)
        inside = [at for at in found if began <= at <= ended]
        after = min((at for at in found if at > ended), default=ended)
        points = [before, *inside, after]
        longest = max(longest, *(b - a for a, b in pairwise(points)))
    return longest


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(share * 100) // 100) - 1)]
