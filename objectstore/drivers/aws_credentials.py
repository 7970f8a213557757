"""Credentials from the standard AWS places, the same for every driver.

Environment, profiles, SSO, web identity (IRSA), container and instance roles: boto3 knows them
all, so both drivers ask it.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import AccessDenied

if TYPE_CHECKING:
    from botocore.credentials import Credentials as BotoCredentials


NO_CREDENTIALS = (
    "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, or give "
    "this machine a role"
)


class Keys(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


class AwsCredentials:
    """Found at first use, then refreshed by botocore as they come near their end.

    Blocking (files, or a metadata service): call it in an executor. Thread-safe. Keys in the
    environment come first with botocore too: there its half second of importing can be saved.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: Any = None
        self._boto: Any = None
        self._found: BotoCredentials | None = None

    def current(self) -> Keys:
        """Raises AccessDenied where there are none."""
        if (plain := _plain_keys()) is not None:
            return plain
        from botocore.exceptions import BotoCoreError

        try:
            with self._lock:
                if self._found is None:
                    self._found = self._boto3().get_credentials()
            if self._found is None:
                raise AccessDenied(NO_CREDENTIALS)
            frozen = self._found.get_frozen_credentials()
        except BotoCoreError as error:
            raise AccessDenied(f"AWS credentials cannot be had: {error}") from error
        return Keys(str(frozen.access_key), str(frozen.secret_key), frozen.token)

    def profile_region(self) -> str | None:
        """The region of the profile in use, None where none is set. Raises AccessDenied."""
        from botocore.exceptions import BotoCoreError

        try:
            region = self._boto3().region_name
        except BotoCoreError as error:
            raise AccessDenied(f"the AWS profile cannot be read: {error}") from error
        return str(region) if region else None

    def profile_endpoint(self) -> str | None:
        """The S3 endpoint that the profile in use names, None where it names none.

        Raises AccessDenied.
        """
        if not any(os.path.exists(os.path.expanduser(path)) for path in _profile_files()):
            return None  # a quarter of a second of importing saved
        from botocore.configprovider import ConfiguredEndpointProvider
        from botocore.exceptions import BotoCoreError

        try:
            self._boto3()
            session = self._session
            found = ConfiguredEndpointProvider(
                session.full_config, session.get_scoped_config(), "s3"
            ).provide()
        except BotoCoreError as error:
            raise AccessDenied(f"the AWS profile cannot be read: {error}") from error
        return str(found) if found else None

    @property
    def can_expire(self) -> bool:
        """True when keys that were read a while ago may no longer be good."""
        if _plain_keys() is not None:
            return False
        from botocore.credentials import RefreshableCredentials

        return self._found is None or isinstance(self._found, RefreshableCredentials)

    def _boto3(self) -> Any:
        if self._session is None:
            import boto3
            import botocore.session

            # Ours, so that what boto3 does not show (a profile's endpoint) can be read too.
            self._session = botocore.session.get_session()
            self._boto = boto3.Session(botocore_session=self._session)
        return self._boto


def _profile_files() -> tuple[str, str]:
    return (
        os.environ.get("AWS_CONFIG_FILE") or "~/.aws/config",
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials",
    )


def _plain_keys() -> Keys | None:
    access_key = os.environ.get("AWS_ACCESS_KEY_ID")
    secret_key = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    return Keys(access_key, secret_key, os.environ.get("AWS_SESSION_TOKEN") or None)
