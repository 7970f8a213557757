"""Gauges of a running node, read when somebody scrapes."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

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
    value(
        "headwater_cluster_brokers", "gauge", "Brokers that are not fenced.",
        lambda: float(len(node.controller.image.live_brokers())),
    )  # fmt: skip
    value(
        "headwater_cluster_decides", "gauge", "1 on the broker that owns the controller's term.",
        lambda: float(node.controller.owns_term),
    )  # fmt: skip
    value(
        "headwater_cluster_term", "gauge", "The controller's term, as far as it has come here.",
        lambda: float(node.controller.image.term),
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
    register_cache_metrics(node)
    register_upkeep_metrics(node)


def register_store_metrics(node: Node) -> None:
    """Requests to the store, and what they cost at list prices."""

    def requests() -> list[tuple[dict[str, str], float]]:
        operations = node.meter.snapshot().operations
        return [({"operation": n}, float(operations[n].requests)) for n in sorted(operations)]

    node.metrics.register(
        "headwater_store_requests_total", "counter", "Requests to the store.", requests
    )

    def sizes() -> list[tuple[dict[str, str], float]]:
        operations = sorted(node.meter.snapshot().operations.items())
        return [
            ({"operation": name, "direction": direction}, float(size))
            for name, count in operations
            for direction, size in (("out", count.bytes_sent), ("in", count.bytes_received))
        ]

    node.metrics.register(
        "headwater_store_bytes_total", "counter", "Bytes sent to the store (out) and read from it.",
        sizes,
    )  # fmt: skip
    node.metrics.register_value(
        "headwater_store_request_dollars_total", "counter", "What they cost at AWS list prices.",
        lambda: node.meter.snapshot().dollars,
    )  # fmt: skip


def register_cache_metrics(node: Node) -> None:
    """The block cache, in memory and on disk."""
    cache = node.block_cache
    value = node.metrics.register_value
    value(
        "headwater_block_cache_bytes", "gauge", "Blocks in memory that readers can hit.",
        lambda: float(cache.cached_bytes),
    )  # fmt: skip
    value(
        "headwater_block_cache_held_bytes", "gauge",
        "Blocks in memory, with those evicted that responses still hold.",
        lambda: float(cache.live_bytes),
    )  # fmt: skip
    _register_counters(node, "headwater_block_cache", "Block cache", cache.counters)
    if cache.disk is not None:
        _register_counters(node, "headwater_disk_cache", "Disk cache", cache.disk.counters)


def _register_counters(node: Node, prefix: str, what: str, counters: DataclassInstance) -> None:
    for field in fields(counters):
        name = field.name

        def read(name: str = name) -> float:
            return float(getattr(counters, name))

        meaning = f"{what}: {name.replace('_', ' ')}."
        node.metrics.register_value(f"{prefix}_{name}_total", "counter", meaning, read)


def register_upkeep_metrics(node: Node) -> None:
    """Uploads, merging and deletion."""
    value, collector, compactor = (
        node.metrics.register_value,
        node.upkeep.collector,
        node.upkeep.compactor,
    )
    uploader = node.storage.uploader
    value(
        "headwater_uploads_total", "counter", "Times that the log's tail went to data objects.",
        lambda: float(uploader.uploads),
    )  # fmt: skip
    value(
        "headwater_uploaded_bytes_total", "counter", "Bytes of the objects that uploads wrote.",
        lambda: float(uploader.uploaded_bytes),
    )  # fmt: skip
    value(
        "headwater_adopted_bytes_total", "counter",
        "Bytes of records that stayed in log objects instead of being uploaded.",
        lambda: float(uploader.adopted_bytes),
    )  # fmt: skip
    value(
        "headwater_collector_deleted_objects_total", "counter", "Objects deleted as garbage.",
        lambda: float(collector.deleted_objects),
    )  # fmt: skip
    value(
        "headwater_collector_deleted_bytes_total", "counter", "Bytes of those objects.",
        lambda: float(collector.deleted_bytes),
    )  # fmt: skip
    value(
        "headwater_collector_rounds_total", "counter", "Rounds of deletion that were ended.",
        lambda: float(collector.rounds_done),
    )  # fmt: skip
    value(
        "headwater_collector_rounds_abandoned_total", "counter", "Rounds that deleted nothing.",
        lambda: float(collector.rounds_abandoned),
    )  # fmt: skip
    if compactor is None:
        return
    value(
        "headwater_space_amplification", "gauge", "Bytes stored for each byte that is alive.",
        compactor.space_amplification,
    )  # fmt: skip
    value(
        "headwater_compaction_merges_total", "counter", "Merges of data objects.",
        lambda: float(compactor.merges),
    )  # fmt: skip
    value(
        "headwater_compaction_bytes_total", "counter", "Bytes of records written by merges.",
        lambda: float(compactor.merged_bytes),
    )  # fmt: skip
    value(
        "headwater_compaction_failures_total", "counter", "Merges that were put off.",
        lambda: float(compactor.failures),
    )  # fmt: skip
