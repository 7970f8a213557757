"""The bit fields of operations that a client may do, as Kafka writes them. Source: KIP-430."""

from __future__ import annotations

# AclOperation codes: 3 READ, 4 WRITE, 5 CREATE, 6 DELETE, 7 ALTER, 8 DESCRIBE, 9 CLUSTER_ACTION,
# 10 DESCRIBE_CONFIGS, 11 ALTER_CONFIGS, 12 IDEMPOTENT_WRITE.
TOPIC_OPERATIONS = frozenset({3, 4, 5, 6, 7, 8, 10, 11})
CLUSTER_OPERATIONS = frozenset({5, 7, 8, 9, 10, 11, 12})

NOT_ASKED = -(2**31)


def as_bits(operations: frozenset[int]) -> int:
    """An int32 with a bit for each operation."""
    return sum(1 << operation for operation in operations)
