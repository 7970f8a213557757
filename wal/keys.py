"""Names of objects in the bucket (without the store's own prefix).

All numbers are written with 20 digits, so that byte order is numeric order:

    meta/<term>/<seq>                      one record group of the metadata log
    meta/<term>/end                        where that log ends
    meta/snapshot/<term>-<seq>             image of everything up to there
    wal/<incarnation>/<seq>                one object of a broker's write-ahead log
    wal/<incarnation>/end                  where that log ends
    data/<hash>/<incarnation>-<n>          uploads, index pages, merged objects, large batches
    probe/<random>                         tests of the store

`<hash>` is two hex digits, so that a store that limits requests per prefix can spread them.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from random import Random
from typing import Literal, NamedTuple

DIGITS = 20
MAX_NUMBER = 2**64 - 1

_NUMBER = re.compile(r"[0-9]{20}")
_DATA = re.compile(r"data/([0-9a-f]{2})/([0-9]{20})-([0-9]{20})")
_SNAPSHOT = re.compile(r"meta/snapshot/([0-9]{20})-([0-9]{20})")

DATA_PREFIX = "data/"
WAL_PREFIX = "wal/"
PROBE_PREFIX = "probe/"
SNAPSHOT_PREFIX = "meta/snapshot/"


def number(value: int) -> str:
    """20 digits."""
    assert 0 <= value <= MAX_NUMBER, value
    return f"{value:020d}"


class LogName(NamedTuple):
    """One log: a broker incarnation's (`wal`) or a controller term's (`meta`)."""

    family: Literal["wal", "meta"]
    log_id: int

    @property
    def prefix(self) -> str:
        return f"{self.family}/{number(self.log_id)}/"

    @property
    def end_key(self) -> str:
        return f"{self.prefix}end"

    def key(self, seq: int) -> str:
        return f"{self.prefix}{number(seq)}"

    def seq_of(self, key: str) -> int | None:
        """The sequence number of an object of this log; None for `end` and foreign names."""
        prefix = self.prefix
        if not key.startswith(prefix):
            return None
        return _parse_number(key[len(prefix) :])

    def __str__(self) -> str:
        return f"{self.family}/{self.log_id}"


def wal_log(incarnation: int) -> LogName:
    return LogName("wal", incarnation)


def meta_log(term: int) -> LogName:
    return LogName("meta", term)


def parse_log(key: str) -> LogName | None:
    """The log that a key belongs to, its `end` included; None for any other key."""
    parts = key.split("/")
    if len(parts) != 3 or (parts[2] != "end" and _parse_number(parts[2]) is None):
        return None
    log_id = _parse_number(parts[1])
    if log_id is None:
        return None
    if parts[0] == "wal":
        return LogName("wal", log_id)
    return LogName("meta", log_id) if parts[0] == "meta" else None


def snapshot_key(term: int, seq: int) -> str:
    return f"{SNAPSHOT_PREFIX}{number(term)}-{number(seq)}"


def parse_snapshot_key(key: str) -> tuple[int, int] | None:
    """(term, seq)."""
    return _parse_pair(_SNAPSHOT.fullmatch(key), 1)


def data_key(incarnation: int, n: int) -> str:
    """n: the incarnation's own count of objects, drawn before the first byte is sent."""
    name = f"{number(incarnation)}-{number(n)}"
    return f"{DATA_PREFIX}{_spread(name)}/{name}"


def parse_data_key(key: str) -> tuple[int, int] | None:
    """(incarnation, n)."""
    return _parse_pair(_DATA.fullmatch(key), 2)


def probe_key(rng: Random) -> str:
    return f"{PROBE_PREFIX}{rng.randbytes(16).hex()}"


def _spread(name: str) -> str:
    return blake2b(name.encode(), digest_size=1).hexdigest()


def _parse_number(text: str) -> int | None:
    if _NUMBER.fullmatch(text) is None:
        return None
    value = int(text)
    return value if value <= MAX_NUMBER else None


def _parse_pair(match: re.Match[str] | None, first_group: int) -> tuple[int, int] | None:
    if match is None:
        return None
    left, right = int(match[first_group]), int(match[first_group + 1])
    return (left, right) if max(left, right) <= MAX_NUMBER else None
