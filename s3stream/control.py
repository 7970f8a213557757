"""Control records in a broker's write-ahead log: what happened to streams, beside appends.

    byte   field
    0      version of the record's format
    1 …    msgpack of a map: "t" the record's name, the rest its fields

A reader that does not know a record stops: to pass it by would be to misread the chain. Within one
log object the control records come before the data.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from objectstore.errors import Corrupt

from .entries import Appointment, PageRef
from .metadata.records import BlobRef
from .refs import ObjectRange, ObjectRef

CONTROL_VERSION = 1


class _Control(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    pass


class OpenedStream(msgspec.Struct, array_like=True, frozen=True):
    stream_id: int
    epoch: int
    appointment: Appointment


class Opening(_Control, frozen=True, tag="opening"):
    """This log holds these streams from here on.

    source: the incarnation whose ended log held them, with its recovery object; None: they are
    new, or were closed in this very log.
    """

    streams: list[OpenedStream]
    source: int | None = None
    recovery: BlobRef | None = None


class Closing(_Control, frozen=True, tag="closing"):
    """Nothing more is appended to these streams here. move: the metadata record that asked."""

    streams: list[int]
    move: Appointment | None = None


class HandedOver(_Control, frozen=True, tag="handed-over"):
    """Closes these streams for a planned move, with all that the next leader has to know.

    move: its number in the metadata log. streams: (stream id, next offset at the closing).
    entries: of the streams, in line or in the object `entries_ref`. Unlike a `Closing` it tells
    another log what this one held, so an older reader, which would not, must stop at it.
    """

    move: int
    streams: list[tuple[int, int]]
    entries: bytes = b""
    entries_ref: BlobRef | None = None


class Received(_Control, frozen=True, tag="received"):
    """This log holds these streams from here on, as `contents` tells.

    source: the incarnation that closed them for `move`. contents: its log object with the
    closing record, or the object that the record names.
    """

    streams: list[OpenedStream]
    source: int
    move: int
    contents: BlobRef


class Dropped(_Control, frozen=True, tag="dropped"):
    """This log no longer holds these streams: deleted, or opened elsewhere."""

    streams: list[int]


class Uploaded(_Control, frozen=True, tag="uploaded"):
    """Every stream's tail up to this log's object `up_to_seq`, and adopted tails, are in `objects`.

    What the objects hold is in their own indexes. Producers whose last batch is older than
    `producers_before_ms` (Unix ms) and that have no open transaction are forgotten.
    """

    objects: list[ObjectRef]
    up_to_seq: int
    producers_before_ms: int = 0


class Adopted(Uploaded, frozen=True, tag="adopted"):
    """As Uploaded; and what tails have in `adopted`, which are objects of a log, stays there."""

    adopted: list[ObjectRef] = []


class Trimmed(_Control, frozen=True, tag="trimmed"):
    """(stream id, new start offset); one that is not above the stream's start does nothing."""

    streams: list[tuple[int, int]]


class Compacted(_Control, frozen=True, tag="compacted"):
    """What streams had in `removed` now lies in `added`, as far as they still had it."""

    removed: list[ObjectRef]
    added: list[ObjectRef]


class ArchivedRanges(msgspec.Struct, array_like=True, frozen=True):
    """The oldest `count` ranges that a stream has in line are in the index object of `index`.

    digest: of those ranges, see `history`; where the stream has others, nothing happens.
    """

    stream_id: int
    count: int
    digest: bytes
    index: ObjectRange


class ShortenedIndex(msgspec.Struct, array_like=True, frozen=True):
    """What a stream still has in its oldest index object, `key`, is in that of `index`."""

    stream_id: int
    key: str
    index: ObjectRange


class Archived(_Control, frozen=True, tag="archived"):
    """Index objects of histories. What streams contain stays what it is, to the last batch."""

    archived: list[ArchivedRanges]
    shortened: list[ShortenedIndex] = []


class Checkpoint(_Control, frozen=True, tag="checkpoint"):
    """The exact state after this log's objects up to and including `as_of_seq`.

    pages: by stream id, without overlap. delta: entries that differ from the pages, in line or in
    an object. uploaded_seq: objects up to here await no upload (-1: none does).
    """

    as_of_seq: int
    uploaded_seq: int
    pages: list[PageRef]
    delta: bytes = b""
    delta_ref: BlobRef | None = None


class Report(_Control, frozen=True, tag="report"):
    """The answer to a round of deletion: what this incarnation held since its last report.

    held: keys; where they are many they are in the object `held_ref` instead. Objects of this
    maker with numbers below `lowest_unsettled` are settled.
    """

    round: int
    lowest_unsettled: int
    held: list[str] = []
    held_ref: BlobRef | None = None


Control: TypeAlias = (
    Opening
    | Closing
    | HandedOver
    | Received
    | Dropped
    | Uploaded
    | Adopted
    | Trimmed
    | Compacted
    | Archived
    | Checkpoint
    | Report
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Control)
_VERSION_BYTE = bytes([CONTROL_VERSION])


def encode_control(record: Control) -> bytes:
    return _VERSION_BYTE + _encoder.encode(record)


def decode_control(data: bytes | memoryview, where: str) -> Control:
    """where: key of the object, for the error. Raises Corrupt, also for what is not known."""
    if not data or data[0] != CONTROL_VERSION:
        raise Corrupt(
            f"{where}: control record of format {data[0] if data else 'none'}, this version reads "
            f"{CONTROL_VERSION}; start the newer version that wrote it"
        )
    try:
        record: Control = _decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Corrupt(f"{where}: unreadable control record: {error}") from error
    return record
