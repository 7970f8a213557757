"""A store in memory: for tests, for the simulation, and for `memory:` brokers that may forget."""

from __future__ import annotations

import builtins
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable, Sequence

from ..errors import NotFound, PreconditionFailed
from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo

PAGE_ROWS = 1000


class MemoryStore(ObjectStore):
    """A dictionary and its sorted keys. Every operation is atomic: none suspends.

    That makes it deterministic; delays and faults come from the wrapper around it
    (`objectstore.wrappers.fault`). Several simulated brokers may share one.

    now_ms: the store's own clock, Unix milliseconds.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._objects: dict[str, tuple[bytes, int]] = {}
        self._keys: list[str] = []  # code point order of str is byte order of UTF-8
        self._uploads: dict[str, _MemoryUpload] = {}
        self._uploads_begun = 0

    async def create(self, key: str, chunks: Chunks) -> None:
        self.put_now(key, chunks)

    def put_now(self, key: str, chunks: Chunks) -> None:
        """`create` without a coroutine. Raises PreconditionFailed."""
        if key in self._objects:
            raise PreconditionFailed(f"{key}: there is an object already")
        self._objects[key] = (b"".join(chunks), self._now_ms())
        insort(self._keys, key)

    async def get(self, key: str) -> bytes:
        return self._at(key)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        data = self._at(key)
        return [data[start:end] for start, end in ranges]

    def _at(self, key: str) -> bytes:
        found = self._objects.get(key)
        if found is None:
            raise NotFound(f"{key}: no such object")
        return found[0]

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        after = start_after
        while True:
            # Looked up anew for each page: keys come and go while the caller works on one.
            first = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
            rows = []
            for key in self._keys[first : first + PAGE_ROWS]:
                if not key.startswith(prefix):
                    break
                data, modified_ms = self._objects[key]
                rows.append(ObjectInfo(key, len(data), modified_ms))
            for row in rows:
                yield row
            if len(rows) < PAGE_ROWS:
                return
            after = rows[-1].key

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]

    async def start_upload(self, key: str) -> Upload:
        self._uploads_begun += 1
        token = f"{self._uploads_begun:020d}"
        upload = _MemoryUpload(self, UploadInfo(key, token, self._now_ms()))
        self._uploads[token] = upload
        return upload

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        found = [u.info for u in self._uploads.values() if u.info.key.startswith(prefix)]
        return sorted(found, key=lambda info: (info.key, info.token))

    async def abort_upload(self, upload: UploadInfo) -> None:
        self._uploads.pop(upload.token, None)

    async def date_ms(self) -> int:
        return self._now_ms()

    async def close(self) -> None:
        """Nothing to release: the objects stay, for whoever holds the store."""

    def upload_alive(self, token: str) -> bool:
        return token in self._uploads


class _MemoryUpload(Upload):
    def __init__(self, store: MemoryStore, info: UploadInfo) -> None:
        self._store = store
        self.info = info
        self._parts: list[bytes] = []

    async def part(self, chunks: Chunks) -> None:
        self._require_alive()
        self._parts.append(b"".join(chunks))

    async def complete(self) -> None:
        self._require_alive()
        # A taken key leaves the upload unfinished, as S3 does: it still wants an abort.
        self._store.put_now(self.info.key, self._parts)
        await self._store.abort_upload(self.info)

    async def abort(self) -> None:
        self._parts.clear()
        await self._store.abort_upload(self.info)

    def _require_alive(self) -> None:
        if not self._store.upload_alive(self.info.token):
            raise NotFound(f"{self.info.key}: this upload was completed or aborted")
