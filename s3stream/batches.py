"""Batches read back from objects, as the entries that an object is composed of."""

from __future__ import annotations

from msgspec.structs import replace

from objectstore.errors import Corrupt
from protocol.control_batch import MarkerType, decode_marker
from protocol.record_batch import BatchHeader, iter_headers
from wal.format import BatchEntry, ControlMarker


def entries_of(stream_id: int, batches: memoryview, where: str) -> list[BatchEntry]:
    """batches: one or more whole batches with base offset and leader epoch set.

    where: for the error. Raises Corrupt: what is there is no run of batches.
    """
    try:
        return [
            entry_of(stream_id, batches[position : position + header.size_bytes], header)
            for position, header in iter_headers(batches)
        ]
    except ValueError as error:
        raise Corrupt(f"{where}: stream {stream_id}: {error}") from error


def entry_of(stream_id: int, batch: memoryview, header: BatchHeader) -> BatchEntry:
    """timestamp_ms is the batch's own: when the broker got it is in its stream's state only."""
    return BatchEntry(
        stream_id,
        header.base_offset,
        header.last_offset,
        header.leader_epoch,
        header.record_count,
        header.max_timestamp,
        header.size_bytes,
        header.crc,
        header.producer_id,
        header.producer_epoch,
        header.base_sequence,
        header.is_transactional,
        _marker(batch) if header.is_control else None,
        batch,
        header.max_timestamp,
    )


def in_line(entry: BatchEntry) -> BatchEntry:
    """For an object that takes the batch itself, where the log only referred to it."""
    return entry if entry.reference is None else replace(entry, reference=None)


def _marker(batch: memoryview) -> ControlMarker | None:
    marker = decode_marker(batch)
    if marker is None:
        return None
    return ControlMarker(
        marker.offset,
        marker.producer_id,
        marker.producer_epoch,
        marker.coordinator_epoch,
        marker.type == MarkerType.COMMIT,
        -1,
    )
