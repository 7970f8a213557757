"""What a partition no longer keeps: by age and by size, in whole ranges of stored objects.

Kafka drops whole segments; here the unit is what one stream has in one object, which is at most
what one upload brought. What is not durable, and so the high watermark, is never passed.
Source: KIP-32, KIP-405 (retention.ms, retention.bytes).
"""

from __future__ import annotations

from collections.abc import Sequence

from broker.config.topic import TopicConfig
from s3stream.refs import ObjectRange


def new_log_start(
    ranges: Sequence[ObjectRange], log_start_offset: int, config: TopicConfig, now_ms: int
) -> int:
    """The log start offset that retention asks for; `log_start_offset` where nothing goes.

    ranges: of the stream, in offset order.
    """
    start = log_start_offset
    if not config.deletes:
        return start
    retention_ms, retention_bytes = config.retention_ms, config.retention_bytes
    excess = -1
    if retention_bytes is not None and retention_bytes >= 0:
        excess = sum(r.size_bytes for r in ranges) - retention_bytes
    for held in ranges:
        too_old = (
            retention_ms is not None
            and retention_ms >= 0
            and held.max_timestamp >= 0
            and now_ms - held.max_timestamp > retention_ms
        )
        if not too_old and excess < held.size_bytes:
            break
        excess -= held.size_bytes
        start = max(start, held.end_offset)
    return start
