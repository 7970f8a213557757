"""S3 through aiobotocore. Imports it: load this module only where this driver is in use."""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from ..errors import AccessDenied, NotFound, StoreError, StoreUnavailable
from ..ranges import cut_ranges, merge_ranges
from ..settings import S3Address
from ..store import Chunks, ObjectInfo, ObjectStore, Upload, UploadInfo
from .aws_credentials import NO_CREDENTIALS
from .s3_errors import RangeBeyondEnd, s3_error

DELETE_BATCH = 1000
T = TypeVar("T")


class S3Store(ObjectStore):
    """One bucket. Opened by `S3Store.open`, inside the loop that uses it."""

    def __init__(self, address: S3Address) -> None:
        self.address = address
        self._stack = AsyncExitStack()
        self._client: Any = None
        # A wait for a connection must not count towards a request's time-out.
        self._slots = asyncio.Semaphore(address.max_connections)

    @classmethod
    async def open(cls, address: S3Address) -> S3Store:
        store = cls(address)
        # A number of retries of 0 would do for botocore's legacy mode only.
        config = AioConfig(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=address.connect_timeout_s,
            read_timeout=address.request_timeout_s,
            max_pool_connections=address.max_connections,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "addressing_style": "path" if address.path_style else "virtual",
                # TLS protects the body on its way; hashing it as well would only cost time.
                "payload_signing_enabled": not address.base_url.startswith("https:"),
            },
        )
        try:
            store._client = await store._stack.enter_async_context(
                get_session().create_client(
                    "s3",
                    region_name=address.region,
                    endpoint_url=address.endpoint,
                    verify=os.environ.get("AWS_CA_BUNDLE") or None,
                    config=config,
                )
            )
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise AccessDenied(f"{NO_CREDENTIALS} ({error})") from error
        return store

    async def create(self, key: str, chunks: Chunks) -> None:
        # The library wants one buffer; a single one goes through uncopied.
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        await self._call(
            f"create {key}",
            lambda: self._client.put_object(
                Bucket=self.address.bucket, Key=key, Body=bytes(body), IfNoneMatch="*"
            ),
            memoryview(body).nbytes,
        )

    async def get(self, key: str) -> bytes:
        return await self._get(key, {})

    async def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> builtins.list[bytes]:
        merged = merge_ranges(ranges)
        pieces = await asyncio.gather(*(self._get_range(key, *bounds) for bounds in merged))
        return cut_ranges(ranges, merged, pieces)

    async def _get_range(self, key: str, start: int, end: int) -> bytes:
        try:
            return await self._get(key, {"Range": f"bytes={start}-{end - 1}"})
        except RangeBeyondEnd:
            return b""

    async def _get(self, key: str, arguments: dict[str, str]) -> bytes:
        async def fetch() -> bytes:
            answer = await self._client.get_object(Bucket=self.address.bucket, Key=key, **arguments)
            async with answer["Body"] as body:
                return bytes(await body.read())

        # The size is not known before; the library's read time-out ends a stalled transfer.
        return await self._call(f"get {key}", fetch, 64 << 20)

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        arguments: dict[str, Any] = {"Bucket": self.address.bucket, "Prefix": prefix}
        if start_after:
            arguments["StartAfter"] = start_after
        while True:
            answer = await self._call(
                f"list {prefix}",
                lambda: self._client.list_objects_v2(**arguments),
            )
            for row in answer.get("Contents", ()):
                modified_ms = int(row["LastModified"].timestamp() * 1000)
                yield ObjectInfo(row["Key"], row["Size"], modified_ms)
            if not answer.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = answer["NextContinuationToken"]

    async def delete(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), DELETE_BATCH):
            batch = {
                "Objects": [{"Key": key} for key in keys[first : first + DELETE_BATCH]],
                "Quiet": True,
            }

            async def send(batch: dict[str, Any] = batch) -> Any:
                return await self._client.delete_objects(Bucket=self.address.bucket, Delete=batch)

            answer = await self._call("delete", send)
            for error in answer.get("Errors", ()):
                if error.get("Code") != "NoSuchKey":
                    what = f"delete {error.get('Key')}"
                    status = 403 if error.get("Code") == "AccessDenied" else None
                    raise s3_error(what, self.address.bucket, status, error.get("Code", ""))

    async def start_upload(self, key: str) -> Upload:
        answer = await self._call(
            f"start upload {key}",
            lambda: self._client.create_multipart_upload(Bucket=self.address.bucket, Key=key),
        )
        return _S3Upload(self, key, answer["UploadId"])

    async def list_uploads(self, prefix: str) -> builtins.list[UploadInfo]:
        found: builtins.list[UploadInfo] = []
        arguments: dict[str, Any] = {"Bucket": self.address.bucket, "Prefix": prefix}
        while True:
            answer = await self._call(
                f"list uploads {prefix}",
                lambda: self._client.list_multipart_uploads(**arguments),
            )
            for row in answer.get("Uploads", ()):
                started_ms = int(row["Initiated"].timestamp() * 1000)
                if row["Key"].startswith(prefix):
                    found.append(UploadInfo(row["Key"], row["UploadId"], started_ms))
            if not answer.get("IsTruncated"):
                return sorted(found, key=lambda info: (info.key, info.token))
            arguments["KeyMarker"] = answer["NextKeyMarker"]
            arguments["UploadIdMarker"] = answer["NextUploadIdMarker"]

    async def abort_upload(self, upload: UploadInfo) -> None:
        try:
            await self._call(
                f"abort upload {upload.key}",
                lambda: self._client.abort_multipart_upload(
                    Bucket=self.address.bucket, Key=upload.key, UploadId=upload.token
                ),
            )
        except NotFound:
            pass

    async def date_ms(self) -> int:
        async def head() -> Any:
            try:
                return await self._client.head_bucket(Bucket=self.address.bucket)
            except ClientError as error:
                return error.response  # a refusal has a date too

        answer = await self._call("date", head)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if date is None:
            raise StoreUnavailable("the store's answers have no Date")
        return int(parsedate_to_datetime(date).timestamp() * 1000)

    async def close(self) -> None:
        await self._stack.aclose()

    async def put_part(
        self, key: str, upload_id: str, number: int, chunks: Chunks
    ) -> dict[str, Any]:
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        answer = await self._call(
            f"part {number} of {key}",
            lambda: self._client.upload_part(
                Bucket=self.address.bucket,
                Key=key,
                UploadId=upload_id,
                PartNumber=number,
                Body=bytes(body),
            ),
            memoryview(body).nbytes,
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    async def complete_upload(
        self, key: str, upload_id: str, parts: Sequence[dict[str, Any]]
    ) -> None:
        await self._call(
            f"complete upload {key}",
            lambda: self._client.complete_multipart_upload(
                Bucket=self.address.bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": [*parts]},
                IfNoneMatch="*",
            ),
        )

    async def _call(self, what: str, request: Callable[[], Awaitable[T]], size_bytes: int = 0) -> T:
        async with self._slots:
            try:
                async with asyncio.timeout(self.address.timeout_s(size_bytes)):
                    return await request()
            except ClientError as error:
                raise self._translated(what, error) from error
            except (NoCredentialsError, PartialCredentialsError) as error:
                raise AccessDenied(f"{what}: {NO_CREDENTIALS} ({error})") from error
            except TimeoutError as error:
                raise StoreUnavailable(f"{what}: no answer in time") from error
            except (BotoCoreError, aiohttp.ClientError, OSError) as error:
                raise StoreUnavailable(f"{what}: {error}") from error

    def _translated(self, what: str, error: ClientError) -> StoreError:
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = str(answer.get("Error", {}).get("Code", ""))
        if code.isdigit():  # botocore puts the status there where the answer has no body
            code = ""
        detail = str(answer.get("Error", {}).get("Message", ""))
        return s3_error(what, self.address.bucket, status, code, detail)


class _S3Upload(Upload):
    def __init__(self, store: S3Store, key: str, upload_id: str) -> None:
        self._store = store
        self._key = key
        self._upload_id = upload_id
        self._parts: list[dict[str, Any]] = []

    async def part(self, chunks: Chunks) -> None:
        number = len(self._parts) + 1
        self._parts.append(await self._store.put_part(self._key, self._upload_id, number, chunks))

    async def complete(self) -> None:
        if not self._parts:
            await self.part([b""])
        await self._store.complete_upload(self._key, self._upload_id, self._parts)

    async def abort(self) -> None:
        await self._store.abort_upload(UploadInfo(self._key, self._upload_id, 0))
