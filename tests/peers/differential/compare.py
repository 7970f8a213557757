"""Two runs of the same scripts, answer by answer."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .comparable import Names
from .differences import DIFFERENCES, UNORDERED, Difference
from .session import SCRIPTS, Exchange, Session


@dataclass(frozen=True)
class Finding:
    """One place in one answer where Headwater says something else."""

    exchange: Exchange
    path: str
    kafka: Any
    headwater: Any

    def __str__(self) -> str:
        told = self.exchange
        return (
            f"{told.script}: {told.api_name} v{told.version} "
            f"[{told.case or 'valid request'}] {self.path}:\n"
            f"    Kafka     {_short(self.kafka)}\n    Headwater {_short(self.headwater)}"
        )


@dataclass(frozen=True)
class Comparison:
    """exchanges: Kafka's, in order. used: which documented differences were met."""

    exchanges: list[Exchange]
    findings: list[Finding]
    used: frozenset[Difference]


def run_script(name: str, port: int, run: str) -> list[Exchange]:
    """Raises whatever stopped the script, with the peer's exchanges up to there lost."""
    session = Session(port, name, run, Names(port))
    try:
        SCRIPTS[name](session)
        return session.exchanges
    finally:
        session.close()


def compare(kafka: list[Exchange], headwater: list[Exchange]) -> Comparison:
    findings: list[Finding] = []
    used: set[Difference] = set()
    ours = {_key(each): each for each in headwater}
    assert len(ours) == len(headwater), "two exchanges of one name"
    for told in kafka:
        other = ours.pop(_key(told), None)
        if other is None:
            findings.append(Finding(told, "", told.answer, "never asked"))
            continue
        keep_order = told.api not in UNORDERED
        left, right = told.answer, other.answer
        if not keep_order:
            left, right = _sorted(left), _sorted(right)
        for path, ours_says, kafka_says in _differences(right, left, ""):
            finding = Finding(told, path, kafka_says, ours_says)
            known = [each for each in DIFFERENCES if _covers(each, finding)]
            used.update(known)
            if not known:
                findings.append(finding)
    findings.extend(Finding(each, "", "never asked", each.answer) for each in ours.values())
    return Comparison(kafka, findings, frozenset(used))


def _key(told: Exchange) -> tuple[str, str, int, str]:
    return told.script, told.api_name, told.version, told.case


def _covers(known: Difference, finding: Finding) -> bool:
    told = finding.exchange
    first, last = known.versions
    return (
        (known.api is None or known.api == told.api)
        and first <= told.version <= last
        and fnmatch.fnmatchcase(told.case, known.case)
        and any(finding.path == p or finding.path.startswith(p + ".") for p in known.paths)
    )


def _differences(ours: Any, kafka: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, ours, Kafka's) of every leaf that differs; [] stands for all places of a list."""
    if isinstance(ours, dict) and isinstance(kafka, dict) and set(ours) == set(kafka):
        for key, value in kafka.items():
            yield from _differences(ours[key], value, f"{path}.{key}" if path else key)
    elif isinstance(ours, list) and isinstance(kafka, list) and len(ours) == len(kafka):
        for one, other in zip(ours, kafka, strict=True):
            yield from _differences(one, other, path + "[]")
    elif type(ours) is not type(kafka) or ours != kafka:
        yield path, ours, kafka


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(part) for key, part in value.items()}
    if isinstance(value, list):
        return sorted((_sorted(part) for part in value), key=_identity)
    return value


def _identity(value: Any) -> str:
    """What an element is called before what is said of it, so that a difference stays small."""
    if not isinstance(value, dict):
        return repr(value)
    first = [k for k in value if re.search("name|topic|index|group|member|feature|key", k, re.I)]
    return repr([(k, value[k]) for k in first] + list(value.items()))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 700 else f"{text[:700]}... ({len(text)} characters)"
