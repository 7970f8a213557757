"""A log's trouble with its store: told once per change, and a bucket that was away is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from objectstore.create import Backoff
from objectstore.errors import BucketMissing, Corrupt, NotFound, StoreError, StoreUnavailable
from objectstore.store import ObjectStore

from .format.read import read_header
from .keys import meta_log

# A PUT without an answer for so long is told as trouble, though it may still succeed.
LATE_S = 2.0

# Its first object makes the cluster.
FIRST_LOG = meta_log(0)

OnTrouble = Callable[[StoreError | None], None]


class StoreTrouble:
    """on_trouble: called with the error when trouble begins or changes its kind, with None when a
    PUT goes through again.
    """

    def __init__(self, store: ObjectStore, rng: Random, on_trouble: OnTrouble | None) -> None:
        self._store = store
        self._rng = rng
        self._on_trouble = on_trouble
        self._kind: type[StoreError] | None = None
        self._bucket_was_missing = False

    def late(self, key: str) -> None:
        """A PUT has had no answer for `LATE_S`."""
        if self._kind is None:
            self.note(key, StoreUnavailable(f"create {key}: no answer for {LATE_S:g} s"))

    def note(self, key: str, error: StoreError) -> None:
        if isinstance(error, BucketMissing):
            self._bucket_was_missing = True
        if self._kind is not type(error):
            self._kind = type(error)
            if self._on_trouble is not None:
                self._on_trouble(error)

    def over(self) -> None:
        """A PUT went through."""
        if self._kind is not None:
            self._kind = None
            if self._on_trouble is not None:
                self._on_trouble(None)

    async def check_bucket(self) -> None:
        """A bucket that was away may have been made anew: then it is not the one of this cluster.

        To be called before anything is acknowledged. Raises Corrupt.
        """
        if not self._bucket_was_missing:
            return
        key = FIRST_LOG.key(0)
        backoff = Backoff(self._rng)
        while self._bucket_was_missing:
            try:
                await read_header(self._store, key)
            except NotFound as error:
                raise Corrupt(
                    f"{key}, which is never deleted, is gone: the bucket was made anew while this "
                    "broker ran, and holds nothing of its cluster. Restore the bucket, or start a "
                    "new cluster in an empty one"
                ) from error
            except Corrupt:
                raise
            except StoreError as error:
                self.note(key, error)
                await asyncio.sleep(backoff.next_s())
            else:
                self._bucket_was_missing = False
