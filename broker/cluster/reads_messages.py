"""What leaders and the brokers that serve reads of their partitions in other racks say."""

from __future__ import annotations

import msgspec

from s3stream.history import StoredRange
from s3stream.refs import ObjectRef


class KnownStream(msgspec.Struct, frozen=True, array_like=True):
    """What the asking broker knows of a stream.

    leader_epoch: in its image. high_watermark -1: nothing, so the whole is to be told. readable:
    its store gives it what it wants; else nobody is to be sent there.
    """

    stream_id: int
    leader_epoch: int
    high_watermark: int
    last_stable_offset: int
    log_start_offset: int
    readable: bool = True


class FollowReads(msgspec.Struct, frozen=True, tag_field="t", tag="follow-reads"):
    """incarnation: of who asks; turn: the number of its question, which rises. Answered once
    anything is other than known, or after `wait_ms`; or when the same incarnation asks again.
    """

    incarnation: int
    turn: int
    streams: list[KnownStream]
    wait_ms: int


class StreamNews(msgspec.Struct, frozen=True, array_like=True):
    """error: a Kafka error code; with one nothing else counts.

    since: the ranges begin there, which the asking broker knows as the high watermark; -1: they
    are all, and so is `history`. Ranges name their object by its place in `ReadsTold.objects`.
    leader_epochs: (epoch, its first offset), rising; told with the whole.
    """

    stream_id: int
    error: int
    leader_epoch: int = -1
    since: int = -1
    high_watermark: int = -1
    last_stable_offset: int = -1
    log_start_offset: int = -1
    history: list[StoredRange] = []
    ranges: list[StoredRange] = []
    leader_epochs: list[tuple[int, int]] = []


class ReadsTold(msgspec.Struct, frozen=True, tag_field="t", tag="reads-told"):
    """What differs from what was known. cut: there is more; of streams that are not named nothing
    is said.
    """

    streams: list[StreamNews]
    objects: list[ObjectRef]
    cut: bool = False


class InviteReads(msgspec.Struct, frozen=True, tag_field="t", tag="invite-reads"):
    """A leader has readers in your rack: ask it about these streams."""

    streams: list[int]


class ReadsInvited(msgspec.Struct, frozen=True, tag_field="t", tag="reads-invited"):
    pass
