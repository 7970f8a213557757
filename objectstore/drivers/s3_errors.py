"""S3's many errors as our few, by what the caller can do. Shared by every driver of S3."""

from __future__ import annotations

from ..errors import (
    AccessDenied,
    BucketMissing,
    NotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
    Throttled,
)


class RangeBeyondEnd(StoreError):
    """416: the range starts at the object's end or later. Never leaves a driver."""


_THROTTLED = frozenset(
    {
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "TooManyRequestsException",
    }
)
_DENIED_ADVICE = {
    "InvalidAccessKeyId": "the access key is unknown there: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "the session token has expired: renew the credentials",
    "InvalidToken": "the session token is not valid: renew the credentials",
    "TokenRefreshRequired": "the session token must be refreshed: renew the credentials",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it by NTP",
    "AuthorizationHeaderMalformed": "the region is wrong: set s3.region",
    "PermanentRedirect": "the bucket is in another region: set s3.region",
    "InvalidBucketName": "the bucket's name is not valid",
    "AllAccessDisabled": "the bucket is locked by its provider",
    "AccountProblem": "the provider has locked the account",
}


def s3_error(what: str, bucket: str, status: int | None, code: str, detail: str = "") -> StoreError:
    """The error for an answer of S3.

    what: operation and key, for the message. status: HTTP's, None when there was no answer.
    code: S3's own, "" where the answer has none (an answer to HEAD has no body).
    Source: Amazon S3 API reference, "Error responses".
    """
    text = " ".join(part for part in (str(status or ""), code) if part) or "no answer"
    if detail:
        text = f"{text}: {detail}"
    if code == "NoSuchBucket":
        return BucketMissing(f"{what}: there is no bucket {bucket!r}: create it ({text})")
    if code in _DENIED_ADVICE:
        return AccessDenied(f"{what}: {_DENIED_ADVICE[code]} ({text})")
    if status == 412 or code in ("PreconditionFailed", "ConditionalRequestConflict"):
        return PreconditionFailed(f"{what}: the key is taken ({text})")
    if status == 404:
        return NotFound(f"{what}: not found ({text})")
    if status == 416 or code == "InvalidRange":
        return RangeBeyondEnd(f"{what}: {text}")
    if status in (301, 307, 308):
        return AccessDenied(f"{what}: the bucket is in another region: set s3.region ({text})")
    if status in (401, 403):
        return AccessDenied(f"{what}: not permitted: check credentials and policy ({text})")
    if code in _THROTTLED or status in (429, 503):
        return Throttled(f"{what}: the store asks for fewer requests ({text})")
    if status == 409:
        return PreconditionFailed(f"{what}: another request was at the key ({text})")
    return StoreUnavailable(f"{what}: {text}")
