"""Where Headwater's answers are meant to differ from Apache Kafka's, and why.

`docs/compatibility.md` is made from this table; an entry that no request meets fails the test.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.api_versions import ApiKey

ALL = (0, 99)


@dataclass(frozen=True)
class Difference:
    """paths: fields of the answer, with all that is in them; [] stands for every element.

    api: None for all. case: a pattern over the names of the cases.
    """

    api: ApiKey | None
    versions: tuple[int, int]
    paths: tuple[str, ...]
    reason: str
    case: str = "*"


# Apache Kafka answers these from hash maps, in an order that says nothing.
UNORDERED: frozenset[ApiKey] = frozenset()

DIFFERENCES: tuple[Difference, ...] = ()
