"""Does this store keep the one promise that everything rests on? And how fast is it?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from .errors import PreconditionFailed, StoreError, StoreUnavailable, Throttled, UnsuitableStore
from .header import encode_prefix
from .store import ObjectStore

RACERS = 64
ROUNDS = 20
_KIND = 0
PREFIX = "probe/"


@dataclass(frozen=True)
class Latency:
    """Seconds, over the requests that were made."""

    p50_s: float
    p99_s: float
    samples: int


async def check_conditional_create(store: ObjectStore, rng: Random) -> None:
    """64 concurrent creates of one key: one may win, and its bytes must be there afterwards.

    Raises UnsuitableStore where more than one is told of success or a later create overwrites;
    StoreUnavailable where too few answered to tell; AccessDenied. Cleans up behind itself.
    """
    key = f"{PREFIX}{rng.randbytes(16).hex()}"
    bodies = [encode_prefix(_KIND, rng.randbytes(16)) for _ in range(RACERS)]
    try:
        results = await asyncio.gather(
            *(_create(store, key, body) for body in bodies), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(
                result, PreconditionFailed | Throttled | StoreUnavailable
            ):
                raise result
        winners = [body for body, r in zip(bodies, results, strict=True) if r is None]
        lost = sum(isinstance(result, PreconditionFailed) for result in results)
        if len(winners) > 1:
            raise UnsuitableStore(
                f"{len(winners)} of {RACERS} concurrent creates of {key} were told that they made "
                "it: this store does not honour `If-None-Match: *`, so two brokers could "
                "overwrite each other's log. Use a store (or a newer release of it) that does"
            )
        found = await store.get(key)
        if winners and found != winners[0]:
            raise UnsuitableStore(
                f"{key} does not hold what the one successful create wrote: this store overwrites "
                "objects in spite of `If-None-Match: *`"
            )
        # A reply may be lost, and the winner with it; most must have been told that they lost.
        if len(winners) + lost < RACERS // 2:
            errors = [r for r in results if isinstance(r, Throttled | StoreUnavailable)]
            raise StoreUnavailable(
                f"only {len(winners) + lost} of {RACERS} test creates were answered: {errors[0]}"
            )
        await _expect_refusal(store, key, bodies[0], found)
    finally:
        await _remove(store, [key])


async def measure_latency(
    store: ObjectStore, rng: Random, size_bytes: int = 1024, rounds: int = ROUNDS
) -> tuple[Latency, Latency]:
    """One PUT and one GET after the other, of fresh keys: (PUT, GET). Cleans up behind itself."""
    loop = asyncio.get_running_loop()
    run = rng.randbytes(16).hex()
    keys = [f"{PREFIX}{run}-{n}" for n in range(rounds)]
    puts, gets = [], []
    try:
        for key in keys:
            body = encode_prefix(_KIND, rng.randbytes(16)) + rng.randbytes(max(0, size_bytes - 24))
            started_s = loop.time()
            await store.create(key, [body])
            puts.append(loop.time() - started_s)
        for key in keys:
            started_s = loop.time()
            await store.get(key)
            gets.append(loop.time() - started_s)
    finally:
        await _remove(store, keys)
    return _latency(puts), _latency(gets)


def _latency(samples: list[float]) -> Latency:
    ordered = sorted(samples)
    last = len(ordered) - 1
    return Latency(ordered[last // 2], ordered[min(last, int(0.99 * len(ordered)))], len(ordered))


async def _create(store: ObjectStore, key: str, body: bytes) -> None:
    await store.create(key, [body])


async def _expect_refusal(store: ObjectStore, key: str, body: bytes, found: bytes) -> None:
    """One more create, later: some stores check only what happens at the same moment."""
    try:
        await store.create(key, [body])
    except PreconditionFailed:
        if await store.get(key) == found:
            return
    raise UnsuitableStore(
        f"a create of {key}, which was there, was not refused: this store ignores "
        "`If-None-Match: *`. Use a store (or a newer release of it) that honours it"
    )


async def _remove(store: ObjectStore, keys: list[str]) -> None:
    try:
        await store.delete(keys)
    except StoreError:
        pass  # a few bytes under probe/ stay behind; the finding itself matters more
