"""Answers without what can never be equal: ids given out at random, times, ports, throttling."""

from __future__ import annotations

import base64
import time
from typing import Any
from uuid import UUID

from protocol.record_batch import HEADER_SIZE, LOG_APPEND_TIME, parse_header

from .schema import Values

_DAY_MS = 86_400_000
_NO_ID = UUID(int=0)
# Wall clock times: whether it is one of today is compared, not which.
_TIMES = frozenset(
    {"lastTimestamp", "lastFetchTimestamp", "lastCaughtUpTimestamp", "logAppendTimeMs"}
)
# Every number that names a thing of the peer's own choice.
_NUMBERED = frozenset({"sessionId", "finalizedFeaturesEpoch"})


class Names:
    """What a peer's own ids mean, so that both sides' answers say the same."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._words: dict[str, str] = {f"127.0.0.1:{port}": "the broker"}
        # Of producers whose ids a script chose itself.
        self.producer_ids: set[int] = set()
        self._ids: dict[UUID, str] = {}
        self._numbers: dict[tuple[str, int], str] = {}

    def learn(self, topic_id: UUID, meaning: str) -> None:
        self._ids[topic_id] = meaning
        short = base64.urlsafe_b64encode(topic_id.bytes).decode().rstrip("=")
        self._words[short] = meaning

    def learn_word(self, word: str, meaning: str) -> None:
        """For a member id, the cluster's id and the like, wherever it appears in a text."""
        if word:
            self._words.setdefault(word, meaning)

    def topic_id(self, topic_id: UUID) -> str:
        return "none" if topic_id == _NO_ID else self._ids.get(topic_id, f"id {topic_id}")

    def word(self, text: str) -> str:
        for word, meaning in self._words.items():
            if word in text:
                text = text.replace(word, f"<{meaning}>")
        return text

    def number(self, kind: str, value: int) -> Any:
        """The first, second, ... of its kind that this script saw."""
        if (value <= 0 and kind == "sessionId") or value < 0:
            return value
        seen = [k for k in self._numbers if k[0] == kind]
        return self._numbers.setdefault((kind, value), f"{kind} {len(seen) + 1}")


def comparable(answer: Values, names: Names) -> Values:
    shown: Values = {}
    for key, value in answer.items():
        if key == "throttleTimeMs":
            continue
        shown[key] = _value(key, value, names)
    return shown


def error_codes(answer: Any) -> tuple[int, ...]:
    """All error codes in an answer but 0, ascending, each once."""
    found: set[int] = set()
    _collect(answer, found)
    return tuple(sorted(found))


def _collect(value: Any, found: set[int]) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "errorCode" and part:
                found.add(part)
            _collect(part, found)
    elif isinstance(value, list):
        for part in value:
            _collect(part, found)


def _value(key: str, value: Any, names: Names) -> Any:
    if isinstance(value, dict):
        return comparable(value, names)
    if isinstance(value, list):
        return [_value(key, part, names) for part in value]
    if isinstance(value, UUID):
        return names.topic_id(value)
    if key == "records":
        return _records(value, names)
    if isinstance(value, str):
        return names.word(value)
    if key == "producerId" and value >= 0:
        return value if value in names.producer_ids else "an id"
    if key in _NUMBERED:
        return names.number(key, value)
    if key in _TIMES and abs(value - time.time() * 1000) < _DAY_MS:
        return "a time"
    if key == "port" and value == names.port:
        return "the port"
    return value


def _records(data: bytes | None, names: Names) -> Any:
    """Every batch by its header and content; a cut one at the end by that fact alone."""
    if data is None:
        return None
    batches: list[Values] = []
    view = memoryview(data)
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 8 : at + 12], "big") + 12
        if at + size > len(data):
            batches.append({"cut": True})
            break
        header = parse_header(view[at : at + size])
        stamped = header.timestamp_type == LOG_APPEND_TIME
        batches.append(
            {
                "baseOffset": header.base_offset,
                "sizeBytes": header.size_bytes,
                "leaderEpoch": header.leader_epoch,
                "attributes": header.attributes,
                "lastOffsetDelta": header.last_offset_delta,
                "baseTimestamp": header.base_timestamp,
                "maxTimestamp": "a time" if stamped else header.max_timestamp,
                "crc": "any" if stamped or header.producer_id >= 0 else header.crc,
                "producerId": header.producer_id,
                "producerEpoch": header.producer_epoch,
                "baseSequence": header.base_sequence,
                "content": data[at + HEADER_SIZE : at + size].hex(),
            }
        )
        at += size
    return batches
