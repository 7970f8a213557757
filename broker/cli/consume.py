"""`headwater consume TOPIC`: records to stdout, one a line."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from . import exit_status
from .client import guarded


def run(parsed: argparse.Namespace) -> int:
    return guarded("consume", lambda: _run(parsed))


def _run(parsed: argparse.Namespace) -> int:
    if parsed.offset is not None and parsed.partition is None:
        raise ValueError("--offset counts in one partition: add --partition N")
    if parsed.group is not None and parsed.partition is not None:
        raise ValueError("a group gives out partitions itself: leave out --partition")
    consumer = KafkaConsumer(
        bootstrap_servers=parsed.bootstrap,
        client_id="headwater-consume",
        group_id=parsed.group,
        auto_offset_reset="earliest" if parsed.from_beginning else "latest",
        enable_auto_commit=parsed.group is not None,
    )
    try:
        if parsed.group is not None:
            consumer.subscribe([parsed.topic])
            ends: dict[TopicPartition, int] = {}
        else:
            ends = _assign(consumer, parsed)
        _print_records(consumer, parsed, ends)
    except KeyboardInterrupt:
        pass  # how one ends it
    finally:
        consumer.close()
    return exit_status.OK


def _assign(consumer: Any, parsed: argparse.Namespace) -> dict[TopicPartition, int]:
    """Where each partition ends now. Raises ValueError for what is not there."""
    numbers = consumer.partitions_for_topic(parsed.topic)
    if not numbers:
        raise ValueError(f"there is no topic {parsed.topic}")
    if parsed.partition is not None:
        if parsed.partition not in numbers:
            raise ValueError(f"{parsed.topic} has no partition {parsed.partition}")
        numbers = {parsed.partition}
    partitions = [TopicPartition(parsed.topic, number) for number in sorted(numbers)]
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    if parsed.offset is not None:
        consumer.seek(partitions[0], parsed.offset)
    elif parsed.from_beginning:
        consumer.seek_to_beginning(*partitions)
    else:
        for partition in partitions:
            consumer.seek(partition, ends[partition])
    return dict(ends)


def _print_records(
    consumer: Any, parsed: argparse.Namespace, ends: dict[TopicPartition, int]
) -> None:
    printed = 0
    while not (parsed.exit_at_end and _at_end(consumer, ends)):
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                if parsed.exit_at_end and record.offset >= ends.get(
                    TopicPartition(record.topic, record.partition), sys.maxsize
                ):
                    continue
                print(_line(record, parsed))
                printed += 1
                if printed == parsed.max:
                    sys.stdout.flush()
                    return
        sys.stdout.flush()


def _at_end(consumer: Any, ends: dict[TopicPartition, int]) -> bool:
    if not ends:
        raise ValueError("--exit-at-end and --group do not go together: a group has no one end")
    return all(consumer.position(partition) >= end for partition, end in ends.items())


def _line(record: Any, parsed: argparse.Namespace) -> str:
    parts = []
    if parsed.offsets:
        parts.append(f"{record.partition}:{record.offset}")
    if parsed.timestamps:
        parts.append(str(record.timestamp))
    if parsed.headers:
        parts.append(",".join(f"{name}={_text(value)}" for name, value in record.headers) or "-")
    if parsed.keys:
        parts.append(_text(record.key))
    parts.append(_text(record.value))
    return "\t".join(parts)


def _text(data: bytes | None) -> str:
    return "null" if data is None else data.decode("utf-8", "backslashreplace")
