"""Taking over what a fenced incarnation led (PROTOCOL 7).

    1. "incarnation I is fenced" is durable (its registration's successor, or a record of its own)
    2. I's log is ended: `end` is there for good
    3. the ended log is read once, and written as one recovery object
    4. one record names end, recovery object and new leaders

Whoever finds it unfinished begins again at 2: an `end` that is there is found, and a recovery
object that no record names is made again (the first one is garbage, and collected).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from objectstore.errors import Corrupt
from s3stream.metadata.image import IncarnationState, MetadataImage, PartitionImage
from s3stream.metadata.records import BlobRef, IncarnationEnded, LeaderChange, Position
from wal.seal import LogEnd

from .placement import Placement


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an ended log holds.

    opened: per stream, the appointment that its last opening in that log answers. recovery: the
    object with the entries of its streams; None where the log holds none.
    """

    opened: Mapping[int, Position]
    recovery: BlobRef | None


# Reads the ended log of an incarnation and writes its recovery object.
Recover = Callable[[IncarnationState, LogEnd], Awaitable[Recovered]]


def plan_end(
    image: MetadataImage,
    incarnation: int,
    ended: LogEnd,
    recovered: Recovered,
    recovery_maker: int,
) -> IncarnationEnded:
    """The one record of step 4. Raises Corrupt where the log lacks what it must hold."""
    led = image.led_by(incarnation)
    leaders = Placement(image).leaders(len(led)) if led else []
    return IncarnationEnded(
        incarnation=incarnation,
        end=ended.end,
        maker=ended.maker,
        recovery=recovered.recovery,
        recovery_maker=recovery_maker,
        leaders=[
            LeaderChange(
                stream_id=partition.stream_id,
                leader=leader,
                leader_epoch=partition.leader_epoch + 1,
                source=_source(
                    f"{topic.name}-{partition.index}", partition, incarnation, recovered
                ),
            )
            for (topic, partition), leader in zip(led, leaders, strict=True)
        ],
    )


def _source(
    name: str, partition: PartitionImage, incarnation: int, recovered: Recovered
) -> int | None:
    """Whose log holds the partition's contents (PROTOCOL 5.4)."""
    if recovered.opened.get(partition.stream_id) == partition.appointment:
        return incarnation
    if partition.source is None and not partition.is_new:
        raise Corrupt(
            f"wal/{incarnation}: {name} (stream {partition.stream_id}) was opened there by the "
            f"record at {tuple(partition.appointment)}, but the log holds no such opening"
        )
    return partition.source
