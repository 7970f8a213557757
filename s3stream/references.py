"""Which objects an incarnation refers to, and has referred to since its last report.

A round of deletion (PROTOCOL 9) must hear of everything that was held at any moment since the last
report: an object that was handed from one holder to another between two reports would else be
named by neither. So a key whose last reference goes is kept until a report that names it is
durable.
"""

from __future__ import annotations

from collections.abc import Iterable

from wal.keys import parse_data_key

from .refs import ObjectRange


class References:
    """Counted references by key."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        # Key -> number of the report that was under way, or next, when its last reference went.
        self._released: dict[str, int] = {}
        self._reports = 0
        # Index objects of histories, by stream: what they name is held by them.
        self._histories: dict[str, tuple[int, ObjectRange]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._counts

    def hold(self, key: str) -> None:
        self._counts[key] = self._counts.get(key, 0) + 1

    def release(self, key: str) -> None:
        left = self._counts[key] - 1
        if left:
            self._counts[key] = left
            return
        del self._counts[key]
        self._released[key] = self._reports

    def hold_all(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.hold(key)

    def count(self, key: str) -> int:
        """How often it is referred to."""
        return self._counts.get(key, 0)

    def hold_history(self, stream_id: int, index: ObjectRange) -> None:
        self._histories[index.object.key] = (stream_id, index)
        self.hold(index.object.key)

    def histories(self, keys: Iterable[str]) -> list[tuple[int, ObjectRange]]:
        """Those among the keys that are index objects of a history, with their streams."""
        return [self._histories[key] for key in keys if key in self._histories]

    def release_all(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.release(key)

    def held(self) -> set[str]:
        """Referred to now."""
        return set(self._counts)

    def begin_report(self) -> tuple[int, set[str]]:
        """(number, keys): what a report written from now on must name."""
        number = self._reports
        self._reports += 1
        return number, set(self._counts) | set(self._released)

    def report_durable(self, number: int) -> None:
        """The report with that number counts: what was released before it began is forgotten."""
        self._released = {key: at for key, at in self._released.items() if at > number}
        for key in [one for one in self._histories if one not in self._counts]:
            if key not in self._released:
                del self._histories[key]


class ObjectNumbers:
    """Numbers of the objects that this incarnation makes: drawn before the first byte is sent.

    A number is settled once its object is referred to by a durable record, or given up.
    """

    def __init__(self, first: int = 0, *, incarnation: int = 0) -> None:
        self.incarnation = incarnation
        self._next = first
        self._unsettled: dict[int, None] = {}

    def draw(self) -> int:
        number = self._next
        self._next += 1
        self._unsettled[number] = None
        return number

    def settle(self, numbers: Iterable[int]) -> None:
        """Those settled already are passed by."""
        for number in numbers:
            self._unsettled.pop(number, None)

    def settle_keys(self, keys: Iterable[str]) -> None:
        """As `settle`, by the objects' keys; those of other makers are passed by."""
        for key in keys:
            parsed = parse_data_key(key)
            if parsed is not None and parsed[0] == self.incarnation:
                self._unsettled.pop(parsed[1], None)

    @property
    def lowest_unsettled(self) -> int:
        """Every number below is settled; numbers are drawn in order, so the first is the lowest."""
        return next(iter(self._unsettled), self._next)
