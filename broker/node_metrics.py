"""Gauges of a running node, read when somebody scrapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Node


def register_metrics(node: Node) -> None:
    """Everything an operator watches beside the requests themselves."""
    metrics, storage = node.metrics, node.storage
    value = metrics.register_value
    value(
        "headwater_connections", "gauge", "Open connections.",
        lambda: float(node.server.connection_count),
    )  # fmt: skip
    value(
        "headwater_connections_refused_total", "counter", "Connections refused at a limit.",
        lambda: float(node.server.refused),
    )  # fmt: skip
    value(
        "headwater_request_memory_bytes", "gauge", "Frames being received or answered.",
        lambda: float(node.pool.used_bytes),
    )  # fmt: skip
    value("headwater_partitions", "gauge", "Partitions led.", lambda: float(len(node.partitions)))
    value(
        "headwater_ready", "gauge", "1 while a write can be acknowledged, as far as is known.",
        lambda: float(node.is_ready),
    )  # fmt: skip
    value(
        "headwater_wal_pending_bytes", "gauge", "Appended, and not durable yet.",
        lambda: float(storage.wal.pending_bytes),
    )  # fmt: skip
    value(
        "headwater_wal_durable_sequence", "gauge", "First log sequence that is not durable.",
        lambda: float(storage.wal.durable_seq),
    )  # fmt: skip
    value(
        "headwater_log_cache_pinned_bytes", "gauge", "In memory until they are uploaded.",
        lambda: float(storage.cache.pinned_bytes),
    )  # fmt: skip
    metrics.register(
        "headwater_partition_high_watermark", "gauge", "End of what consumers may read.",
        lambda: [
            ({"topic": p.topic, "partition": str(p.index)}, float(p.high_watermark))
            for p in node.partitions.all()
        ],
    )  # fmt: skip
    metrics.register(
        "headwater_partition_size_bytes", "gauge", "Live records.",
        lambda: [
            ({"topic": p.topic, "partition": str(p.index)}, float(p.stream.size_bytes))
            for p in node.partitions.all()
        ],
    )  # fmt: skip
    register_store_metrics(node)


def register_store_metrics(node: Node) -> None:
    """Requests to the store, and what they cost at list prices."""

    def requests() -> list[tuple[dict[str, str], float]]:
        operations = node.meter.snapshot().operations
        return [({"operation": n}, float(operations[n].requests)) for n in sorted(operations)]

    node.metrics.register(
        "headwater_store_requests_total", "counter", "Requests to the store.", requests
    )
    node.metrics.register_value(
        "headwater_store_request_dollars_total", "counter", "What they cost at AWS list prices.",
        lambda: node.meter.snapshot().dollars,
    )  # fmt: skip
