"""Writes the golden objects of the current format version: `python -m tests.golden.make`.

Each is made of fixed inputs, so that running this again changes no byte unless the format
changed. A released version's files are never written anew: a format change gets a version number,
a folder of its own, and readers of all the older ones.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from objectstore.store import Buffer
from wal.format import (
    BatchEntry,
    ControlMarker,
    Kind,
    LargeBatchRef,
    compose,
    compose_blob,
)
from wal.seal import EndBody, SealBody

FOLDER = Path(__file__).parent / "v1"
RECORDS = (Kind.LOG, Kind.DATA, Kind.MERGED, Kind.BATCH)
BLOBS = (Kind.PAGE, Kind.RECOVERY, Kind.SNAPSHOT, Kind.REPORT, Kind.PROBE, Kind.DELTA, Kind.HISTORY)


def write_id(kind: Kind) -> bytes:
    return bytes(range(16 * kind % 240, 16 * kind % 240 + 16))


def entry(
    stream_id: int,
    base_offset: int,
    count: int,
    size: int,
    *,
    epoch: int = 3,
    producer: tuple[int, int, int] = (-1, -1, -1),
    transactional: bool = False,
    marker: ControlMarker | None = None,
    reference: LargeBatchRef | None = None,
) -> BatchEntry:
    """producer: id, epoch, base sequence."""
    data = bytes((stream_id + base_offset + i) % 251 for i in range(size))
    stamp = 1_750_000_000_000 + base_offset
    return BatchEntry(
        stream_id,
        base_offset,
        base_offset + count - 1,
        epoch,
        count,
        stamp,
        size,
        (stream_id * 7919 + base_offset) % 2**32,
        *producer,
        transactional,
        marker,
        memoryview(b"" if reference else data),
        stamp,
        reference,
    )


def entries() -> list[BatchEntry]:
    """Two streams; producers with and without transactions; epochs that change; a reference."""
    return [
        entry(9, 100, 5, 300, producer=(4000, 0, 0)),
        entry(2, 0, 1, 70),
        entry(9, 105, 2, 120, producer=(4000, 0, 5)),
        entry(9, 107, 3, 90, producer=(4001, 2, 0), transactional=True),
        entry(
            9, 110, 1, 78, producer=(4001, 2, -1), marker=ControlMarker(110, 4001, 2, 1, True, 107)
        ),
        entry(9, 111, 1, 80, producer=(4001, 3, 0), transactional=True),
        entry(9, 112, 4, 100, epoch=4),
        entry(2, 1, 1000, 2_000, producer=(7, 0, 2**31 - 10)),
        entry(2, 1001, 1, 71),
        entry(
            5,
            40,
            2,
            5_000_000,
            reference=LargeBatchRef("data/ab/large", bytes(range(16)), 5_000_300),
        ),
    ]


def build(kind: Kind) -> bytes:
    chunks: list[Buffer]
    if kind in RECORDS:
        chunks, _, _ = compose(
            kind, 17, 12, 4, 10, 9, 16, write_id(kind), entries(), [b"control one", b""]
        )
    elif kind is Kind.SEAL:
        body = msgspec.msgpack.encode(SealBody(b"process 18", 12))
        chunks, _ = compose_blob(kind, 17, 13, write_id(kind), body, window=16)
    elif kind is Kind.END:
        body = msgspec.msgpack.encode(EndBody(13, b"process 18", b"info"))
        chunks, _ = compose_blob(kind, 17, 13, write_id(kind), body, window=16)
    else:
        chunks, _ = compose_blob(kind, 17, 5, write_id(kind), b"blob of " + kind.name.encode())
    return b"".join(chunks)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for kind in Kind:
        (FOLDER / f"{kind.name.lower()}.bin").write_bytes(build(kind))


if __name__ == "__main__":
    main()
