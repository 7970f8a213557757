"""Whole objects out of a store, every block checked: the product reads them in parts."""

from __future__ import annotations

from objectstore.store import ObjectStore
from wal.format import RecordObject, parse_object


async def read_object(store: ObjectStore, key: str, write_id: bytes | None = None) -> RecordObject:
    """Raises NotFound, Corrupt."""
    return parse_object(await store.get(key), key, write_id)
