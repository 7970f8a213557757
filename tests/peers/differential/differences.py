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
UNORDERED: frozenset[ApiKey] = frozenset({ApiKey.PRODUCE})

TRANSACTIONS = "Transactions are not served yet, and refused at once."

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        ApiKey.PRODUCE,
        ALL,
        ("responses[].partitionResponses[]",),
        TRANSACTIONS + " Kafka takes the batch, or cannot reach its transaction coordinator.",
        "transactional batch*",
    ),
    Difference(
        ApiKey.PRODUCE,
        ALL,
        ("",),
        "Kafka never answers a partition without record set; Headwater: INVALID_RECORD.",
        "null records",
    ),
    Difference(
        ApiKey.PRODUCE,
        (8, 13),
        ("responses[].partitionResponses[].recordErrors",),
        "Timestamps are judged by the batch's header, which tells the first record's and the "
        "newest only; log.validate.records=true looks at each.",
        "timestamp in the past",
    ),
    Difference(
        ApiKey.FETCH,
        ALL,
        ("responses[].partitions[].records[]",),
        "Recompressed by another build of the same codec: same records, other bytes.",
        "zstd topic before version 10",
    ),
)
