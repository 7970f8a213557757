"""`headwater inspect`: shows an object, or what a partition's contents are, readably.

headwater inspect --store URI KEY               any key of the bucket, or a part of one to list
headwater inspect --store URI topic/partition   the chain of a partition, and its ranges
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from broker.cli import exit_status
from broker.cli.store_option import add_store_options, store_of
from broker.verify.fault import Fault
from broker.verify.metadata_walk import PartitionPlace, read_metadata
from objectstore.errors import StoreError
from objectstore.store import ObjectStore
from s3stream.control import decode_control
from s3stream.entries import PageRef
from s3stream.history import decode_history
from s3stream.index_pages import decode_entries
from s3stream.metadata.records import decode_record
from s3stream.metadata.snapshot import decode_image
from s3stream.refs import ObjectRange
from wal.format import RECORD_KINDS, Kind, ObjectIndex, RecordObject, StreamRange, parse_object
from wal.format.header import NO_CHECKPOINT, ObjectHeader, decode_header
from wal.format.read import Blob, parse_blob
from wal.keys import DATA_PREFIX, PROBE_PREFIX, WAL_PREFIX
from wal.seal import EndBody, SealBody

PREFIXES = ("meta/", WAL_PREFIX, DATA_PREFIX, PROBE_PREFIX)
LISTED_AT_MOST = 1000

_RecoveryBody = tuple[int, int, int, list[PageRef], list[PageRef], bytes, list[int]]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="headwater inspect",
        description="Show a log object, data object, index page, checkpoint, the metadata log or "
        "a partition readably.",
        allow_abbrev=False,
    )
    add_store_options(parser)
    parser.add_argument(
        "what", metavar="KEY|TOPIC/PARTITION", help="a key or the beginning of one, or a partition"
    )
    parsed = parser.parse_args(argv)

    async def run() -> None:
        store = await store_of(parsed, random.SystemRandom())
        try:
            async for line in lines_of(store, parsed.what):
                print(line)
        finally:
            await store.close()

    try:
        asyncio.run(run())
    except (Fault, StoreError, ValueError) as error:
        print(f"headwater inspect: {error}", file=sys.stderr)
        return exit_status.FAILED
    return exit_status.OK


async def lines_of(store: ObjectStore, what: str) -> AsyncIterator[str]:
    """Lines to print. Raises Fault, Corrupt, NotFound, ValueError."""
    if f"{what}/" in PREFIXES:
        what += "/"
    if not what.startswith(PREFIXES):
        for line in await _partition(store, what):
            yield line
        return
    keys = []
    async for info in store.list(what):
        keys.append(info)
        if len(keys) > LISTED_AT_MOST:
            break
    if any(info.key == what for info in keys):
        data = await store.get(what)
        for line in describe(what, data):
            yield line
        return
    if not keys:
        raise ValueError(f"{what}: no object's key begins so")
    for info in keys[:LISTED_AT_MOST]:
        yield f"{info.size_bytes:>12}  {info.key}"
    if len(keys) > LISTED_AT_MOST:
        yield f"... and more; the first {LISTED_AT_MOST} are shown"


# Partitions


async def _partition(store: ObjectStore, what: str) -> list[str]:
    from broker.verify import Chain

    topic, slash, number = what.rpartition("/")
    if not slash or not number.isdigit():
        raise ValueError(f"{what}: neither a key ({', '.join(PREFIXES)}...) nor TOPIC/PARTITION")
    metadata = await read_metadata(store)
    found: PartitionPlace | None = None
    for place in metadata.partitions.values():
        if (place.topic, place.index) == (topic, int(number)):
            found = place
    if found is None:
        raise ValueError(f"{what}: the metadata log knows no such partition")
    lines = [
        f"partition {found}   stream {found.stream_id}",
        (
            f"  leader: incarnation {found.leader}, epoch {found.epoch}, appointed by "
            f"{tuple(found.appointment)}"
        ),
        (
            f"  source: {'none' if found.source is None else f'incarnation {found.source}'}"
            f"{', never opened' if found.is_new else ''}"
        ),
    ]
    view = await Chain(store, metadata).view(found)
    if view is None:
        return [*lines, "  empty"]
    lines += [
        f"  offsets {view.start_offset} to {view.next_offset}, uploaded to {view.uploaded_to}",
        (
            f"  total {view.total.batches} batches, {view.total.records} records, "
            f"{view.total.size_bytes} bytes; trimmed {view.trimmed.batches} batches"
        ),
    ]
    for one in view.ranges:
        of_log = one.object.key.startswith(WAL_PREFIX)
        adopted = ", adopted" if of_log and one.end_offset <= view.uploaded_to else ""
        lines.append(f"  {_object_range(one)}{adopted}")
    return lines


def _object_range(one: ObjectRange) -> str:
    return (
        f"{one.base_offset}..{one.end_offset} {one.batch_count} batches {one.size_bytes} bytes "
        f"epoch {one.first_leader_epoch} in {one.object.key}"
    )


# Objects


def describe(key: str, data: bytes) -> Iterator[str]:
    """One object, as far as it is one of ours. Raises Corrupt naming the key."""
    header = decode_header(data, key)
    yield f"{key}   {len(data)} bytes"
    yield from _header(header)
    if header.kind in RECORD_KINDS:
        yield from _record_object(key, parse_object(data, key))
    elif header.kind is Kind.PROBE:
        yield "a test of the store"
    else:
        yield from _blob(key, parse_blob(data, key))


def _header(header: ObjectHeader) -> Iterator[str]:
    checkpoint = "none" if header.checkpoint == NO_CHECKPOINT else str(header.checkpoint)
    yield f"{header.kind.name}   write id {header.write_id.hex()}"
    yield f"maker {header.log_id}   number {header.seq}"
    if header.kind is Kind.LOG:
        yield (
            f"trim {header.trim}   durable {header.durable}   checkpoint {checkpoint}   "
            f"window {header.window}"
        )


def _record_object(key: str, found: RecordObject) -> Iterator[str]:
    index: ObjectIndex = found.index
    for number, block in enumerate(index.blocks):
        yield f"block {number}: at {block.position}, {block.size} bytes, crc {block.crc:08x}"
    for record in index.controls:
        if key.startswith("meta/"):
            yield from _tree("record", decode_record(record, key))
        else:
            yield from _tree("control", decode_control(record, key))
    for one in index.ranges:
        yield _stream_range(one)
        for update in one.producers:
            yield f"    producer {update.producer_id} epoch {update.epoch}: {update.batches}"
        for marker in one.markers:
            end = "commit" if marker.commit else "abort"
            yield f"    {end} of producer {marker.producer_id} at {marker.offset}"


def _stream_range(one: StreamRange) -> str:
    place = f"block {one.block} at {one.position}"
    if one.reference is not None:
        place = f"in {one.reference.key}"
    return (
        f"stream {one.stream_id}: {one.base_offset}..{one.end_offset} epoch {one.leader_epoch}, "
        f"{one.batch_count} batches, {one.record_count} records, {one.size_bytes} bytes, {place}, "
        f"newest {one.max_timestamp} at {one.max_timestamp_offset}, sum {one.sum.hex()}"
    )


def _blob(key: str, blob: Blob) -> Iterator[str]:
    match blob.header.kind:
        case Kind.SEAL:
            yield from _tree("seal", msgspec.msgpack.decode(blob.body, type=SealBody))
        case Kind.END:
            yield from _tree("end", msgspec.msgpack.decode(blob.body, type=EndBody))
        case Kind.SNAPSHOT:
            yield from _snapshot(key, blob.body)
        case Kind.REPORT:
            yield from msgspec.msgpack.decode(blob.body, type=list[str])
        case Kind.HISTORY:
            stream_id, ranges = decode_history(blob.body, key)
            yield f"stream {stream_id}: older ranges"
            yield from (f"    {_object_range(one)}" for one in ranges)
        case Kind.RECOVERY:
            yield from _recovery(key, blob.body)
        case _:
            yield from _entries(key, blob.body)


def _recovery(key: str, body: memoryview) -> Iterator[str]:
    try:
        _, incarnation, end, pages, parts, inline, gone = msgspec.msgpack.decode(
            body, type=_RecoveryBody
        )
    except msgspec.MsgspecError:
        yield from _entries(key, body)  # one of the parts that a recovery object names
        return
    yield f"what the log of incarnation {incarnation} held, which ends at {end}"
    for page in [*pages, *parts]:
        yield f"streams {page.low} to {page.high} in {page.key}"
    yield from _entries(key, inline)
    if gone:
        yield f"gone: {gone}"


def _entries(key: str, body: bytes | memoryview) -> Iterator[str]:
    entries, gone = decode_entries(body, key)
    for entry in entries:
        state = "closed" if entry.closed else "open"
        yield (
            f"stream {entry.stream_id}: {state}, epoch {entry.epoch}, offsets "
            f"{entry.start_offset} to {entry.next_offset}, uploaded to {entry.uploaded_to}, "
            f"{len(entry.producers)} producers, {entry.live.batch_count} batches live, "
            f"{entry.trimmed.batch_count} trimmed"
        )
        for index in entry.history:
            yield f"    {_object_range(index)}, an index of older ranges"
        for one in entry.ranges:
            yield f"    {_object_range(one)}"
    if gone:
        yield f"gone: {gone}"


def _snapshot(key: str, body: memoryview) -> Iterator[str]:
    image = decode_image(body, key)
    yield f"cluster {image.cluster_id} as of {tuple(image.position)}"
    for node_id in sorted(image.brokers):
        yield from _tree(f"node {node_id}", image.brokers[node_id])
    for incarnation in sorted(image.incarnations):
        yield from _tree(f"incarnation {incarnation}", image.incarnations[incarnation])
    for name in sorted(image.topics):
        topic = image.topics[name]
        yield f"topic {name} {topic.topic_id} {topic.configs}"
        for one in topic.partitions:
            yield (
                f"    {one.index}: stream {one.stream_id}, leader {one.leader}, epoch "
                f"{one.leader_epoch}, source {one.source}"
            )


def _tree(name: str, value: Any) -> Iterator[str]:
    """A struct as its fields; bytes in hex."""
    if isinstance(value, msgspec.Struct):
        yield f"{name}: {type(value).__name__}"
        for field in value.__struct_fields__:
            yield from (f"    {line}" for line in _tree(field, getattr(value, field)))
    elif isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
        yield f"{name}:"
        for one in value:
            yield from (f"    {line}" for line in _tree("-", one))
    elif isinstance(value, bytes | memoryview):
        data = bytes(value)
        yield f"{name}: {data.hex() if len(data) <= 64 else f'{len(data)} bytes'}"
    else:
        yield f"{name}: {value}"
