"""Writes the golden stream entries and control records: `python -m tests.golden.make_streams`.

What index pages, deltas, recovery objects and control records contain, inside the objects that
`make` writes. As there: a released version's files are never written anew.
"""

from __future__ import annotations

from pathlib import Path

from s3stream.control import (
    Adopted,
    Archived,
    ArchivedRanges,
    Checkpoint,
    Closing,
    Compacted,
    Control,
    Dropped,
    HandedOver,
    OpenedStream,
    Opening,
    Received,
    Report,
    ShortenedIndex,
    Trimmed,
    Uploaded,
    encode_control,
)
from s3stream.entries import (
    AbortedTransaction,
    LargeBatch,
    PageRef,
    ProducerEntry,
    StreamEntry,
    Tally,
)
from s3stream.history import digest, encode_history, summary
from s3stream.index_pages import encode_entries
from s3stream.metadata.records import BlobRef
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import LargeBatchRef

FOLDER = Path(__file__).parent / "streams_v1"
# Entries of version 2: with a history.
FOLDER_V2 = Path(__file__).parent / "streams_v2"
FOLDER_MOVES = Path(__file__).parent / "streams_moves"


def numbered(first: int) -> bytes:
    return bytes(range(first, first + 16))


REFS = [
    ObjectRef("data/5e/1-7", numbered(0), 70_000, 69_000, 952),
    ObjectRef("wal/1/12", numbered(16), 9_000, 8_500, 452),
]
BLOB = BlobRef("data/00/1-9", numbered(32), 1234)


def entries() -> list[StreamEntry]:
    full = StreamEntry(
        stream_id=42,
        epoch=6,
        appointment=(3, 17, 2),
        start_offset=105,
        next_offset=160,
        uploaded_to=150,
        ranges=[
            ObjectRange(
                REFS[0], 100, 150, 60_000, 50, 5, 4, 6, 1_750_000_000_123, 139, numbered(48)
            ),
            ObjectRange(
                REFS[1], 150, 160, 8_000, 10, 2, 6, 6, 1_750_000_000_456, 154, numbered(64)
            ),
        ],
        producers={
            9: ProducerEntry(9, 1, [(0, 4, 150, 154, 77), (5, 9, 155, 159, 78)], 78, 155, 3),
        },
        aborted=[AbortedTransaction(8, 101, 120)],
        leader_epochs=[(4, 105), (6, 140)],
        live=Tally(numbered(80), 7, 60, 68_000),
        trimmed=Tally(numbered(96), 3, 100, 9_000),
        total=Tally(numbered(112), 10, 160, 77_000),
        large=[LargeBatch(155, LargeBatchRef("data/aa/1-8", numbered(128), 5_000_000))],
        closed=True,
    )
    return [StreamEntry(7, 0, (0, 0, 0)), full]


OLDER = [
    ObjectRange(REFS[0], 40, 70, 3_000, 30, 3, 2, 2, 1_740_000_000_999, 59, numbered(1)),
    ObjectRange(REFS[1], 70, 100, 4_000, 30, 2, 2, 4, 1_740_000_000_111, 99, numbered(2)),
]
INDEX = summary(ObjectRef("data/77/1-11", numbered(160), 345, 0, 0), OLDER)


def entries_with_history() -> list[StreamEntry]:
    first, full = entries()
    full.start_offset = 65
    full.history = [INDEX]
    return [first, full]


CONTROLS: list[Control] = [
    Opening([OpenedStream(42, 6, (3, 17, 2))], 1, BLOB),
    Closing([42, 43], (3, 18, 0)),
    Dropped([44]),
    Uploaded([REFS[0]], 11, 1_749_000_000_000),
    Adopted([REFS[0]], 11, 1_749_000_000_000, [REFS[1]]),
    Trimmed([(42, 105)]),
    Compacted([REFS[1]], [REFS[0]]),
    Archived(
        [ArchivedRanges(42, 2, digest(OLDER), INDEX)], [ShortenedIndex(43, "data/78/1-2", INDEX)]
    ),
    Checkpoint(12, 11, [PageRef("data/11/1-3", numbered(144), 999, 7, 42)], b"delta", BLOB),
    Report(5, 10, ["data/5e/1-7"], BLOB),
]

# What level 2 of the cluster added; who does not know it stops at it.
CONTROLS_OF_MOVES: list[Control] = [
    HandedOver(3, [(7, 0), (42, 160)], b"entries"),
    Received([OpenedStream(42, 7, (3, 19, 0))], 1, 3, BLOB),
]


def build() -> dict[Path, bytes]:
    """What today's code writes. (Entries of version 1 are only read any more.)"""
    files = {
        FOLDER_V2 / "entries.bin": encode_entries(entries_with_history(), gone=[3, 5]),
        FOLDER_V2 / "history.bin": encode_history(42, OLDER),
    }
    for folder, controls in ((FOLDER, CONTROLS), (FOLDER_MOVES, CONTROLS_OF_MOVES)):
        for one in controls:
            files[folder / f"{type(one).__name__.lower()}.bin"] = encode_control(one)
    return files


if __name__ == "__main__":
    for path, data in build().items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
