"""The storage layers' settings, from the broker's keys."""

from __future__ import annotations

from broker.config import BrokerConfig
from s3stream.config import S3StreamConfig
from wal.config import WalConfig

# PUTs a second of small log objects where each costs money and nobody said otherwise: about $65 a
# month at $5 a million.
BILLED_PUTS_PER_S = 5.0


def stream_config(config: BrokerConfig, *, billed: bool) -> S3StreamConfig:
    """billed: the store charges for requests, so that small log objects have a budget."""
    budget = config.optional_number("wal.put.budget.per.second")
    if budget is None and billed:
        budget = BILLED_PUTS_PER_S
    return S3StreamConfig(
        log_cache_bytes=config.int("log.cache.bytes"),
        upload_trigger_bytes=config.int("upload.trigger.bytes"),
        upload_max_objects=config.int("upload.trigger.objects"),
        upload_max_age_s=config.int("upload.trigger.age.ms") / 1000,
        block_cache_bytes=config.int("cache.memory.bytes"),
        producer_expiration_ms=config.int("producer.id.expiration.ms"),
        wal=WalConfig(
            object_max_bytes=config.int("wal.object.max.bytes"),
            latency_target_s=config.int("wal.latency.target.ms") / 1000,
            put_budget_per_s=budget,
        ),
    )
