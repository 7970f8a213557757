"""From a URI to a store: the driver, and what is always around it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from random import Random
from urllib.parse import unquote

from .layers import LayerConfig, LayeredStore
from .settings import S3Address, StoreSettings, resolve_s3
from .store import ObjectStore
from .wrappers.hedge_create import HedgeCreateConfig
from .wrappers.prefix import PrefixStore

__all__ = ["StoreSettings", "StoreUri", "create_bucket", "display_uri", "open_store", "parse_uri"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FORMS = "memory:, file:///directory, file://./directory or s3://bucket/prefix"


@dataclass(frozen=True)
class StoreUri:
    """A parsed URI. scheme: memory, file or s3.

    directory: absolute (file). bucket and prefix: prefix ends in `/` or is empty (s3).
    """

    scheme: str
    directory: str = ""
    bucket: str = ""
    prefix: str = ""

    def __str__(self) -> str:
        if self.scheme == "memory":
            return "memory:"
        if self.scheme == "file":
            return f"file://{self.directory}"
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def parse_uri(uri: str) -> StoreUri:
    """Raises ValueError with the forms that are understood."""
    if uri in ("memory:", "memory://"):
        return StoreUri("memory")
    scheme, separator, rest = uri.partition("://")
    if separator and scheme == "file":
        # file://./x and file://../x are ours: relative to the current directory.
        if not rest.startswith(("/", "./", "../")) and rest not in (".", ".."):
            raise ValueError(
                f"store {uri!r}: write file:///{rest} for an absolute directory or "
                f"file://./{rest} for a relative one"
            )
        return StoreUri("file", directory=os.path.abspath(unquote(rest)))
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(
                f"store {uri!r}: {bucket!r} is no bucket name (3 to 63 of a-z, 0-9, `-` and `.`)"
            )
        segments = [segment for segment in prefix.split("/") if segment]
        if any(segment in (".", "..") for segment in segments) or not prefix.isascii():
            raise ValueError(f"store {uri!r}: the prefix must be plain ASCII without `..`")
        return StoreUri("s3", bucket=bucket, prefix="/".join([*segments, ""]) if segments else "")
    raise ValueError(f"store {uri!r} is none of {_FORMS}")


def display_uri(uri: str) -> str:
    """The canonical form, for messages: absolute, without trailing slashes."""
    return str(parse_uri(uri))


async def open_store(
    uri: str,
    *,
    settings: StoreSettings,
    rng: Random,
    now_ms: Callable[[], int],
    executor: Executor | None = None,
    make_directory: bool = True,
    layers: LayerConfig | None = None,
) -> LayeredStore:
    """The store at `uri` with its wrappers: retries of what is no create, a second write of the log
    when one is slow (of a remote store), priorities, the meter.

    Makes the directory of a file store where it is missing, but never a bucket.
    executor: for blocking calls; without one the driver has a few threads of its own.
    Raises ValueError (bad URI), UnsuitableStore, AccessDenied (no credentials, no permission).
    An S3 endpoint that is away is no error here: the first request meets it.
    """
    driver = await open_driver(
        uri, settings=settings, now_ms=now_ms, executor=executor, make_directory=make_directory
    )
    if layers is None and parse_uri(uri).scheme == "s3":
        layers = LayerConfig(hedge_create=HedgeCreateConfig())
    return LayeredStore(driver, rng, layers)


async def open_driver(
    uri: str,
    *,
    settings: StoreSettings,
    now_ms: Callable[[], int],
    executor: Executor | None = None,
    make_directory: bool = True,
) -> ObjectStore:
    """`open_store` without any retries: one request per call."""
    parsed = parse_uri(uri)
    if parsed.scheme == "memory":
        from .drivers.memory import MemoryStore

        return MemoryStore(now_ms)
    if parsed.scheme == "file":
        from .drivers.file import FileStore

        return await FileStore.open(parsed.directory, now_ms, executor, make_root=make_directory)
    address = await s3_address(parsed, settings)
    store: ObjectStore
    if settings.s3_driver == "aiobotocore":
        from .drivers.s3 import S3Store

        store = await S3Store.open(address)
    else:
        from .drivers.obstore_s3 import ObstoreS3Store

        store = await ObstoreS3Store.open(address, executor)
    return PrefixStore(store, parsed.prefix) if parsed.prefix else store


async def s3_address(parsed: StoreUri, settings: StoreSettings) -> S3Address:
    """With endpoint and region of the profile in use, which are read from a file."""
    from .drivers.aws_credentials import AwsCredentials

    credentials = AwsCredentials()
    endpoint = region = None
    address = resolve_s3(parsed.bucket, settings)
    if address.endpoint is None:
        endpoint = await asyncio.to_thread(credentials.profile_endpoint)
        address = resolve_s3(parsed.bucket, settings, profile_endpoint=endpoint)
    if endpoint is not None or not address.region_known:
        region = await asyncio.to_thread(credentials.profile_region)
    return resolve_s3(parsed.bucket, settings, profile_region=region, profile_endpoint=endpoint)


async def create_bucket(uri: str, settings: StoreSettings) -> None:
    """Make the bucket of an `s3://` URI; nothing to do where it is ours already or for files.

    Raises AccessDenied, StoreUnavailable.
    """
    parsed = parse_uri(uri)
    if parsed.scheme != "s3":
        return
    from .drivers.s3_setup import BucketSetup

    setup = await asyncio.to_thread(BucketSetup, await s3_address(parsed, settings))
    try:
        await asyncio.to_thread(setup.create_bucket)
    finally:
        setup.close()
