"""Conditional create, repeated until it is settled whose object is at the key.

A conditional create can fail ambiguously: the answer is lost after the write, or the second
attempt meets what the first one left. So every object begins with a write id, and whenever an
attempt did not simply succeed, the header found at the key decides:

    our write id     it is written, by whichever attempt
    another's        the key is not ours
    nothing there    the same bytes are sent again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from random import Random

from .errors import (
    AccessDenied,
    Corrupt,
    NotFound,
    PreconditionFailed,
    StoreError,
    StoreUnavailable,
)
from .header import PREFIX_SIZE, decode_prefix
from .store import Chunks, ObjectStore, Upload

BACKOFF_BASE_S = 0.020
BACKOFF_CAP_S = 2.0
DENIED_CAP_S = 5.0
ABORT_TIMEOUT_S = 2.0
PART_SIZE_BYTES = 64 << 20

OnTrouble = Callable[[str, StoreError], None]


async def create_once(
    store: ObjectStore,
    key: str,
    chunks: Chunks,
    write_id: bytes,
    *,
    rng: Random,
    give_up_after_s: float | None = None,
    may_be_repeat: bool = False,
    on_trouble: OnTrouble | None = None,
) -> bool:
    """Create `key`; True if the object there is ours, False if another's.

    chunks: 1 or more buffers, beginning with `header.encode_prefix(..., write_id)`; not copied, so
    leave them unchanged until this returns.
    write_id: 16 bytes, the same for every attempt at this logical write.
    may_be_repeat: an earlier call may have written it: look before the bytes are sent again.
    on_trouble: called with key and error at each attempt that failed (a lost race is none).
    Trouble is waited out for as long as it lasts; after `give_up_after_s` (if set): raises
    StoreUnavailable, nobody knows whether the object exists. When cancelled, the object may still
    appear, at any later time.
    Source: RFC 9110, 13.1.2 (If-None-Match).
    """

    failed: StoreError | None = None
    if give_up_after_s is None and not may_be_repeat:
        # Nearly always the first attempt is all, and somebody waits for it.
        try:
            await store.create(key, chunks)
            return True
        except StoreError as error:
            failed = error

    async def send() -> None:
        await store.create(key, chunks)

    settle = _Settle(store, key, write_id, rng, on_trouble)
    return await settle.until_settled(
        send, look_first=may_be_repeat, give_up_after_s=give_up_after_s, failed=failed
    )


async def create_by_upload(
    store: ObjectStore,
    key: str,
    parts: Callable[[], AsyncIterable[Chunks]],
    write_id: bytes,
    *,
    rng: Random,
    give_up_after_s: float | None = None,
    may_be_repeat: bool = False,
    on_trouble: OnTrouble | None = None,
) -> bool:
    """`create_once` for what is too large for one request, as a multipart upload.

    parts: called at the start of each attempt, gives the same bytes each time, in parts of
    `PART_SIZE_BYTES` (5 MiB at least, but for the last); the first begins with the header.
    A failed attempt is aborted; an abort that fails too is left to the collector's rounds.
    Raises NotFound, Corrupt where `parts` does: what it reads from is gone, and stays so.
    """

    async def send() -> None:
        upload = await store.start_upload(key)
        try:
            async for chunks in _given(parts()):
                await upload.part(chunks)
            await upload.complete()
        except BaseException:
            await _abort(upload)
            raise

    settle = _Settle(store, key, write_id, rng, on_trouble)
    try:
        return await settle.until_settled(
            send, look_first=may_be_repeat, give_up_after_s=give_up_after_s
        )
    except _NoParts as gone:
        raise gone.error from gone


class _NoParts(Exception):
    """Tells an error of the parts from one of the upload, which is waited out."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(str(error))
        self.error = error


async def _given(parts: AsyncIterable[Chunks]) -> AsyncIterator[Chunks]:
    try:
        async for chunks in parts:
            yield chunks
    except (NotFound, Corrupt) as error:
        raise _NoParts(error) from error


async def found_write_id(store: ObjectStore, key: str) -> bytes | None:
    """The write id at `key`, b"" where the object is not of our making, None where nothing is."""
    try:
        prefix = await store.get_range(key, 0, PREFIX_SIZE)
    except NotFound:
        return None
    try:
        return decode_prefix(prefix, key).write_id
    except Corrupt:
        return b""


class Backoff:
    """Exponential, with jitter: each delay is drawn from [half, whole] of a doubling bound."""

    def __init__(self, rng: Random, base_s: float = BACKOFF_BASE_S) -> None:
        self._rng = rng
        self._base_s = base_s
        self._failures = 0

    def next_s(self, cap_s: float = BACKOFF_CAP_S) -> float:
        bound_s: float = min(cap_s, self._base_s * 2.0 ** min(self._failures, 20))
        self._failures += 1
        return bound_s * (0.5 + self._rng.random() / 2)


class _Settle:
    def __init__(
        self,
        store: ObjectStore,
        key: str,
        write_id: bytes,
        rng: Random,
        on_trouble: OnTrouble | None,
    ) -> None:
        assert len(write_id) == 16, write_id
        self._store = store
        self._key = key
        self._write_id = write_id
        self._backoff = Backoff(rng)
        self._on_trouble = on_trouble
        self._last_error: StoreError | None = None

    async def until_settled(
        self,
        send: Callable[[], Awaitable[None]],
        *,
        look_first: bool,
        give_up_after_s: float | None,
        failed: StoreError | None = None,
    ) -> bool:
        """failed: what a first attempt met already."""
        if give_up_after_s is None:
            return await self._run(send, look_first, failed)
        try:
            async with asyncio.timeout(give_up_after_s) as limit:
                return await self._run(send, look_first, failed)
        except TimeoutError as error:
            if not limit.expired():
                raise
            why = f": {self._last_error}" if self._last_error else ""
            raise StoreUnavailable(
                f"{self._key}: unsettled after {give_up_after_s:g} s{why}"
            ) from (self._last_error or error)

    async def _run(
        self,
        send: Callable[[], Awaitable[None]],
        look_first: bool,
        failed: StoreError | None,
    ) -> bool:
        look = look_first
        while True:
            if failed is None:
                if look and (settled := await self._look()) is not None:
                    return settled
                # The answer to this may be lost after the write: whatever is no plain success is
                # settled by what a reader finds at the key.
                try:
                    await send()
                    return True
                except StoreError as error:
                    failed = error
            if isinstance(failed, PreconditionFailed):
                # Not trouble yet: somebody's object is there, perhaps ours. Where the look finds
                # nothing (a 409 for a race that both lost) the pause keeps this from spinning.
                if (settled := await self._look()) is not None:
                    return settled
                look = False
                await asyncio.sleep(self._backoff.next_s())
            else:
                look = True
                await self._wait_out(failed)
            failed = None

    async def _look(self) -> bool | None:
        """True: ours, False: another's, None: nothing there. Waits out trouble."""
        while True:
            try:
                found = await found_write_id(self._store, self._key)
            except StoreError as error:
                await self._wait_out(error)
            else:
                return None if found is None else found == self._write_id

    async def _wait_out(self, error: StoreError) -> None:
        self._last_error = error
        if self._on_trouble is not None:
            self._on_trouble(self._key, error)
        cap_s = DENIED_CAP_S if isinstance(error, AccessDenied) else BACKOFF_CAP_S
        await asyncio.sleep(self._backoff.next_s(cap_s))


async def _abort(upload: Upload) -> None:
    """Free the parts if the store lets us, soon: a cancelled caller must not hang here."""
    try:
        async with asyncio.timeout(ABORT_TIMEOUT_S):
            await upload.abort()
    except (StoreError, TimeoutError):
        pass
