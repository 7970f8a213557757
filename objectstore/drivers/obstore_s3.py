"""S3 through obstore, whose requests run outside the interpreter lock.

Imports obstore: load this module only where this driver is in use. What obstore does not offer
(multipart uploads by hand, the `Date`, listing by a prefix that is no whole path segment) is made
up for here and in `s3_requests`.
"""

from __future__ import annotations

import asyncio
import builtins
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store as ObstoreS3

from ..errors import PreconditionFailed, StoreError, StoreUnavailable
from ..ranges import cut_ranges, merge_ranges
from ..settings import S3Address
from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from .aws_credentials import AwsCredentials
from .s3_errors import RangeBeyondEnd, s3_error

if TYPE_CHECKING:
    from .s3_requests import S3Requests

THREADS = 4
PAGE_ROWS = 1000
KEYS_GOOD_FOR = timedelta(minutes=2)
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_DETAIL = re.compile(r"<Message>([^<]*)</Message>")
T = TypeVar("T")


class ObstoreS3Store(ObjectStore):
    """One bucket. executor: for the blocking calls; without one the driver has 4 threads."""

    def __init__(
        self,
        address: S3Address,
        executor: Executor | None = None,
        credentials: AwsCredentials | None = None,
    ) -> None:
        self.address = address
        self._own_executor = (
            ThreadPoolExecutor(THREADS, thread_name_prefix="s3-requests")
            if executor is None
            else None
        )
        self._executor: Executor = executor or self._own_executor  # type: ignore[assignment]
        self._credentials = credentials or AwsCredentials()
        self._requests: S3Requests | None = None
        self._slots = asyncio.Semaphore(address.max_connections)
        options: dict[str, Any] = {
            "allow_http": True,
            "connect_timeout": timedelta(seconds=address.connect_timeout_s),
            # Whole requests are timed here, by size: this one is for those given up already.
            "timeout": timedelta(seconds=address.timeout_s(256 << 20)),
            "pool_max_idle_per_host": str(address.max_connections),
        }
        if bundle := os.environ.get("AWS_CA_BUNDLE"):
            with open(bundle, "rb") as file:
                options["root_certificate"] = file.read()
        self._store = ObstoreS3(
            address.bucket,
            config={
                # With a virtual host the endpoint must name the bucket itself.
                "endpoint": (address.endpoint or f"https://s3.{address.region}.amazonaws.com")
                if address.path_style
                else address.base_url,
                "region": address.region,
                "virtual_hosted_style_request": not address.path_style,
                "unsigned_payload": address.base_url.startswith("https:"),
                "conditional_put": "etag",
            },
            client_options=options,  # type: ignore[arg-type]
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=0)},
            credential_provider=self._provide,
        )

    @classmethod
    async def open(
        cls,
        address: S3Address,
        executor: Executor | None = None,
        credentials: AwsCredentials | None = None,
    ) -> ObstoreS3Store:
        """Raises AccessDenied where there are no credentials at all."""
        store = cls(address, executor, credentials)
        try:
            await store.blocking(store._credentials.current)
        except BaseException:
            await store.close()
            raise
        return store

    async def create(self, key: str, chunks: Chunks) -> None:
        size_bytes = sum(memoryview(chunk).nbytes for chunk in chunks)
        await self._call(
            f"create {key}",
            lambda: self._store.put_async(
                key, [*chunks] or b"", mode="create", use_multipart=False
            ),
            size_bytes,
        )

    async def get(self, key: str) -> bytes:
        async def fetch() -> bytes:
            answer = await self._store.get_async(key)
            return (await answer.bytes_async()).to_bytes()

        return await self._call(f"get {key}", fetch, 64 << 20)

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        # Not obstore's own get_ranges: it panics where a range lies beyond the object's end.
        merged = merge_ranges(ranges)
        if len(merged) == 1:
            pieces = [await self._get_range(key, *merged[0])]
        else:
            pieces = await asyncio.gather(*(self._get_range(key, *bounds) for bounds in merged))
        return cut_ranges(ranges, merged, pieces)

    async def _get_range(self, key: str, start: int, end: int) -> bytes:
        async def fetch() -> bytes:
            return (await self._store.get_range_async(key, start=start, end=end)).to_bytes()

        try:
            return await self._call(f"get {key}", fetch, end - start)
        except RangeBeyondEnd:
            return b""

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        # obstore lists whole path segments: take the directory, skip to the prefix, stop behind.
        directory = prefix.rpartition("/")[0]
        after = max(start_after, _just_before(prefix)) if prefix != directory + "/" else start_after
        stream = self._store.list(directory or None, offset=after or None, chunk_size=PAGE_ROWS)
        pages = aiter(stream)
        what = f"list {prefix}"
        while True:
            page = await self._call(what, lambda: anext(pages, None))
            if page is None:
                return
            for row in page:
                key = row["path"]
                if key.startswith(prefix):
                    if key > start_after:
                        modified_ms = int(row["last_modified"].timestamp() * 1000)
                        yield ObjectInfo(key, row["size"], modified_ms)
                elif key > prefix:
                    return

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self._call("delete", lambda: self._store.delete_async([*keys]))

    async def start_upload(self, key: str) -> Upload:
        requests = await self._ready_requests()
        upload_id = await self.blocking(requests.start_upload, key)
        return _PlainUpload(self, requests, key, upload_id)

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        requests = await self._ready_requests()
        return await self.blocking(requests.list_uploads, prefix)

    async def abort_upload(self, upload: UploadInfo) -> None:
        requests = await self._ready_requests()
        await self.blocking(requests.abort_upload, upload.key, upload.token)

    async def date_ms(self) -> int:
        requests = await self._ready_requests()
        return await self.blocking(requests.date_ms)

    async def close(self) -> None:
        if self._own_executor is not None:
            self._own_executor.shutdown(wait=False)
        if self._requests is not None:
            self._requests.close()

    async def blocking(self, call: Callable[..., T], *arguments: object) -> T:
        """Run a call in the driver's executor."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    async def _ready_requests(self) -> S3Requests:
        if self._requests is None:
            # Importing takes a while and some memory, so not before the first upload.
            self._requests = await self.blocking(self._make_requests)
        return self._requests

    def _make_requests(self) -> S3Requests:
        from .s3_requests import S3Requests

        return S3Requests(self.address, self._credentials)

    def _provide(self) -> Any:
        """Called by obstore, in a thread of its own, when the last keys are no longer good."""
        keys = self._credentials.current()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + KEYS_GOOD_FOR
            if self._credentials.can_expire
            else None,
        }

    async def _call(self, what: str, request: Callable[[], Awaitable[T]], size_bytes: int = 0) -> T:
        async with self._slots:
            try:
                async with asyncio.timeout(self.address.timeout_s(size_bytes)):
                    return await request()
            except TimeoutError as error:
                raise StoreUnavailable(f"{what}: no answer in time") from error
            except (BaseError, FileNotFoundError, PermissionError) as error:
                raise self._translated(what, error) from error

    def _translated(self, what: str, error: Exception) -> StoreError:
        """obstore tells kinds by class and the rest in words: read the status from those."""
        if isinstance(error, AlreadyExistsError | PreconditionError):
            return PreconditionFailed(f"{what}: the key is taken")
        text = str(error).partition("\n\nDebug source")[0]
        found_status, found_code = _STATUS.search(text), _CODE.search(text)
        detail = _DETAIL.search(text)
        status = int(found_status[1]) if found_status else None
        if status is None:
            if isinstance(error, NotFoundError):
                status = 404
            elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
                status = 403
            elif "incorrectly configured region" in text:
                status = 301
        if found_code or status:
            words = detail[1] if detail else ""
        else:
            # "Generic S3 error: Error performing PUT <url> in <time> - <what happened>"
            words = text.rpartition(" - ")[2]
        code = found_code[1] if found_code else ""
        return s3_error(what, self.address.bucket, status, code, words)


class _PlainUpload(Upload):
    def __init__(
        self, store: ObstoreS3Store, requests: S3Requests, key: str, upload_id: str
    ) -> None:
        self._store = store
        self._requests = requests
        self._key = key
        self._upload_id = upload_id
        self._etags: list[str] = []

    async def part(self, chunks: Chunks) -> None:
        number = len(self._etags) + 1
        self._etags.append(
            await self._store.blocking(
                self._requests.put_part, self._key, self._upload_id, number, chunks
            )
        )

    async def complete(self) -> None:
        if not self._etags:
            await self.part([b""])
        await self._store.blocking(
            self._requests.complete_upload, self._key, self._upload_id, self._etags
        )

    async def abort(self) -> None:
        await self._store.blocking(self._requests.abort_upload, self._key, self._upload_id)


def _just_before(prefix: str) -> str:
    """A string below `prefix` with no key of ours between the two; "" for "".

    Listings start after a key, and `prefix` itself may be one.
    """
    if not prefix:
        return ""
    last = ord(prefix[-1])
    return prefix[:-1] + chr(last - 1) + "~~" if last > 33 else prefix[:-1]
