"""What is asked, API by API. Importing this package registers every script."""

from __future__ import annotations

from . import (
    cluster,
    commits,
    configs,
    connections,
    fetch,
    groups,
    list_offsets,
    metadata,
    partitions,
    produce,
    reassignments,
    records,
    sessions,
    stories,
    topics,
)

__all__ = [
    "cluster",
    "commits",
    "configs",
    "connections",
    "fetch",
    "groups",
    "list_offsets",
    "metadata",
    "partitions",
    "produce",
    "reassignments",
    "records",
    "sessions",
    "stories",
    "topics",
]
