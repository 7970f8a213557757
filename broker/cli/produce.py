"""`headwater produce TOPIC`: one record for each line of stdin."""

from __future__ import annotations

import argparse
import sys

from kafka import KafkaProducer

from . import exit_status
from .client import guarded, pairs

IN_FLIGHT_RECORDS = 10_000


def run(parsed: argparse.Namespace) -> int:
    return guarded("produce", lambda: _run(parsed))


def _run(parsed: argparse.Namespace) -> int:
    headers = [(name, value.encode()) for name, value in pairs("--header", parsed.header)]
    separator = parsed.key_separator.encode() if parsed.key_separator else None
    compression = None if parsed.compression == "none" else parsed.compression
    producer = KafkaProducer(
        bootstrap_servers=parsed.bootstrap,
        client_id="headwater-produce",
        compression_type=compression,
        linger_ms=5,
    )
    sent = 0
    waiting = []
    try:
        for line in sys.stdin.buffer:
            key, value = _split(line.rstrip(b"\r\n"), separator)
            waiting.append(
                producer.send(
                    parsed.topic, value, key=key, headers=headers, partition=parsed.partition
                )
            )
            if len(waiting) == IN_FLIGHT_RECORDS:
                sent += _await_all(waiting)
        producer.flush()
        sent += _await_all(waiting)
    finally:
        producer.close()
    print(f"{sent} record{' is' if sent == 1 else 's are'} acknowledged", file=sys.stderr)
    return exit_status.OK


def _split(line: bytes, separator: bytes | None) -> tuple[bytes | None, bytes]:
    """(key, value). Raises ValueError where a line has no key but should."""
    if separator is None:
        return None, line
    key, found, value = line.partition(separator)
    if not found:
        raise ValueError(f"a line without {separator.decode()!r}: {line[:80]!r}")
    return key, value


def _await_all(waiting: list) -> int:  # type: ignore[type-arg]
    for future in waiting:
        future.get(timeout=60)
    count = len(waiting)
    waiting.clear()
    return count
