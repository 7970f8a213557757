"""Java's string hash, where Kafka's answers depend on it.

Which partition holds a group is decided by `String.hashCode`; which of two protocols with equal
votes wins, by the order in which a `HashMap` of a few strings is walked.
"""

from __future__ import annotations

from collections.abc import Iterable

_MASK = 0xFFFFFFFF


def java_hash(text: str) -> int:
    """`String.hashCode()`, as a signed 32-bit number."""
    data = text.encode("utf-16-be", "surrogatepass")
    value = 0
    for i in range(0, len(data), 2):
        value = (value * 31 + (data[i] << 8 | data[i + 1])) & _MASK
    return value - (1 << 32) if value >= 1 << 31 else value


def partition_for(group_id: str, partitions: int) -> int:
    """The partition of `__consumer_offsets` that holds the group."""
    value = java_hash(group_id)
    # Kafka's abs: the one number without a positive counterpart counts as 0.
    return 0 if value == -(1 << 31) else abs(value) % partitions


def hash_map_order(keys: Iterable[str]) -> list[str]:
    """The distinct keys in the order of a java.util.HashMap that they were put into in turn.

    Holds while no bucket becomes a tree, that is for fewer than 8 keys in one bucket.
    """
    distinct = list(dict.fromkeys(keys))
    size = 16
    while len(distinct) > size * 3 // 4:
        size *= 2

    def bucket(key: str) -> int:
        value = java_hash(key) & _MASK
        return (value ^ value >> 16) & (size - 1)

    return sorted(distinct, key=bucket)
