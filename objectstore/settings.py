"""How a store is reached: the settings of the operator, and what the environment adds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

S3_DRIVERS = ("obstore", "aiobotocore")
DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class StoreSettings:
    """Validated when built: raises ValueError naming the key.

    s3_driver: the library that talks to `s3://`; obstore needs a third of the processor time.
    s3_endpoint: None: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's, else AWS itself.
    s3_region: None: AWS_REGION, AWS_DEFAULT_REGION, the profile's, else us-east-1.
    s3_path_style: bucket in the path, not in the host name; None: where an endpoint is given.
    request_timeout_s: for one request with a small body; large bodies get more (2 MiB a second).
    connect_timeout_s: an absent endpoint is noticed after this.
    max_connections: requests in flight at once, of one store object.
    """

    s3_driver: str = "obstore"
    s3_endpoint: str | None = None
    s3_region: str | None = None
    s3_path_style: bool | None = None
    request_timeout_s: float = 10.0
    connect_timeout_s: float = 2.0
    max_connections: int = 64

    def __post_init__(self) -> None:
        if self.s3_driver not in S3_DRIVERS:
            raise ValueError(f"s3.driver must be one of {', '.join(S3_DRIVERS)}: {self.s3_driver}")
        if self.s3_endpoint is not None and not self.s3_endpoint.startswith(
            ("http://", "https://")
        ):
            raise ValueError(f"s3.endpoint must begin with http:// or https://: {self.s3_endpoint}")
        for name in ("request_timeout_s", "connect_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0: {getattr(self, name)}")
        if self.max_connections < 1:
            raise ValueError(f"max_connections must be 1 or more: {self.max_connections}")


@dataclass(frozen=True)
class S3Address:
    """Where a bucket is.

    endpoint: None for AWS itself. region_known: False where it is a guess that a profile, not yet
    read, may put right.
    """

    bucket: str
    endpoint: str | None
    region: str
    path_style: bool
    request_timeout_s: float
    connect_timeout_s: float
    max_connections: int
    region_known: bool = True

    @property
    def is_billed(self) -> bool:
        """Requests cost money: this is AWS itself, by whatever name."""
        if self.endpoint is None:
            return True
        host = urlsplit(self.endpoint).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))

    def timeout_s(self, size_bytes: int = 0) -> float:
        return self.request_timeout_s + size_bytes / (2 << 20)

    @property
    def base_url(self) -> str:
        """URL of the bucket, without a slash at the end."""
        endpoint = (self.endpoint or f"https://s3.{self.region}.amazonaws.com").rstrip("/")
        if self.path_style:
            return f"{endpoint}/{self.bucket}"
        scheme, _, host = endpoint.partition("://")
        return f"{scheme}://{self.bucket}.{host}"


def resolve_s3(
    bucket: str,
    settings: StoreSettings,
    environ: Mapping[str, str] | None = None,
    profile_region: str | None = None,
    profile_endpoint: str | None = None,
) -> S3Address:
    """Fill in what the settings leave open. profile_...: from ~/.aws/config, if any."""
    env = os.environ if environ is None else environ
    endpoint = (
        settings.s3_endpoint
        or env.get("AWS_ENDPOINT_URL_S3")
        or env.get("AWS_ENDPOINT_URL")
        or profile_endpoint
    )
    region = (
        settings.s3_region
        or env.get("AWS_REGION")
        or env.get("AWS_DEFAULT_REGION")
        or profile_region
    )
    # A store with an endpoint of its own hardly ever has regions; AWS may have one in the profile.
    known = bool(region) or (endpoint is not None and not env.get("AWS_PROFILE"))
    region = region or DEFAULT_REGION
    path_style = settings.s3_path_style
    if path_style is None:
        # A dot in a bucket's name does not fit the certificate of its host name.
        path_style = endpoint is not None or "." in bucket
    return S3Address(
        bucket,
        endpoint,
        region,
        path_style,
        settings.request_timeout_s,
        settings.connect_timeout_s,
        settings.max_connections,
        known,
    )
