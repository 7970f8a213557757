"""Settings of the group coordinator: Kafka's keys, with Kafka 4.3.1's defaults."""

from __future__ import annotations

from dataclasses import dataclass

OFFSETS_TOPIC = "__consumer_offsets"


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """What `group.*` and `offsets.*` mean here; times in milliseconds unless named otherwise.

    Raises ValueError: a value outside the range that Kafka allows.
    """

    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    # An empty group waits this long for more members before its first generation.
    group_initial_rebalance_delay_ms: int = 3_000
    group_max_size: int = 2**31 - 1
    offsets_retention_minutes: int = 7 * 24 * 60
    # Who calls `GroupCoordinator.expire` waits at least this long between two calls.
    offsets_retention_check_interval_ms: int = 600_000
    # Counted in UTF-16 code units, as Java's String.length() counts.
    offset_metadata_max_bytes: int = 4_096
    # How long a commit, a deletion or a stable fetch waits for the log before it is answered
    # with a retriable error (its records stay in the log all the same).
    offset_commit_timeout_ms: int = 5_000
    offsets_topic_num_partitions: int = 50
    offsets_topic_segment_bytes: int = 100 * 1024 * 1024
    offsets_topic_replication_factor: int = 3
    # Not Kafka's: from this age of the oldest unanswered append on, the log counts as stalled,
    # and nobody is expelled from a group until it moves again.
    append_stall_ms: int = 1_000
    # A constant in Kafka: how long a member that never answered a JoinGroup is kept.
    new_member_join_timeout_ms: int = 300_000

    def __post_init__(self) -> None:
        positive = (
            "group_min_session_timeout_ms",
            "group_max_session_timeout_ms",
            "group_max_size",
            "offsets_retention_minutes",
            "offsets_retention_check_interval_ms",
            "offset_commit_timeout_ms",
            "offsets_topic_num_partitions",
            "offsets_topic_segment_bytes",
            "offsets_topic_replication_factor",
            "append_stall_ms",
            "new_member_join_timeout_ms",
        )
        for name in positive:
            if getattr(self, name) < 1:
                raise ValueError(f"{name.replace('_', '.')} must be at least 1")
        if self.group_initial_rebalance_delay_ms < 0:
            raise ValueError("group.initial.rebalance.delay.ms must be at least 0")
        if self.offset_metadata_max_bytes < 0:
            raise ValueError("offset.metadata.max.bytes must be at least 0")
        if self.group_max_session_timeout_ms < self.group_min_session_timeout_ms:
            raise ValueError(
                "group.max.session.timeout.ms must not be below group.min.session.timeout.ms"
            )

    @property
    def offsets_retention_ms(self) -> int:
        return self.offsets_retention_minutes * 60_000

    def offsets_topic_configs(self) -> dict[str, str]:
        """The configurations that `__consumer_offsets` is created with."""
        return {
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": str(self.offsets_topic_segment_bytes),
        }
