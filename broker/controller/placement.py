"""Who leads what is new or has lost its leader."""

from __future__ import annotations

from collections.abc import Mapping

from broker.cluster.load import Load
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import MetadataImage

from .goals import LEAST

# A broker that has much to do counts as one that leads this share more than the others do; one that
# has little as one that leads as much less.
LOAD_SHARE = 0.1


class Placement:
    """Gives leaderships out over the live brokers that are not leaving, fewest partitions first; of
    those that lead as many, to the rack that was given fewest.

    loads: by incarnation; they count a little, since what is new has none of it yet. Counts what it
    gives out itself, so one object serves one decision.
    """

    def __init__(self, image: MetadataImage, loads: Mapping[int, Load] | None = None) -> None:
        live = image.staying_brokers()
        self._load: dict[int, float] = {broker.incarnation: 0 for broker in live}
        self._racks = {broker.incarnation: broker.rack for broker in live}
        self._given: dict[str | None, int] = {broker.rack: 0 for broker in live}
        # With one broker there is nothing to weigh, and counting looks at every partition.
        if len(self._load) > 1:
            for _, partition in image.partitions():
                if partition.leader in self._load:
                    self._load[partition.leader] += 1
            self._weigh(loads or {})

    def _weigh(self, loads: Mapping[int, Load]) -> None:
        if any(one not in loads for one in self._load):
            return
        worth = max(1.0, LOAD_SHARE * sum(self._load.values()) / len(self._load))
        for one, excess in _excesses({one: loads[one] for one in self._load}).items():
            self._load[one] += excess * worth

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
            leader = min(self._load, key=self._order)
            self._load[leader] += 1
            self._given[self._racks[leader]] += 1
            chosen.append(leader)
        return chosen

    def _order(self, incarnation: int) -> tuple[float, int, int]:
        return self._load[incarnation], self._given[self._racks[incarnation]], incarnation


def _excesses(loads: Mapping[int, Load]) -> dict[int, float]:
    """How far each is from the mean in what matters most, -1 to 1; 0 where nothing matters."""
    found = dict.fromkeys(loads, 0.0)
    amounts = {one: (load.bytes_in, load.bytes_out, load.processor) for one, load in loads.items()}
    for goal, least in enumerate((LEAST.bytes_in, LEAST.bytes_out, LEAST.processor)):
        mean = sum(one[goal] for one in amounts.values()) / len(amounts)
        for one, has in amounts.items():
            excess = (has[goal] - mean) / max(mean, 1.0)
            if abs(has[goal] - mean) > least and abs(excess) > abs(found[one]):
                found[one] = max(-1.0, min(1.0, excess))
    return found
