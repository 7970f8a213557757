"""A part of a bucket as a store of its own: `s3://bucket/prefix`."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from .passing import PassingStore


class PrefixStore(PassingStore):
    """Every key of the caller is `prefix` and the key in the store below. prefix ends in `/`."""

    def __init__(self, inner: ObjectStore, prefix: str) -> None:
        super().__init__(inner)
        assert prefix.endswith("/") and not prefix.startswith("/"), prefix
        self._prefix = prefix

    async def create(self, key: str, chunks: Chunks) -> None:
        await self.inner.create(self._prefix + key, chunks)

    async def get(self, key: str) -> bytes:
        return await self.inner.get(self._prefix + key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        return await self.inner.get_ranges(self._prefix + key, ranges)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        after = self._prefix + start_after if start_after else ""
        async for info in self.inner.list(self._prefix + prefix, after):
            yield replace(info, key=info.key[len(self._prefix) :])

    async def delete(self, keys: Sequence[str]) -> None:
        await self.inner.delete([self._prefix + key for key in keys])

    async def start_upload(self, key: str) -> Upload:
        return await self.inner.start_upload(self._prefix + key)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        found = await self.inner.list_uploads(self._prefix + prefix)
        return [replace(info, key=info.key[len(self._prefix) :]) for info in found]

    async def abort_upload(self, upload: UploadInfo) -> None:
        await self.inner.abort_upload(replace(upload, key=self._prefix + upload.key))
