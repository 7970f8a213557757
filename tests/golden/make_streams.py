"""Writes the golden stream entries and control records: `python -m tests.golden.make_streams`.

What index pages, deltas, recovery objects and control records contain, inside the objects that
`make` writes. As there: a released version's files are never written anew.
"""

from __future__ import annotations

from pathlib import Path

from s3stream.control import (
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
from s3stream.index_pages import encode_entries
from s3stream.metadata.records import BlobRef
from s3stream.refs import ObjectRange, ObjectRef
from wal.format import LargeBatchRef

FOLDER = Path(__file__).parent / "streams_v1"
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


CONTROLS: list[Control] = [
    Opening([OpenedStream(42, 6, (3, 17, 2))], 1, BLOB),
    Closing([42, 43], (3, 18, 0)),
    Dropped([44]),
    Uploaded([REFS[0]], 11, 1_749_000_000_000),
    Trimmed([(42, 105)]),
    Compacted([REFS[1]], [REFS[0]]),
    Checkpoint(12, 11, [PageRef("data/11/1-3", numbered(144), 999, 7, 42)], b"delta", BLOB),
    Report(5, 10, ["data/5e/1-7"], BLOB),
]

# What level 2 of the cluster added; who does not know it stops at it.
CONTROLS_OF_MOVES: list[Control] = [
    HandedOver(3, [(7, 0), (42, 160)], b"entries"),
    Received([OpenedStream(42, 7, (3, 19, 0))], 1, 3, BLOB),
]


def build() -> dict[str, bytes]:
    """By file name."""
    return {"entries.bin": encode_entries(entries(), gone=[3, 5]), **_encoded(CONTROLS)}


def build_moves() -> dict[str, bytes]:
    return _encoded(CONTROLS_OF_MOVES)


def _encoded(controls: list[Control]) -> dict[str, bytes]:
    return {f"{type(one).__name__.lower()}.bin": encode_control(one) for one in controls}


if __name__ == "__main__":
    for folder, files in ((FOLDER, build()), (FOLDER_MOVES, build_moves())):
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
