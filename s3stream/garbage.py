"""What a round of deletion may delete: the decision, without any I/O.

A candidate was listed before the round began. It is garbage when nothing names it and its maker had
settled it: had referred to it by a durable record, or given it up. Who made it is in its key.

    data/../<maker>-<n>   live maker: settled below the number that it reports; ended: always
    wal/<maker>/<seq>     live maker: settled below a durable trim; ended: once it is adopted

Nothing goes by age. What nothing refers to is never referred to again, so the answer stays right
however long its finder sleeps before it deletes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wal.format import HEADER_SIZE
from wal.keys import WAL_PREFIX, parse_data_key, parse_log, wal_log

from .metadata.image import MetadataImage

# A seal is a header and the name of its maker; a log object above it needs no look inside.
SEAL_BYTES_AT_MOST = HEADER_SIZE + 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    key: str
    size_bytes: int

    @property
    def may_be_seal(self) -> bool:
        return self.key.startswith(WAL_PREFIX) and self.size_bytes <= SEAL_BYTES_AT_MOST


@dataclass(frozen=True, slots=True)
class LiveMaker:
    """What an incarnation answered to the round, and the trim of a durable object of its log."""

    lowest_unsettled: int
    trim: int


@dataclass(frozen=True, slots=True)
class EndedMaker:
    """adopted: no stream has its contents in this log any more (named otherwise where needed)."""

    adopted: bool


Maker = LiveMaker | EndedMaker


def garbage(
    candidates: Iterable[Candidate], makers: Mapping[int, Maker], named: Collection[str]
) -> list[Candidate]:
    """Those that may be deleted (a candidate that turns out to be a seal stays all the same).

    makers: of whom it is not known what they settled, nothing is deleted. named: keys.
    """
    return [one for one in candidates if one.key not in named and _settled(one.key, makers)]


def _settled(key: str, makers: Mapping[int, Maker]) -> bool:
    data = parse_data_key(key)
    if data is not None:
        maker = makers.get(data[0])
        if isinstance(maker, LiveMaker):
            return data[1] < maker.lowest_unsettled
        return maker is not None
    log = parse_log(key)
    if log is None or log.family != "wal":
        return False
    seq = wal_log(log.log_id).seq_of(key)
    maker = makers.get(log.log_id)
    if seq is None or maker is None:
        return False  # `end` is never deleted
    if isinstance(maker, LiveMaker):
        # A durable object never carries a trim above itself: the newest one always stays.
        return seq < maker.trim
    return maker.adopted


@dataclass(slots=True)
class Round:
    """One round: whom it waits for, and what it has heard.

    before, after: images around the round's record; what was live, or named, in either counts.
    """

    number: int
    before: MetadataImage
    after: MetadataImage
    abandoned: bool = False
    waiting: dict[int, None] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    _makers: dict[int, Maker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for image in (self.before, self.after):
            # What an unended log refers to is not known, nor who is about to read it.
            self.abandoned = self.abandoned or bool(image.unended())
            for incarnation in sorted(image.incarnations):
                if not image.incarnations[incarnation].fenced:
                    self.waiting[incarnation] = None
        adopted = still_needed(self.before) | still_needed(self.after)
        for incarnation in sorted(self.after.incarnations):
            if self.after.incarnations[incarnation].ended is not None:
                self._makers[incarnation] = EndedMaker(incarnation not in adopted)
        self.note_image(self.after)

    def note_image(self, image: MetadataImage) -> None:
        """Who is fenced before its report ends the round: what it held is not known."""
        for incarnation in self.waiting:
            state = image.incarnations.get(incarnation)
            if state is None or state.fenced:
                self.abandoned = True

    def note_report(
        self, incarnation: int, held: Iterable[str], lowest_unsettled: int, trim: int
    ) -> None:
        """A report that is in the durable prefix of its maker's log. trim: of a durable object."""
        if incarnation in self.waiting:
            del self.waiting[incarnation]
            self.named.update(held)
            self._makers[incarnation] = LiveMaker(lowest_unsettled, trim)

    def note_named(self, keys: Iterable[str]) -> None:
        """What images and ended logs name."""
        self.named.update(keys)

    def is_settled(self, key: str) -> bool:
        """Its maker referred to it, or gave it up, before it answered this round."""
        return _settled(key, self._makers)

    def garbage(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """[] for an abandoned round. All reports must be in."""
        if self.abandoned:
            return []
        assert not self.waiting, sorted(self.waiting)
        return garbage(candidates, self._makers, self.named)


def still_needed(image: MetadataImage) -> set[int]:
    """Ended incarnations whose logs hold what some stream's leader has not opened yet."""
    needed: set[int] = set()
    for _, partition in image.partitions():
        for incarnation in (partition.leader, partition.source):
            if incarnation is None:
                continue
            state = image.incarnations.get(incarnation)
            if state is not None and state.fenced:
                needed.add(incarnation)
    return needed


def streams_by_holder(image: MetadataImage) -> dict[int, list[int]]:
    """Streams that each incarnation leads, or is the source of, by stream id."""
    held: dict[int, list[int]] = {}
    for _, partition in image.partitions():
        for incarnation in dict.fromkeys((partition.leader, partition.source)):
            if incarnation is not None:
                held.setdefault(incarnation, []).append(partition.stream_id)
    for streams in held.values():
        streams.sort()
    return held
