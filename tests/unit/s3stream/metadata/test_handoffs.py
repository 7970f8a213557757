"""How long the closing of a move tells what a stream holds."""

from __future__ import annotations

from uuid import UUID

from s3stream.metadata import records as r
from s3stream.metadata.apply import apply
from s3stream.metadata.features import HEADWATER_VERSION, MOVES_LEVEL
from s3stream.metadata.image import EMPTY_IMAGE, MetadataImage

STREAM = 0
CLOSING = r.BlobRef("wal/1/7", bytes(16), 99)
RECOVERY = r.BlobRef("data/2", bytes(16), 99)


class Told:
    """Records, one after the other."""

    def __init__(self, *records: r.Record) -> None:
        self.image: MetadataImage = EMPTY_IMAGE
        self._seq = 0
        self.tell(*records)

    def tell(self, *records: r.Record) -> None:
        for record in records:
            self.image = apply(self.image, record, r.Position(0, self._seq, 0))
            self._seq += 1

    def ended(self, incarnation: int, leader: int, source: int, epoch: int) -> None:
        """An incarnation is missed, and its log ended."""
        self.tell(
            r.IncarnationFenced(incarnation),
            r.IncarnationEnded(
                incarnation=incarnation,
                end=9,
                maker=b"0",
                recovery=RECOVERY,
                recovery_maker=0,
                leaders=[r.LeaderChange(STREAM, leader, epoch, source)],
            ),
        )


def moved() -> Told:
    """Stream 0 was closed by incarnation 1 for a move to 2, which has not opened it yet."""
    told = Told(
        *_birth(),
        r.Opened(1, [(STREAM, 0)]),
        r.MoveBegun(0, 1, 2, [(STREAM, 0)]),
        r.LeadersMoved(0, CLOSING),
    )
    assert told.image.handoffs[STREAM].contents == CLOSING
    return told


def _birth() -> list[r.Record]:
    brokers = [
        r.BrokerRegistered(n, n, bytes([n]), 4, (r.Endpoint("P", f"h{n}", 1),), None, None)
        for n in range(3)
    ]
    return [
        r.ClusterCreated("c", 4, "s", 0),
        r.FeatureLevelSet(HEADWATER_VERSION, MOVES_LEVEL),
        *brokers,
        r.TopicCreated("t", UUID(int=1), False, 1, {}, [r.NewPartition(STREAM, 1)]),
    ]


def test_a_closing_tells_what_there_is_until_another_has_opened_it() -> None:
    told = moved()
    told.ended(2, leader=0, source=1, epoch=2)
    assert told.image.handoffs[STREAM].contents == CLOSING
    told.tell(r.Opened(0, [(STREAM, 2)]))
    assert STREAM not in told.image.handoffs


def test_a_closing_tells_nothing_more_once_its_source_leads_again() -> None:
    """It opened the stream anew and appended; its log says so, should it die before it reports."""
    told = moved()
    told.ended(2, leader=1, source=1, epoch=2)
    told.ended(1, leader=0, source=1, epoch=3)
    assert STREAM not in told.image.handoffs
    partition = told.image.topics["t"].partitions[0]
    assert (partition.leader, partition.source) == (0, 1)
