"""What clients were told, and whether it can all be true.

Every batch that a client sends has contents of its own, so a batch found anywhere tells which one
it is. `History` is fed with each answer at the instant it comes, and raises `Violation` at once:

    acknowledged   is found at its offset for ever, unchanged, unless trimmed
    idempotent     is there once, and in the order of its sequences
    seen           by any reader: never disappears, never changes
    offsets        batches lie side by side; no hole, no overlap
    epochs         never go back along the log; one process at most wrote in each
    marks          high watermarks and log starts never go back
    commits        read back, or a later one
    topics         there from the answer to their creation until their deletion is asked for

An answer that a process gives after another took its place may be old, but only for as long as
its last confirmation lasts (PROTOCOL 10), and it may never contradict what is above.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from protocol.batch_header import HEADER_SIZE, BatchHeader, crc_ok, iter_headers

from .loop import SimulatedLoop

Place = tuple[UUID, int]
"""A partition, by topic id: a topic made anew under an old name is another one."""


class Violation(AssertionError):
    """A promise was broken."""


@dataclass(slots=True, eq=False)
class Sent:
    """A batch that some client sent; it may be in the log never, once, or (plain) many times."""

    number: int
    producer: str
    place: Place
    count: int
    crc: int
    size_bytes: int
    producer_id: int = -1
    base_sequence: int = -1
    acknowledged_at: int = -1
    timestamp_ms: int = -1
    acknowledged_by: str = ""

    def __repr__(self) -> str:
        told = f"{self.producer} batch {self.number} ({self.count} records"
        return told + (f", sequence {self.base_sequence})" if self.producer_id >= 0 else ")")


@dataclass(slots=True)
class PartitionHistory:
    """log: base offset to batch, as acknowledged or read. floor: a high watermark that a client
    knows of. start_asked: the highest log start that somebody asked for; start_told: that a client
    was told of. retention: the log start may move by itself."""

    log: dict[int, Sent] = field(default_factory=dict)
    floor: int = 0
    start_asked: int = 0
    start_told: int = 0
    retention: bool = False
    next_sequence: dict[int, int] = field(default_factory=dict)
    epochs: dict[int, int] = field(default_factory=dict)


class History:
    """See the module."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.counted: Counter[str] = Counter()
        self.partitions: dict[Place, PartitionHistory] = {}
        self._sent: dict[tuple[int, int], Sent] = {}
        self._numbers: Counter[str] = Counter()
        self._commits: dict[tuple[str, Place], list[int]] = {}
        self.topics: dict[str, UUID] = {}
        self.deleting: set[UUID] = set()

    def at(self, place: Place) -> PartitionHistory:
        found = self.partitions.get(place)
        if found is None:
            found = self.partitions[place] = PartitionHistory()
        return found

    # Batches.

    def sending(self, producer: str, place: Place, batch: bytes | bytearray) -> Sent:
        """Note a batch before it is sent for the first time."""
        ((_, header),) = iter_headers(batch)
        key = (header.crc, header.size_bytes)
        assert key not in self._sent, "two batches alike"
        number = self._numbers[producer]
        self._numbers[producer] += 1
        sent = Sent(
            number,
            producer,
            place,
            header.record_count,
            header.crc,
            header.size_bytes,
            header.producer_id,
            header.base_sequence,
            timestamp_ms=header.max_timestamp,
        )
        self._sent[key] = sent
        return sent

    def acknowledged(self, sent: Sent, base_offset: int, known_start: int) -> None:
        """known_start: the answer's log start offset."""
        self.counted["acknowledged"] += 1
        if base_offset < 0:
            raise Violation(f"{sent} acknowledged at offset {base_offset}")
        if sent.producer_id >= 0 and sent.acknowledged_at not in (-1, base_offset):
            raise Violation(f"{sent} acknowledged at {sent.acknowledged_at} and {base_offset}")
        sent.acknowledged_at = base_offset
        self._place(sent, base_offset)
        partition = self.at(sent.place)
        partition.floor = max(partition.floor, base_offset + sent.count)
        self._start(sent.place, known_start)

    def read(
        self, place: Place, offset: int, records: bytes | memoryview, high_watermark: int
    ) -> int:
        """Check the answer to a fetch from `offset`; the offset to go on from."""
        expected = -1
        for position, header in iter_headers(records):
            batch = records[position : position + header.size_bytes]
            if len(batch) < header.size_bytes or header.size_bytes < HEADER_SIZE:
                raise Violation(f"{place}: half a batch at {header.base_offset}")
            if not crc_ok(batch, header):
                raise Violation(f"{place}: bad checksum at {header.base_offset}")
            if expected < 0 and not header.base_offset <= offset <= header.last_offset:
                raise Violation(f"{place}: asked for {offset}, got {header.base_offset}")
            if expected >= 0 and header.base_offset != expected:
                raise Violation(f"{place}: {header.base_offset} where {expected} is next")
            expected = header.last_offset + 1
            if expected > high_watermark >= 0:
                raise Violation(f"{place}: {header.last_offset} read above {high_watermark}")
            sent = self._known(place, header)
            self._place(sent, header.base_offset)
            epochs = self.at(place).epochs
            if epochs.setdefault(header.base_offset, header.leader_epoch) != header.leader_epoch:
                raise Violation(f"{place}: {sent} changed its leader epoch")
        self.counted["read"] += expected >= 0
        return max(expected, offset)

    def _known(self, place: Place, header: BatchHeader) -> Sent:
        sent = self._sent.get((header.crc, header.size_bytes))
        if sent is None or sent.place != place:
            raise Violation(f"{place}: a batch that nobody sent there, at {header.base_offset}")
        same = (sent.count, sent.producer_id, sent.base_sequence)
        if same != (header.record_count, header.producer_id, header.base_sequence):
            raise Violation(f"{place}: {sent} changed at {header.base_offset}")
        return sent

    def _place(self, sent: Sent, base_offset: int) -> None:
        log = self.at(sent.place).log
        there = log.setdefault(base_offset, sent)
        if there is not sent:
            raise Violation(f"{sent.place}: at {base_offset} {there}, and then {sent}")

    # Watermarks.

    def high_watermark(self, place: Place, told: int, floor: int, stale: bool) -> None:
        """floor: what was known when the request was sent. stale: told by a replaced process
        while it may still believe in itself."""
        if told < 0:
            return  # told by a leader that could not ask whether it still is one
        partition = self.at(place)
        if told < floor and not stale:
            raise Violation(f"{place}: high watermark {told}, and {floor} was known before")
        partition.floor = max(partition.floor, told)

    def _start(self, place: Place, told: int) -> None:
        if told < 0:
            return
        partition = self.at(place)
        if told > partition.start_asked and not partition.retention:
            raise Violation(f"{place}: starts at {told}; {partition.start_asked} was asked")

    def trimmed(self, place: Place, told: int) -> None:
        """DeleteRecords was answered: nothing below `told` comes back."""
        self._start(place, told)
        partition = self.at(place)
        partition.start_told = max(partition.start_told, told)
        self.counted["trimmed"] += 1

    def log_start(self, place: Place, told: int, floor: int, stale: bool) -> None:
        """floor: `start_told` when the request was sent."""
        self._start(place, told)
        if 0 <= told < floor and not stale:
            raise Violation(f"{place}: starts at {told}, and {floor} was told before")

    def out_of_range(self, place: Place, offset: int) -> None:
        """A reader that goes on from where it was is out of range only below the log start."""
        partition = self.at(place)
        if offset >= partition.start_asked and not partition.retention:
            raise Violation(f"{place}: {offset} is out of range, but was read up to")

    # Offsets of groups.

    def committing(self, group: str, place: Place, offset: int) -> None:
        self._commits.setdefault((group, place), [-1, -1])[1] = max(
            self._commits.get((group, place), [-1, -1])[1], offset
        )

    def committed(self, group: str, place: Place, offset: int) -> None:
        told = self._commits[group, place]
        told[0] = max(told[0], offset)
        self.counted["committed"] += 1

    def last_committed(self, group: str, place: Place) -> int:
        return self._commits.get((group, place), [-1, -1])[0]

    def committed_read(
        self, group: str, place: Place, offset: int, floor: int, stale: bool
    ) -> None:
        """floor: `last_committed` when the request was sent."""
        _, asked = self._commits.get((group, place), [-1, -1])
        if offset > asked:
            raise Violation(f"{group} {place}: offset {offset}, {asked} was the last")
        if offset < floor and not stale:
            raise Violation(f"{group} {place}: offset {offset}, {floor} was acknowledged")
        self.counted["commits read"] += 1

    # The end.

    def check_whole(self, place: Place, batches: list[tuple[int, int]], start: int) -> None:
        """batches: (base offset, end) of the whole partition as a fresh broker reads it, from
        `start` on; each went through `read` before."""
        partition = self.at(place)
        end = batches[-1][1] if batches else start
        if end < partition.floor:
            raise Violation(f"{place}: ends at {end}, but {partition.floor} was a high watermark")
        there = {base for base, _ in batches}
        once: dict[tuple[str, int], int] = {}
        for base, sent in sorted(partition.log.items()):
            if base + sent.count > start and base not in there:
                raise Violation(f"{place}: {sent} at {base} is gone")
            if sent.producer_id < 0:
                continue
            first = once.setdefault((sent.producer, sent.number), base)
            if first != base:
                raise Violation(f"{place}: {sent} twice, at {first} and {base}")
        self._check_sequences(place, partition)
        self._check_epochs(place, partition)

    def _check_epochs(self, place: Place, partition: PartitionHistory) -> None:
        before = -1
        writers: dict[int, str] = {}
        for base, epoch in sorted(partition.epochs.items()):
            if epoch < before:
                raise Violation(f"{place}: epoch {epoch} at {base}, after {before}")
            before = epoch
            sent = partition.log[base]
            # An idempotent batch may be acknowledged by a later leader, as a duplicate; a plain one
            # may be there more than once.
            if sent.producer_id < 0 and sent.acknowledged_at == base:
                writer = writers.setdefault(epoch, sent.acknowledged_by)
                if writer != sent.acknowledged_by:
                    raise Violation(
                        f"{place}: {writer} and {sent.acknowledged_by} both wrote in epoch {epoch}"
                    )

    def _check_sequences(self, place: Place, partition: PartitionHistory) -> None:
        last: dict[int, tuple[int, Sent]] = {}
        for base, sent in sorted(partition.log.items()):
            if sent.producer_id < 0:
                continue
            before = last.get(sent.producer_id)
            last[sent.producer_id] = (base, sent)
            if before is None:
                continue
            expected = before[1].base_sequence + before[1].count
            gap_allowed = partition.start_told > before[0] or partition.retention
            if sent.base_sequence != expected and not (
                gap_allowed and sent.base_sequence > expected
            ):
                raise Violation(f"{place}: {sent} follows {before[1]}")
