"""Writes the golden metadata records and snapshots: `python -m tests.golden.make_metadata`.

As in `make`: a released version's files are never written anew. `snapshot_1.bin` was written by
the first release; today's code writes one more field of each broker, which that release skips.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from s3stream.metadata import records as r
from s3stream.metadata.apply import apply
from s3stream.metadata.image import EMPTY_IMAGE, MetadataImage
from s3stream.metadata.records import BlobRef, Endpoint, Position
from s3stream.metadata.snapshot import encode_image

FOLDER = Path(__file__).parent / "metadata"
CONTENTS = BlobRef("wal/" + "1".zfill(20) + "/" + "7".zfill(20), bytes(range(16)), 99)
RECOVERY = BlobRef("data/00/1-2", bytes(range(16, 32)), 10)
TOPIC = UUID(int=77)

# What the first release could write.
FIRST: list[r.Record] = [
    r.ClusterCreated("c" * 22, 4, "memory", 1_750_000_000_000),
    r.TermBegun(b"one", 1, 1_750_000_000_001),
    r.BrokerRegistered(1, 0, b"one", 8, (Endpoint("PLAINTEXT", "h1", 9092),), "rack", "h1:8080"),
    r.TopicCreated(
        "orders", TOPIC, False, 3, {"retention.ms": "1"}, [r.NewPartition(i, 0) for i in range(3)]
    ),
    r.Opened(0, [(0, 0), (1, 0), (2, 0)]),
    r.ConfigsAltered("broker", "", {"a": "b"}),
    r.ProducerIdsAllocated(0, 0, 1000),
    r.RoundBegun(0),
    r.BrokerRegistered(1, 1, b"two", 8, ()),
    r.IncarnationEnded(0, 12, b"two", RECOVERY, 1, [r.LeaderChange(i, 1, 1, 0) for i in range(3)]),
    r.Opened(1, [(0, 1), (1, 1)]),
]
# What level 2 added.
MOVES: list[r.Record] = [
    r.FeatureLevelSet("headwater.version", 2),
    r.BrokerRegistered(2, 2, b"three", 8, (), level=2),
    r.MoveBegun(0, 1, 2, [(0, 1)]),
    r.MoveBegun(1, 1, 2, [(1, 1)]),
    r.LeadersMoved(0, CONTENTS),
    r.DrainingSet(2, True),
]
CANCELLED = r.MoveCancelled(1)


def image(records: list[r.Record]) -> MetadataImage:
    found = EMPTY_IMAGE
    for n, record in enumerate(records):
        found = apply(found, record, Position(3, 9, n))
    return found


def build() -> dict[str, bytes]:
    """By file name."""
    files = {"snapshot_2.bin": encode_image(image([*FIRST, *MOVES]))}
    for record in (MOVES[2], *MOVES[4:], CANCELLED):
        files[f"{type(record).__name__.lower()}.bin"] = r.encode_record(record)
    return files


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, data in build().items():
        (FOLDER / name).write_bytes(data)
