"""The one door to storage: what every driver and every wrapper offers."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview
Chunks = Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One row of a listing. modified_ms: the store's own clock, Unix milliseconds."""

    key: str
    size_bytes: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """An unfinished multipart upload: `token` is what the driver needs to abort it."""

    key: str
    token: str
    started_ms: int


class Upload(ABC):
    """A streaming upload of one fresh key. Nothing is visible before `complete`."""

    @abstractmethod
    async def part(self, chunks: Chunks) -> None:
        """Send the next part; buffers are not copied.

        Every part but the last has the same size, 5 MiB or more. After an error the upload is
        good for nothing but `abort`: the caller starts another.
        """

    @abstractmethod
    async def complete(self) -> None:
        """Make the object visible, conditionally: raises PreconditionFailed if the key is taken.

        A failed one leaves the upload unfinished: abort it.
        Raises StoreUnavailable when nobody knows; the header at the key then decides.
        """

    @abstractmethod
    async def abort(self) -> None:
        """Give up; idempotent; frees what the parts took."""


class ObjectStore(ABC):
    """Keys are UTF-8 strings with `/`; objects are immutable and never overwritten.

    Every method may raise Throttled, StoreUnavailable, AccessDenied or BucketMissing. Drivers never
    repeat a request themselves: the retry wrapper and `create_once` do.
    """

    @abstractmethod
    async def create(self, key: str, chunks: Chunks) -> None:
        """Create `key` if it is absent (`If-None-Match: *`); raises PreconditionFailed if taken.

        chunks: buffers, not copied where the driver can help it; leave them unchanged until this
        returns. A cancelled or failed create may still happen, at any later time.
        Source: RFC 9110, 13.1.2.
        """

    @abstractmethod
    async def get(self, key: str) -> bytes:
        """The whole object. Raises NotFound."""

    @abstractmethod
    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        """Byte ranges [start, end) of one object, in the order asked.

        A range beyond the object's end comes back short (empty when it starts there).
        Raises NotFound.
        """

    @abstractmethod
    def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """All objects whose key starts with `prefix` and sorts after `start_after`, in byte order.

        Pages are fetched as the iterator is consumed.
        """

    @abstractmethod
    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; an absent one is no error."""

    @abstractmethod
    async def start_upload(self, key: str) -> Upload:
        """Begin a multipart upload of a fresh key."""

    @abstractmethod
    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        """Unfinished multipart uploads under `prefix`."""

    @abstractmethod
    async def abort_upload(self, upload: UploadInfo) -> None:
        """Abort an unfinished upload of whoever; an absent one is no error."""

    @abstractmethod
    async def date_ms(self) -> int:
        """The store's own clock (its `Date` header), Unix milliseconds."""

    @abstractmethod
    async def close(self) -> None:
        """Release connections; idempotent."""

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """One range; see `get_ranges`."""
        return (await self.get_ranges(key, [(start, end)]))[0]
