"""Which brokers serve reads of a partition beside its leader: one of each other rack.

Computed from the image alone, so all brokers agree where their images do. The choice is rendezvous
hashing: of a rack's brokers the one with the largest hash of (stream, node). When a broker comes it
takes over its share and no more; when one goes, its share alone is spread over the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.leadership import NO_NODE, leader_node
from s3stream.metadata.features import MOVES_LEVEL, level_of

if TYPE_CHECKING:
    from s3stream.metadata.image import MetadataImage, PartitionImage

_MASK = (1 << 64) - 1
# The first level of processes that brokers can ask anything.
_LEAST_LEVEL = MOVES_LEVEL


class Racks:
    """The racks of one image. Without any, nobody but leaders serves."""

    def __init__(self, image: MetadataImage) -> None:
        self._rack_of: dict[int, str] = {}
        self._brokers: dict[str, list[int]] = {}
        if level_of(image) < _LEAST_LEVEL:
            return
        for broker in image.live_brokers():
            if not broker.rack or broker.level < _LEAST_LEVEL:
                continue
            self._rack_of[broker.node_id] = broker.rack
            if broker.incarnation not in image.draining:
                self._brokers.setdefault(broker.rack, []).append(broker.node_id)
        self._names = sorted(self._brokers)

    def __bool__(self) -> bool:
        return bool(self._brokers)

    def serving(self, rack: str, stream_id: int, leader: int) -> int:
        """The node that serves reads of a rack; the leader in its own, or where there is none.

        leader: a node id.
        """
        if self._rack_of.get(leader) == rack:
            return leader
        nodes = self._brokers.get(rack)
        if not nodes:
            return leader
        return max(nodes, key=lambda node: _mixed(stream_id, node))

    def replicas(self, stream_id: int, leader: int) -> list[int]:
        """The leader, then the serving brokers by their rack's name; [] without a leader."""
        if leader == NO_NODE:
            return []
        told = [leader]
        if self._brokers:
            own = self._rack_of.get(leader)
            told += [self.serving(r, stream_id, leader) for r in self._names if r != own]
        return told

    def serves(self, node_id: int, image: MetadataImage, partition: PartitionImage) -> bool:
        """Whether `node_id` serves reads of a partition that another leads."""
        rack = self._rack_of.get(node_id)
        if rack is None:
            return False
        leader = leader_node(image, partition)
        return leader not in (node_id, NO_NODE) and node_id == self.serving(
            rack, partition.stream_id, leader
        )


class KnownRacks:
    """Racks of the image that was asked about last; computed anew where brokers have changed."""

    def __init__(self) -> None:
        self._of: tuple[object, object, object] | None = None
        self._racks: Racks | None = None

    def of(self, image: MetadataImage) -> Racks:
        parts = (image.brokers, image.draining, image.features)
        if (
            self._racks is None
            or self._of is None
            or any(known is not now for known, now in zip(self._of, parts, strict=True))
        ):
            self._of, self._racks = parts, Racks(image)
        return self._racks


def _mixed(stream_id: int, node_id: int) -> int:
    """64 bits in which every bit of both counts (the finalizer of splitmix64)."""
    z = (stream_id * 0x9E3779B97F4A7C15 + node_id * 0xD1B54A32D192ED03 + 1) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
