"""The store by itself, through the broker's own driver: `python -m bench.raw JSON`.

What a broker can reach is set by this: PUTs and GETs of the size that it uses, as many at once,
without any wrapper or log around them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from objectstore.open import StoreSettings, open_driver
from objectstore.store import ObjectStore

ROOT = Path(__file__).parent.parent
OBJECT_BYTES = 8 << 20
AT_ONCE = 4


def run_raw(uri: str, env: dict[str, str], **options: Any) -> dict[str, float]:
    """put_mb_per_s, get_mb_per_s, put_cpu_s_per_gb, get_cpu_s_per_gb of large objects;
    put_p50_ms, put_p99_ms, get_p50_ms of 1 KiB. options: see `measure`.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.raw", json.dumps({"uri": uri, **options})],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def measure(
    uri: str,
    driver: str = "obstore",
    put_s: float = 4.0,
    get_s: float = 2.0,
    small: int = 200,
) -> dict[str, float]:
    """put_s, get_s: how long; 0 leaves the figure out. small: requests of 1 KiB one by one."""
    store = await open_driver(
        uri, settings=StoreSettings(s3_driver=driver), now_ms=lambda: int(time.time() * 1000)
    )
    run = random.SystemRandom().randbytes(8).hex()
    data = random.Random(5).randbytes(1 << 20)
    # As a log object is: many buffers.
    chunks = [data] * (OBJECT_BYTES >> 20)
    keys: list[str] = []

    async def put() -> int:
        key = f"raw/{run}/{len(keys):08}"
        keys.append(key)
        await store.create(key, chunks)
        return OBJECT_BYTES

    found: dict[str, float] = {}
    if small:
        found |= await _small(store, run, small, data[:1024])
    if put_s or get_s:
        cpu = time.process_time()
        rate = await _rate(put, put_s or 1.0)
        spent = time.process_time() - cpu
        found |= {
            "put_mb_per_s": rate / 1e6,
            "put_cpu_s_per_gb": spent / (len(keys) * OBJECT_BYTES / 1e9),
        }
    if get_s:
        written = list(keys)
        turn = 0

        async def get() -> int:
            nonlocal turn
            turn += 1
            return len(await store.get_range(written[turn % len(written)], 0, OBJECT_BYTES))

        cpu = time.process_time()
        rate = await _rate(get, get_s)
        spent = time.process_time() - cpu
        found |= {
            "get_mb_per_s": rate / 1e6,
            "get_cpu_s_per_gb": spent / (turn * OBJECT_BYTES / 1e9),
        }
    await store.delete(keys)
    await store.close()
    return found


async def _small(store: ObjectStore, run: str, count: int, data: bytes) -> dict[str, float]:
    puts: list[float] = []
    gets: list[float] = []
    for number in range(count + 20):
        started = time.perf_counter()
        await store.create(f"raw/{run}/small-{number:08}", [data])
        puts.append(time.perf_counter() - started)
    for number in range(count + 20):
        started = time.perf_counter()
        await store.get(f"raw/{run}/small-{number:08}")
        gets.append(time.perf_counter() - started)
    # The first ones open connections.
    put_p50, put_p99 = np.percentile(puts[20:], (50, 99)) * 1e3
    return {
        "put_p50_ms": float(put_p50),
        "put_p99_ms": float(put_p99),
        "get_p50_ms": float(np.median(gets[20:])) * 1e3,
    }


async def _rate(request: Callable[[], Awaitable[int]], seconds: float) -> float:
    """Bytes a second with AT_ONCE requests under way."""
    total = 0
    started = time.perf_counter()

    async def worker() -> None:
        nonlocal total
        while time.perf_counter() - started < seconds:
            total += await request()

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    return total / (time.perf_counter() - started)


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(measure(**json.loads(sys.argv[1])))))
