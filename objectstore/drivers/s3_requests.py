"""Plain signed requests to S3, for what a driver's library does not offer.

obstore has no multipart upload by hand (conditional completion, listing, aborting) and no `Date`.
These requests are rare or large, so each is one blocking call of urllib3 in the driver's executor,
signed by botocore; a whole boto3 client would cost a running broker more memory than everything
else of the driver.

Source: Amazon S3 API reference; AWS Signature Version 4.
"""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import escape

import urllib3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ..errors import StoreError, StoreUnavailable
from ..settings import S3Address
from ..store import Chunks, UploadInfo
from .aws_credentials import AwsCredentials
from .s3_errors import s3_error

_SLICE_BYTES = 1 << 20
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Signer(S3SigV4Auth):
    """Takes the body's digest from us: botocore cannot read a list of buffers."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context["digest"])


class S3Requests:
    """Blocking: call every method in an executor. Thread-safe."""

    def __init__(self, address: S3Address, credentials: AwsCredentials) -> None:
        self.address = address
        self._credentials = credentials
        self._pool = urllib3.PoolManager(
            maxsize=8,
            retries=False,
            ca_certs=os.environ.get("AWS_CA_BUNDLE") or None,
        )

    def close(self) -> None:
        self._pool.clear()

    # --- multipart uploads ---

    def start_upload(self, key: str) -> str:
        """Returns the upload id."""
        answer = self._require(f"start upload {key}", "POST", key, {"uploads": ""})
        found = _find(answer.body, "UploadId")
        if not found:
            raise StoreUnavailable(f"start upload {key}: the answer has no upload id")
        return found

    def put_part(self, key: str, upload_id: str, number: int, chunks: Chunks) -> str:
        """Returns the part's ETag, as `complete_upload` wants it."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = self._require(f"part {number} of {key}", "PUT", key, query, chunks)
        return answer.headers.get("ETag", "")

    def complete_upload(self, key: str, upload_id: str, etags: list[str]) -> None:
        """Conditionally. S3 may answer 200 and tell of an error in the body."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        what = f"complete upload {key}"
        headers = {"If-None-Match": "*", "Content-Type": "application/xml"}
        answer = self._require(what, "POST", key, {"uploadId": upload_id}, [body], headers)
        code = _find(answer.body, "Code")
        if code:
            raise s3_error(what, self.address.bucket, None, code)

    def abort_upload(self, key: str, upload_id: str) -> None:
        what = f"abort upload {key}"
        answer = self.send(what, "DELETE", key, {"uploadId": upload_id})
        if answer.status == 404 and _find(answer.body, "Code") == "NoSuchUpload":
            return
        self._check(what, answer)

    def list_uploads(self, prefix: str) -> list[UploadInfo]:
        found: list[UploadInfo] = []
        marker: dict[str, str] = {}
        while True:
            query = {"uploads": "", "prefix": prefix, **marker}
            answer = self._require(f"list uploads {prefix}", "GET", "", query)
            root = _parse(answer.body, f"list uploads {prefix}")
            for upload in root.iter("Upload"):
                key, token = upload.findtext("Key", ""), upload.findtext("UploadId", "")
                if key.startswith(prefix):
                    found.append(UploadInfo(key, token, _iso_ms(upload.findtext("Initiated", ""))))
            if root.findtext("IsTruncated") != "true":
                return sorted(found, key=lambda info: (info.key, info.token))
            marker = {
                "key-marker": root.findtext("NextKeyMarker", ""),
                "upload-id-marker": root.findtext("NextUploadIdMarker", ""),
            }

    # --- the bucket ---

    def date_ms(self) -> int:
        """The store's clock in whole seconds, from any answer: a refusal has a date too."""
        answer = self.send("date", "HEAD", "")
        if (date := answer.headers.get("Date")) is None:
            raise StoreUnavailable("the store's answers have no Date")
        return int(parsedate_to_datetime(date).timestamp() * 1000)

    def require_bucket(self) -> None:
        """Raises BucketMissing, AccessDenied. By GET: the answer to HEAD does not say why."""
        self._require("reach the bucket", "GET", "", {"list-type": "2", "max-keys": "1"})

    # --- one request ---

    def send(
        self,
        what: str,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        chunks: Chunks = (),
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One attempt. Raises StoreUnavailable when there is no answer; a refusal is an answer."""
        size_bytes = sum(memoryview(chunk).nbytes for chunk in chunks)
        path = f"/{quote(key, safe='/~')}" if key else ""
        pairs = sorted((query or {}).items())
        text = "&".join(f"{quote(k, safe='~')}={quote(v, safe='~')}" for k, v in pairs)
        url = self.address.base_url + path + (f"?{text}" if text else "")
        request = AWSRequest(method=method, url=url, headers=dict(headers or {}))
        request.context["digest"] = self._digest(url, chunks)
        self._sign(request)
        sent = {str(name): str(value) for name, value in request.headers.items()}
        sent["Content-Length"] = str(size_bytes)
        timeout_s = self.address.timeout_s(size_bytes)
        try:
            response = self._pool.request(
                method,
                url,
                body=_slices(chunks) if size_bytes else None,  # type: ignore[arg-type]
                headers=sent,
                redirect=False,
                timeout=urllib3.Timeout(connect=self.address.connect_timeout_s, read=timeout_s),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise StoreUnavailable(f"{what}: {error}") from error
        return Answer(response.status, response.headers, response.data)

    def _digest(self, url: str, chunks: Chunks) -> str:
        # TLS protects the body on its way; hashing it as well would only cost time.
        if url.startswith("https:") and chunks:
            return _UNSIGNED
        digest = hashlib.sha256()
        for chunk in chunks:
            digest.update(chunk)
        return digest.hexdigest()

    def _sign(self, request: AWSRequest) -> None:
        keys = self._credentials.current()
        credentials = Credentials(keys.access_key, keys.secret_key, keys.token)
        _Signer(credentials, "s3", self.address.region).add_auth(request)

    def _require(
        self,
        what: str,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        chunks: Chunks = (),
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        answer = self.send(what, method, key, query, chunks, headers)
        self._check(what, answer)
        return answer

    def _check(self, what: str, answer: Answer) -> None:
        if not 200 <= answer.status < 300:
            code, detail = _find(answer.body, "Code"), _find(answer.body, "Message")
            raise s3_error(what, self.address.bucket, answer.status, code, detail)


def _slices(chunks: Chunks) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        for start in range(0, len(view), _SLICE_BYTES):
            yield view[start : start + _SLICE_BYTES]


def _parse(body: bytes, what: str) -> ElementTree.Element:
    """An answer without its namespaces. Raises StoreUnavailable: a proxy's page, perhaps."""
    try:
        root: Any = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise StoreUnavailable(f"{what}: the answer is not XML: {body[:80]!r}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root  # type: ignore[no-any-return]


def _find(body: bytes, tag: str) -> str:
    """Text of the first such element, "" where there is none."""
    if not body:
        return ""
    try:
        root = _parse(body, tag)
    except StoreError:
        return ""
    for element in root.iter(tag):
        return element.text or ""
    return ""


def _iso_ms(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
    except ValueError:
        return 0
