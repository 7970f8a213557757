"""Objects out: each under a number of its own, drawn before the first byte is sent.

Store trouble is waited out for as long as it lasts. A key that another's object has taken (a number
of ours that somebody else used: it cannot happen unless two processes hold one incarnation) gets
a new number and is told as trouble.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from objectstore.create import PART_SIZE_BYTES, create_by_upload, create_once
from objectstore.errors import StoreError
from objectstore.store import Buffer, Chunks, ObjectStore
from wal.format import BatchEntry, Kind, ObjectIndex, compose_blob, compose_in_steps
from wal.keys import data_key

from .fold import ref_of
from .metadata.records import BlobRef
from .references import ObjectNumbers
from .refs import ObjectRef


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """number: to be settled once a durable record refers to the object, or never will."""

    ref: ObjectRef
    index: ObjectIndex
    number: int


class WrittenBlob(NamedTuple):
    ref: BlobRef
    number: int


class ObjectWriter:
    """incarnation: the maker of the objects, in their keys and headers.

    on_trouble: called with what a failed request met, and with None when one succeeds after it.
    """

    def __init__(
        self,
        store: ObjectStore,
        incarnation: int,
        numbers: ObjectNumbers,
        *,
        rng: Random,
        on_trouble: Callable[[StoreError | None], None] | None = None,
    ) -> None:
        self._store = store
        self._incarnation = incarnation
        self.numbers = numbers
        self._rng = rng
        self._on_trouble = on_trouble
        self._in_trouble = False

    async def write_records(
        self,
        kind: Kind,
        entries: Sequence[BatchEntry],
        *,
        part_bytes: int = PART_SIZE_BYTES,
        give_up_after_s: float | None = None,
    ) -> WrittenObject:
        """entries: in the order of each stream's offsets, buffers unchanged until this returns.

        Above `part_bytes` it goes as a multipart upload. After `give_up_after_s` (None: never)
        raises StoreUnavailable; its number is settled then.
        """
        while True:
            number = self.numbers.draw()
            write_id = self._rng.randbytes(16)

            chunks, index, size = await self._compose(kind, number, write_id, entries)
            key = data_key(self._incarnation, number)
            try:
                ours = await self._create(key, chunks, size, write_id, part_bytes, give_up_after_s)
            except BaseException:
                # Given up: should it land yet, it is garbage.
                self.numbers.settle([number])
                raise
            if ours:
                return WrittenObject(ref_of(key, write_id, size, index), index, number)
            self.numbers.settle([number])

    async def write_blob(self, kind: Kind, body: bytes) -> WrittenBlob:
        while True:
            number = self.numbers.draw()
            write_id = self._rng.randbytes(16)
            chunks, size = compose_blob(kind, self._incarnation, number, write_id, body)
            key = data_key(self._incarnation, number)
            if await self._create(key, chunks, size, write_id, PART_SIZE_BYTES):
                return WrittenBlob(BlobRef(key, write_id, size), number)
            self.numbers.settle([number])

    async def _compose(
        self, kind: Kind, number: int, write_id: bytes, entries: Sequence[BatchEntry]
    ) -> tuple[list[Buffer], ObjectIndex, int]:
        # On the loop, in steps: a thread would take the interpreter for longer at a time.
        steps = compose_in_steps(kind, self._incarnation, number, write_id, entries)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                composed: tuple[list[Buffer], ObjectIndex, int] = done.value
                return composed
            await asyncio.sleep(0)

    async def _create(
        self,
        key: str,
        chunks: Chunks,
        size: int,
        write_id: bytes,
        part_bytes: int,
        give_up_after_s: float | None = None,
    ) -> bool:
        if size <= part_bytes + _SLACK_BYTES:
            ours = await create_once(
                self._store,
                key,
                chunks,
                write_id,
                rng=self._rng,
                give_up_after_s=give_up_after_s,
                on_trouble=self._note_trouble,
            )
            self._note_health()
            return ours

        async def parts() -> AsyncIterator[Chunks]:
            for part in split_chunks(chunks, part_bytes):
                yield part

        ours = await create_by_upload(
            self._store,
            key,
            parts,
            write_id,
            rng=self._rng,
            give_up_after_s=give_up_after_s,
            on_trouble=self._note_trouble,
        )
        self._note_health()
        return ours

    def _note_trouble(self, key: str, error: StoreError) -> None:
        self._in_trouble = True
        if self._on_trouble is not None:
            self._on_trouble(error)

    def _note_health(self) -> None:
        if self._in_trouble:
            self._in_trouble = False
            if self._on_trouble is not None:
                self._on_trouble(None)


# Header and index come on top of the bytes by which uploads are planned.
_SLACK_BYTES = 4 << 20


def split_chunks(chunks: Chunks, part_bytes: int) -> list[list[Buffer]]:
    """The same bytes in parts of exactly `part_bytes`, but for the last; nothing is copied."""
    parts: list[list[Buffer]] = [[]]
    room = part_bytes
    for chunk in chunks:
        view = memoryview(chunk)
        while len(view) > 0:
            if room == 0:
                parts.append([])
                room = part_bytes
            piece = view[:room]
            parts[-1].append(piece)
            room -= len(piece)
            view = view[len(piece) :]
    return parts
