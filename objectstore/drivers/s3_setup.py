"""What is asked of a bucket once, when it is made or examined: by boto3.

Importing boto3 and loading its client takes some tenths of a second and twenty megabytes: load this
module only for `--create-bucket` and `headwater doctor`. What a running broker sends is in the
drivers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)

from ..errors import AccessDenied, StoreUnavailable
from ..settings import DEFAULT_REGION, S3Address
from .aws_credentials import NO_CREDENTIALS
from .s3_errors import s3_error

_NOT_SET = frozenset({"NoSuchLifecycleConfiguration"})

T = TypeVar("T")


class BucketSetup:
    """Blocking: call every method in an executor. Raises AccessDenied where no keys are found."""

    def __init__(self, address: S3Address) -> None:
        self.address = address
        self._client: Any = self._asked("reach the bucket", self._open)

    def close(self) -> None:
        self._client.close()

    def create_bucket(self) -> None:
        """Does nothing where the bucket is ours already. Raises AccessDenied, StoreUnavailable."""
        place: dict[str, Any] = {}
        if self.address.endpoint is None and self.address.region != DEFAULT_REGION:
            place["CreateBucketConfiguration"] = {"LocationConstraint": self.address.region}

        def create() -> None:
            try:
                self._client.create_bucket(Bucket=self.address.bucket, **place)
            except self._client.exceptions.BucketAlreadyOwnedByYou:
                return

        self._asked("create the bucket", create)

    def versioning(self) -> Mapping[str, Any]:
        """The answer to GetBucketVersioning."""
        return self._asked(
            "bucket versioning",
            lambda: dict(self._client.get_bucket_versioning(Bucket=self.address.bucket)),
        )

    def lifecycle(self) -> Mapping[str, Any]:
        """The answer to GetBucketLifecycleConfiguration, {} where there are no rules."""

        def get() -> dict[str, Any]:
            try:
                bucket = self.address.bucket
                return dict(self._client.get_bucket_lifecycle_configuration(Bucket=bucket))
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in _NOT_SET:
                    return {}
                raise

        return self._asked("bucket lifecycle", get)

    def _open(self) -> Any:
        address = self.address
        return boto3.Session(region_name=address.region).client(
            "s3",
            endpoint_url=address.endpoint,
            verify=os.environ.get("AWS_CA_BUNDLE") or None,
            config=Config(
                retries={"total_max_attempts": 1, "mode": "standard"},
                connect_timeout=address.connect_timeout_s,
                read_timeout=address.request_timeout_s,
                s3={"addressing_style": "path" if address.path_style else "virtual"},
            ),
        )

    def _asked(self, what: str, request: Callable[[], T]) -> T:
        try:
            return request()
        except ClientError as error:
            answer = error.response
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            told = answer.get("Error", {})
            code, detail = str(told.get("Code", "")), str(told.get("Message", ""))
            raise s3_error(
                what, self.address.bucket, status, "" if code.isdigit() else code, detail
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise AccessDenied(f"{what}: {NO_CREDENTIALS} ({error})") from error
        except (BotoCoreError, OSError) as error:
            raise StoreUnavailable(f"{what}: {error}") from error
