"""One object from one store to another, as it is: key, bytes and so the write id in its header."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random

from broker.verify.fault import Fault
from objectstore.create import create_by_upload, create_once, found_write_id
from objectstore.errors import Corrupt
from objectstore.header import PREFIX_SIZE, decode_prefix
from objectstore.store import Chunks, ObjectInfo, ObjectStore

# More goes in parts of this size, so that a few at once are bounded in memory.
PART_BYTES = 16 << 20


class Copying:
    """source, target: stores of two buckets."""

    def __init__(self, source: ObjectStore, target: ObjectStore, rng: Random) -> None:
        self._source = source
        self._target = target
        self._rng = rng

    async def is_there(self, info: ObjectInfo, target_bytes: int | None) -> bool:
        """target_bytes: of the object at the same key; None: there is none.

        Raises Fault where that is another one, NotFound where the source's is gone.
        """
        if target_bytes is None:
            return False
        theirs = await found_write_id(self._target, info.key)
        if target_bytes == info.size_bytes and theirs == await self._write_id(info.key):
            return True
        raise Fault(
            f"{info.key}: the target has another object of that name; it is left as it is. "
            "Choose an empty target"
        )

    async def copy(self, info: ObjectInfo) -> None:
        """Raises NotFound where the source's is gone by now, Fault where the target holds another,
        Corrupt, StoreError. Trouble of the target is waited out.
        """
        if info.size_bytes <= PART_BYTES:
            data = await self._source.get(info.key)
            write_id = decode_prefix(data, info.key).write_id
            created = await create_once(self._target, info.key, [data], write_id, rng=self._rng)
        else:
            write_id = await self._write_id(info.key)
            created = await create_by_upload(
                self._target, info.key, lambda: self._parts(info), write_id, rng=self._rng
            )
        if not created:
            raise Fault(f"{info.key}: another process wrote into the target meanwhile")

    async def _write_id(self, key: str) -> bytes:
        return decode_prefix(await self._source.get_range(key, 0, PREFIX_SIZE), key).write_id

    async def _parts(self, info: ObjectInfo) -> AsyncIterator[Chunks]:
        for start in range(0, info.size_bytes, PART_BYTES):
            end = min(start + PART_BYTES, info.size_bytes)
            part = await self._source.get_range(info.key, start, end)
            if len(part) != end - start:
                raise Corrupt(f"{info.key}: {start + len(part)} bytes, {info.size_bytes} listed")
            yield [part]
