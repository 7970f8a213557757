"""docs/compatibility.md, made from a run: what was asked, and what differs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from protocol.api_versions import SERVED, ApiKey
from protocol.errors import ErrorCode

from .differences import DIFFERENCES, UNORDERED, Difference
from .peer import schema_name
from .session import Exchange

PATH = Path(__file__).parents[3] / "docs" / "compatibility.md"

_HEAD = """\
# Compatibility with Apache Kafka 4.3.1

Made by `make test-peers` (`python -m tests.peers.differential --write`); not to be edited.

The same requests go to Headwater and to a real Apache Kafka 4.3.1, byte for byte, for every API
and every version that is served: valid ones, and one for each error that one broker can answer.
The answers are equal in every field but ids, times, addresses and throttling, and the differences
listed below. The test fails on any other difference, on a listed one that is no longer there, and
when this page is stale.

The versions served are those that Apache Kafka serves. Produce 0-2 are advertised and refused, as
Kafka does it, since older clients take the range for a sign that compression is known.
"""

_UNORDERED_HEAD = """
## Order

Apache Kafka answers these from hash maps, so the order of topics, partitions and groups says
nothing there and is not compared:
"""


def counts(exchanges: Iterable[Exchange]) -> list[tuple[str, str, int, int, str]]:
    """By API: name, versions, valid requests, refused requests, error codes met."""
    told = list(exchanges)
    rows = []
    for api, (oldest, newest) in sorted(SERVED.items()):
        mine = [each for each in told if each.api == api]
        rows.append(_row(schema_name(api), f"{oldest}-{newest}", mine))
    rows.append(_row("(frames that are no request)", "", [e for e in told if e.api is None]))
    return rows


def _row(name: str, versions: str, told: list[Exchange]) -> tuple[str, str, int, int, str]:
    codes = sorted({code for each in told for code in each.codes})
    refused = sum(each.is_error for each in told)
    names = ", ".join(ErrorCode(code).name for code in codes)
    if any(each.is_error and not each.codes for each in told):
        names += ", connection closed" if names else "connection closed"
    return name, versions, len(told) - refused, refused, names


def render(exchanges: list[Exchange]) -> str:
    lines = [_HEAD, "## What is asked", ""]
    lines += ["| API | Versions | Valid requests | Refused requests | Errors met |"]
    lines += ["| --- | --- | ---: | ---: | --- |"]
    rows = counts(exchanges)
    lines += [f"| {name} | {v} | {good} | {bad} | {codes} |" for name, v, good, bad, codes in rows]
    good, bad = sum(row[2] for row in rows), sum(row[3] for row in rows)
    lines += [f"| all | | {good} | {bad} | |", "", "## What differs", ""]
    lines += ["| API | Versions | Where | When | Why |", "| --- | --- | --- | --- | --- |"]
    for each in sorted(DIFFERENCES, key=_order):
        lines.append(_difference(each))
    lines += [_UNORDERED_HEAD, ", ".join(schema_name(api) for api in sorted(UNORDERED)) + "."]
    missing = [api for api in ApiKey if api not in SERVED]
    lines += ["", "## Not served", "", "These keys are neither advertised nor answered:", ""]
    lines += [", ".join(f"{schema_name(api)} ({int(api)})" for api in missing) + "."]
    return "\n".join(lines) + "\n"


def _order(each: Difference) -> tuple[int, str]:
    return -1 if each.api is None else int(each.api), each.case


def _difference(each: Difference) -> str:
    name = "all" if each.api is None else schema_name(each.api)
    first, last = each.versions
    if each.api is not None:
        oldest, newest = SERVED[each.api]
        first, last = max(first, oldest), min(last, newest)
    versions = f"{first}-{last}" if first < last else str(first)
    where = ", ".join(f"`{path}`" if path else "the whole answer" for path in each.paths)
    when = "always" if each.case == "*" else each.case or "valid request"
    when = when.replace("*", "…")
    return f"| {name} | {versions} | {where} | {when} | {each.reason} |"
