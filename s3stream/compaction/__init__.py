"""Merging of data objects: what (plan), how (merge), at what pace (budget), where (worker)."""

from .plan import (
    CompactionConfig,
    ObjectUse,
    Output,
    Plan,
    object_uses,
    plan_compaction,
    space_amplification,
)

__all__ = [
    "CompactionConfig",
    "ObjectUse",
    "Output",
    "Plan",
    "object_uses",
    "plan_compaction",
    "space_amplification",
]
