"""A wrapper that changes nothing: the base of those that change one thing."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence

from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo


class PassingStore(ObjectStore):
    """Passes every call to `inner`; `close` closes it too."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    async def create(self, key: str, chunks: Chunks) -> None:
        await self.inner.create(key, chunks)

    async def get(self, key: str) -> bytes:
        return await self.inner.get(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        return await self.inner.get_ranges(key, ranges)

    def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        return self.inner.list(prefix, start_after)

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete(keys)

    async def start_upload(self, key: str) -> Upload:
        return await self.inner.start_upload(key)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        return await self.inner.list_uploads(prefix)

    async def abort_upload(self, upload: UploadInfo) -> None:
        await self.inner.abort_upload(upload)

    async def date_ms(self) -> int:
        return await self.inner.date_ms()

    async def close(self) -> None:
        await self.inner.close()
