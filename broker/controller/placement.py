"""Who leads what is new or has lost its leader."""

from __future__ import annotations

from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import MetadataImage


class Placement:
    """Gives leaderships out over the live brokers that are not leaving, fewest partitions first.

    Counts what it gives out itself, so one object serves one decision.
    """

    def __init__(self, image: MetadataImage) -> None:
        live = image.staying_brokers()
        self._load = {broker.incarnation: 0 for broker in live}
        # With one broker there is nothing to weigh, and counting looks at every partition.
        if len(self._load) > 1:
            for _, partition in image.partitions():
                if partition.leader in self._load:
                    self._load[partition.leader] += 1

    def leaders(self, count: int) -> list[int]:
        """`count` incarnations. Raises KafkaError where no broker is live."""
        if not self._load:
            raise KafkaError(
                ErrorCode.INVALID_REPLICATION_FACTOR,
                "Unable to replicate the partition 1 time(s): All brokers are currently fenced or "
                "in controlled shutdown.",
            )
        if len(self._load) == 1:
            return list(self._load) * count
        chosen = []
        for _ in range(count):
            leader = min(self._load, key=lambda incarnation: (self._load[incarnation], incarnation))
            self._load[leader] += 1
            chosen.append(leader)
        return chosen
