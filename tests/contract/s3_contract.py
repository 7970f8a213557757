"""The contract for S3, whichever the server; and what goes wrong with servers and credentials."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from objectstore.errors import AccessDenied, BucketMissing, StoreError, StoreUnavailable, Throttled
from objectstore.open import create_bucket, open_driver
from objectstore.settings import StoreSettings
from objectstore.store import ObjectStore

from .contract_suite import StoreContract, keys_of

BUCKET = "headwater-contract"
_names = random.Random()
# Endpoints of servers that have our bucket by now.
_with_bucket: set[str] = set()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def driver(uri: str, settings: StoreSettings) -> AsyncIterator[ObjectStore]:
    store = await open_driver(uri, settings=settings, now_ms=now_ms)
    try:
        yield store
    finally:
        await store.close()


async def every_request(
    store: ObjectStore, expect: type[StoreError] | tuple[type[StoreError], ...]
) -> None:
    """Each kind of request raises the same kind of error."""
    requests: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("create", lambda: store.create("k", [b"x"])),
        ("get", lambda: store.get("k")),
        ("get_range", lambda: store.get_range("k", 0, 4)),
        ("get_ranges", lambda: store.get_ranges("k", [(0, 4), (1 << 20, 2 << 20)])),
        ("list", lambda: keys_of(store, "k/")),
        ("delete", lambda: store.delete(["k"])),
        ("start_upload", lambda: store.start_upload("k")),
        ("list_uploads", lambda: store.list_uploads("")),
    ]
    for name, request in requests:
        try:
            await request()
        except expect:
            continue
        except Exception as error:
            raise AssertionError(f"{name} raised {error!r}") from error
        raise AssertionError(f"{name} raised nothing")


class S3Contract(StoreContract):
    """Subclasses say which driver; the `s3_endpoint` fixture which server."""

    DRIVER: str

    @pytest.fixture(autouse=True)
    def _reach_server(self, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "minioadmin")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "minioadmin")
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        self.monkeypatch = monkeypatch
        self.settings = StoreSettings(s3_driver=self.DRIVER, s3_endpoint=s3_endpoint)
        self.prefix = f"s3://{BUCKET}/t{_names.getrandbits(64):x}"
        if s3_endpoint not in _with_bucket:
            asyncio.run(create_bucket(self.prefix, self.settings))
            _with_bucket.add(s3_endpoint)
        yield

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ObjectStore]:
        async with driver(self.prefix, self.settings) as store:
            yield store

    def test_a_missing_bucket_is_named(self) -> None:
        async def check() -> None:
            async with driver("s3://no-such-bucket-here/p", self.settings) as store:
                await every_request(store, BucketMissing)
                with pytest.raises(BucketMissing, match="no-such-bucket-here"):
                    await store.create("k", [b"x"])

        asyncio.run(check())

    def test_a_bucket_is_made_once_and_making_it_again_is_no_error(self) -> None:
        uri = f"s3://headwater-{_names.getrandbits(48):x}"

        async def check() -> None:
            await create_bucket(uri, self.settings)
            await create_bucket(uri, self.settings)
            async with driver(uri, self.settings) as store:
                assert await keys_of(store, "") == []

        asyncio.run(check())

    def test_a_dead_endpoint_is_unavailable(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        settings = replace(self.settings, s3_endpoint=f"http://127.0.0.1:{port}")

        async def check() -> None:
            async with driver(self.prefix, settings) as store:
                await every_request(store, StoreUnavailable)

        asyncio.run(check())

    def test_a_server_that_does_not_answer_is_given_up(self) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async def check() -> None:
            server = await asyncio.start_server(silent, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            settings = replace(
                self.settings, s3_endpoint=f"http://127.0.0.1:{port}", request_timeout_s=0.2
            )
            async with server, driver(self.prefix, settings) as store:
                # The time-out of a whole get allows for a large object.
                for request in (store.create("k", [b"x"]), store.get_range("k", 0, 24)):
                    with pytest.raises(StoreUnavailable):
                        await request

        asyncio.run(check())

    @pytest.mark.parametrize(
        ("status", "code", "error"),
        [
            (503, "SlowDown", Throttled),
            (429, "TooManyRequests", Throttled),
            (500, "InternalError", StoreUnavailable),
            (502, "", StoreUnavailable),
            (403, "AccessDenied", AccessDenied),
            (403, "ExpiredToken", AccessDenied),
            (400, "ExpiredToken", AccessDenied),
            (404, "NoSuchBucket", BucketMissing),
            (301, "PermanentRedirect", AccessDenied),
        ],
    )
    def test_a_refusal_is_sorted_and_sent_once(
        self, status: int, code: str, error: type[StoreError]
    ) -> None:
        requests = 0

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            head = await reader.readuntil(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if b"expect: 100-continue" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await reader.readexactly(length)
            # An answer to HEAD has no body. botocore asks so for a bucket's region after a 301,
            # and tries that region once.
            asked = not head.startswith(b"HEAD")
            requests += asked
            body = (
                f"<Error><Code>{code}</Code><Message>m</Message></Error>" if code and asked else ""
            )
            writer.write(
                f"HTTP/1.1 {status} Refused\r\nContent-Length: {len(body)}\r\n"
                "x-amz-bucket-region: eu-west-1\r\n"
                f"Content-Type: application/xml\r\nConnection: close\r\n\r\n{body}".encode()
            )
            await writer.drain()
            writer.close()

        async def check() -> None:
            nonlocal requests
            server = await asyncio.start_server(refuse, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            settings = replace(self.settings, s3_endpoint=f"http://127.0.0.1:{port}")
            async with server, driver(self.prefix, settings) as store:
                with pytest.raises(error) as caught:
                    await store.create("some/key", [b"x" * 100])
                assert type(caught.value) is error
                assert "some/key" in str(caught.value)
                assert requests == 1 or (status == 301 and requests == 2)
                requests = 0
                with pytest.raises(error):
                    await store.get_range("some/key", 0, 24)
                assert requests == 1 or status == 301

        asyncio.run(check())


class CredentialContract:
    """What only a server that checks signatures can show."""

    def test_wrong_credentials_are_denied(self: S3Contract) -> None:  # type: ignore[misc]
        self.monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")

        async def check() -> None:
            async with driver(self.prefix, self.settings) as store:
                await every_request(store, AccessDenied)
                with pytest.raises(AccessDenied, match="AWS_SECRET_ACCESS_KEY"):
                    await store.create("k", [b"x"])

        asyncio.run(check())
