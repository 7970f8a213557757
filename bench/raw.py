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

from objectstore.open import StoreSettings, open_driver

ROOT = Path(__file__).parent.parent
OBJECT_BYTES = 8 << 20
AT_ONCE = 4


def run_raw(uri: str, env: dict[str, str], **options: Any) -> dict[str, float]:
    """put_mb_per_s, get_mb_per_s; put_p50_ms, put_p99_ms, get_p50_ms of 1 KiB; cpu_s of each."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.raw", json.dumps({"uri": uri, **options})],
        cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


async def measure(
    uri: str, driver: str = "obstore", seconds: float = 4.0, small: int = 200
) -> dict[str, float]:
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

    latencies: list[float] = []
    for number in range(small + 20):
        started = time.perf_counter()
        await store.create(f"raw/{run}/small-{number:08}", [data[:1024]])
        if number >= 20:
            latencies.append(time.perf_counter() - started)
    gets: list[float] = []
    for number in range(small):
        started = time.perf_counter()
        await store.get(f"raw/{run}/small-{number:08}")
        gets.append(time.perf_counter() - started)
    cpu = time.process_time()
    put_rate = await _rate(put, seconds)
    put_cpu = time.process_time() - cpu
    written = list(keys)
    turn = 0

    async def get() -> int:
        nonlocal turn
        turn += 1
        key = written[turn % len(written)]
        return len(await store.get_range(key, 0, OBJECT_BYTES))

    cpu = time.process_time()
    get_rate = await _rate(get, seconds / 2)
    get_cpu = time.process_time() - cpu
    latencies.sort()
    gets.sort()
    await store.delete(keys)
    await store.close()
    return {
        "put_mb_per_s": put_rate / 1e6,
        "get_mb_per_s": get_rate / 1e6,
        "put_p50_ms": latencies[len(latencies) // 2] * 1e3,
        "put_p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
        "get_p50_ms": gets[len(gets) // 2] * 1e3,
        "put_cpu_s": put_cpu / (put_rate * seconds / 1e9),
        "get_cpu_s": get_cpu / (get_rate * seconds / 2 / 1e9),
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
