"""What the clients are given beside the defaults of their libraries, and why.

A paused process closes no connection: what is on its way to it waits for the client's own
time-outs, which are 30 s and more by default, at Apache Kafka as here. They are shorter here, so
that a run does not measure them.
"""

from __future__ import annotations

from typing import Any

PARTITIONS = 6

RDKAFKA: dict[str, Any] = {
    "log_level": 0,
    "socket.timeout.ms": 10_000,
    "topic.metadata.refresh.interval.ms": 5_000,
    "reconnect.backoff.max.ms": 1_000,
}
RDKAFKA_PRODUCER = {**RDKAFKA, "enable.idempotence": True, "request.timeout.ms": 5_000}
RDKAFKA_CONSUMER = {
    **RDKAFKA,
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 1_000,
}
AIOKAFKA: dict[str, Any] = {"metadata_max_age_ms": 5_000}
JAVA_PRODUCER = {
    # Its tool turns retries off, which is no client's default.
    "retries": 2**31 - 1,
    "request.timeout.ms": 5_000,
    "metadata.max.age.ms": 5_000,
}
JAVA_CONSUMER = {"request.timeout.ms": 10_000, "metadata.max.age.ms": 5_000}
