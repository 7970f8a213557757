"""What can go wrong with a store, sorted by what the caller can do about it."""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of a store. Messages name the key and say what to do."""


class NotFound(StoreError):
    """The object is not there. Definite."""


class PreconditionFailed(StoreError):
    """Conditional create found the key taken (412, or 409 for a race).

    The header there decides whose object it is.
    """


class Throttled(StoreError):
    """The store asked us to slow down (503 SlowDown, 429).

    Ambiguous for a create; send again later.
    """


class StoreUnavailable(StoreError):
    """Time-out, reset, 5xx, full disk: nobody knows whether a write happened. Try again."""


class AccessDenied(StoreError):
    """Credentials, permissions or the bucket itself are wrong.

    An operator must act; trying again may heal.
    """


class BucketMissing(AccessDenied):
    """The bucket (or the directory of a file store) does not exist."""


class Corrupt(StoreError):
    """What was read is not what was written: a checksum, magic, length or version does not fit."""


class UnsuitableStore(StoreError):
    """The store cannot hold a cluster safely: no conditional create, no atomic link, ..."""
