"""Where the brokers' secret is read: once, when first it is needed, whoever asks."""

from __future__ import annotations

import asyncio

from objectstore.store import ObjectStore
from wal.format import read_header
from wal.keys import meta_log

from .proof import secret_of


class Secret:
    """A broker alone never reads it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._value: bytes | None = None
        self._lock = asyncio.Lock()

    async def __call__(self) -> bytes:
        """Raises StoreError."""
        if self._value is None:
            async with self._lock:
                if self._value is None:
                    header = await read_header(self._store, meta_log(0).key(0))
                    self._value = secret_of(header.write_id)
        return self._value
