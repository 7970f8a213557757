"""Where a node's load is read: its counters, and those of its partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from broker.cluster.load import Counted, LoadMeter, ProcessUse

from .metrics import BrokerMetrics
from .partition.partitions import Partitions


def load_meter(
    metrics: BrokerMetrics,
    partitions: Partitions,
    process_use: Callable[[], ProcessUse] | None,
) -> LoadMeter:
    """process_use: of this process; None: not to be told."""

    def counted() -> Iterator[Counted]:
        for one in partitions.each():
            yield Counted(one.stream.stream_id, one.bytes_in, one.bytes_out)

    return LoadMeter(metrics.requests, partitions.__len__, counted, process_use)
