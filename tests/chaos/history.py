"""What clients were told, and when: one JSON line for each event, one file for each client.

    {"e": "acknowledged", "t": 5.25, "partition": 3, "offset": 17, "value": "rd.51", "took_s": 0.01}
    {"e": "delivered", "t": 5.3, "partition": 3, "offset": 17, "value": "rd.51"}
    {"e": "assigned", "t": 5.0, "partitions": [0, 3]}
    {"e": "committed", "t": 5.4, "partition": 3, "offset": 18}
    {"e": "error", "t": 6.0, "what": "produce", "text": "…"}
    {"e": "ended", "t": 9.0, "unanswered": 0}

t: seconds of the machine's monotonic clock, which all processes share. value: who sent it, a dot,
and a number that only grows. offset of an acknowledgement: null where the client does not know it
(its answer was lost, and the next batch proved that this one is there).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass(frozen=True)
class Acknowledged:
    at: float
    partition: int
    offset: int | None
    value: str
    took_s: float | None = None


@dataclass(frozen=True)
class Delivered:
    at: float
    partition: int
    offset: int
    value: str


@dataclass(frozen=True)
class Assigned:
    at: float
    partitions: tuple[int, ...]


@dataclass(frozen=True)
class Committed:
    """offset: the next one that the group wants."""

    at: float
    partition: int
    offset: int


@dataclass(frozen=True)
class Failed:
    """An error that an application would see. what: produce, consume, commit or end."""

    at: float
    what: str
    text: str


@dataclass
class ClientHistory:
    """In the order in which the client saw it. group: "" for a producer. spreads: it sends to every
    partition all the time; Kafka's verifiable producer fills a batch of one, then of another.
    """

    name: str
    group: str = ""
    spreads: bool = True
    acknowledged: list[Acknowledged] = field(default_factory=list)
    delivered: list[Delivered] = field(default_factory=list)
    assigned: list[Assigned] = field(default_factory=list)
    committed: list[Committed] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    has_ended: bool = False
    unanswered: int = 0


class Recorder:
    """Of one client; its callbacks may come from several threads."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def note(self, kind: str, **fields: Any) -> None:
        now = time.monotonic()
        line = json.dumps({"e": kind, "t": round(now, 4), **fields})
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()  # how far a client is is looked at while it runs


def add_events(history: ClientHistory, lines: Iterable[str]) -> None:
    """Whole lines only. Raises ValueError for what is none of these events."""
    for line in lines:
        event = json.loads(line)
        at = float(event["t"])
        match event["e"]:
            case "acknowledged":
                history.acknowledged.append(
                    Acknowledged(
                        at, event["partition"], event["offset"], event["value"], event["took_s"]
                    )
                )
            case "delivered":
                history.delivered.append(
                    Delivered(at, event["partition"], event["offset"], event["value"])
                )
            case "assigned":
                history.assigned.append(Assigned(at, tuple(event["partitions"])))
            case "committed":
                history.committed.append(Committed(at, event["partition"], event["offset"]))
            case "error":
                history.failed.append(Failed(at, event["what"], event["text"]))
            case "ended":
                history.has_ended, history.unanswered = True, event["unanswered"]
            case other:
                raise ValueError(f"{history.name}: no such event: {other}")


def java_events(lines: Iterable[str], ahead_s: float) -> Iterator[dict[str, Any]]:
    """Events of Kafka's verifiable producer and consumer (`--verbose`), as this file's.

    ahead_s: the wall clock less the monotonic one.
    """
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # a line of its log
        at = event["timestamp"] / 1000 - ahead_s
        match event["name"]:
            case "producer_send_success":
                yield {
                    "e": "acknowledged", "t": at, "partition": event["partition"],
                    "offset": event["offset"], "value": event["value"], "took_s": None,
                }  # fmt: skip
            case "producer_send_error":
                text = f"{event['exception']}: {event['message']}"
                yield {"e": "error", "t": at, "what": "produce", "text": text}
            case "record_data":
                value = event["value"]
                yield {
                    "e": "delivered", "t": at, "partition": event["partition"],
                    "offset": event["offset"], "value": value,
                }  # fmt: skip
            case "partitions_assigned":
                partitions = [one["partition"] for one in event["partitions"]]
                yield {"e": "assigned", "t": at, "partitions": partitions}
            case "offsets_committed":
                if not event["success"]:
                    yield {"e": "error", "t": at, "what": "commit", "text": event.get("error", "")}
                    continue
                for one in event["offsets"]:
                    yield {
                        "e": "committed", "t": at, "partition": one["partition"],
                        "offset": one["offset"],
                    }  # fmt: skip
            case "shutdown_complete":
                yield {"e": "ended", "t": at, "unanswered": 0}
