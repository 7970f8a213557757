"""A mapping that is never changed: setting a key gives a new one that shares all but one bucket.

The metadata image holds 100,000 partitions and gets a new version with every record. Copying a
dictionary of that size takes milliseconds of a loop that serves clients; here a change copies one
bucket (64 entries on average, at most) and the tuple of buckets.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar
from uuid import UUID

K = TypeVar("K")
V = TypeVar("V")

FIRST_BUCKETS = 16
BUCKET_ENTRIES = 64


class PersistentMap(Mapping[K, V], Generic[K, V]):
    """Keys are str, int, UUID, or a tuple of these.

    The order of iteration depends on the keys and the order in which they came, and on nothing
    else: not on `hash()`, which differs from process to process.
    """

    __slots__ = ("_buckets", "_size")

    def __init__(self, items: Iterable[tuple[K, V]] = ()) -> None:
        entries = list(items)
        count = FIRST_BUCKETS
        while len(entries) > count * BUCKET_ENTRIES:
            count *= 2
        buckets: list[dict[K, V]] = [{} for _ in range(count)]
        for key, value in entries:
            buckets[_spread(key) % count][key] = value
        self._buckets: tuple[dict[K, V], ...] = tuple(buckets)
        self._size = sum(map(len, buckets))

    def __getitem__(self, key: K) -> V:
        return self._buckets[_spread(key) % len(self._buckets)][key]

    def __iter__(self) -> Iterator[K]:
        for bucket in self._buckets:
            yield from bucket

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"PersistentMap({dict(self)!r})"

    def differences(self, older: PersistentMap[K, V]) -> Iterator[K]:
        """Keys of both or either whose values are not the same object.

        What one was made of by changes of the other costs no more than the buckets touched.
        """
        pairs: Iterable[tuple[dict[K, V], dict[K, V]]]
        if len(older._buckets) == len(self._buckets):
            pairs = zip(older._buckets, self._buckets, strict=True)
        else:
            pairs = [(dict(older.items()), dict(self.items()))]
        for before, now in pairs:
            if before is now:
                continue
            for key, value in now.items():
                if key not in before or before[key] is not value:
                    yield key
            for key in before:
                if key not in now:
                    yield key

    def set(self, key: K, value: V) -> PersistentMap[K, V]:
        """A map with `key` at `value`."""
        return self.change([(key, value)])

    def without(self, *keys: K) -> PersistentMap[K, V]:
        """A map without `keys`; absent ones are no error."""
        return self.change((), keys)

    def change(
        self, updates: Iterable[tuple[K, V]], removed: Iterable[K] = ()
    ) -> PersistentMap[K, V]:
        """A map without `removed`, then with `updates`; each touched bucket is copied once."""
        buckets = list(self._buckets)
        count = len(buckets)
        mine: dict[int, dict[K, V]] = {}
        size = self._size
        for key in removed:
            bucket = _own(mine, buckets, _spread(key) % count)
            if key in bucket:
                del bucket[key]
                size -= 1
        for key, value in updates:
            bucket = _own(mine, buckets, _spread(key) % count)
            size += key not in bucket
            bucket[key] = value
        if not mine:
            return self
        if size > count * BUCKET_ENTRIES:
            return PersistentMap((k, v) for bucket in buckets for k, v in bucket.items())
        changed: PersistentMap[K, V] = PersistentMap.__new__(PersistentMap)
        changed._buckets = tuple(buckets)
        changed._size = size
        return changed


def _own(mine: dict[int, dict[K, V]], buckets: list[dict[K, V]], number: int) -> dict[K, V]:
    """The bucket, as a copy that belongs to the map being made."""
    bucket = mine.get(number)
    if bucket is None:
        bucket = mine[number] = buckets[number] = buckets[number].copy()
    return bucket


def _spread(key: Any) -> int:
    # By type and not by `match`: this runs for every partition at a start.
    kind = type(key)
    if kind is int:
        return key  # type: ignore[no-any-return]
    if kind is str:
        return zlib.crc32(key.encode("utf-8", "surrogatepass"))
    if kind is UUID:
        return key.int  # type: ignore[no-any-return]
    if kind is tuple:
        mixed = 0
        for part in key:
            mixed = zlib.crc32((_spread(part) % 2**64).to_bytes(8, "big"), mixed)
        return mixed
    raise TypeError(f"{key!r} cannot be a key here")
