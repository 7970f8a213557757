"""The task that merges history, on a running broker's streams."""

from __future__ import annotations

import asyncio
from random import Random

from s3stream.compaction.compactor import Compactor
from s3stream.compaction.plan import CompactionConfig
from s3stream.compaction.worker import InProcessRunner
from tests.simulation.loop import SimulatedLoop
from tests.simulation.store import SimulatedStore

from .log_rig import Life, living, make_entry, open_new, run

COMPACTION = CompactionConfig(fan_in=2)


def compactor_of(
    life: Life, bucket: SimulatedStore, config: CompactionConfig = COMPACTION
) -> Compactor:
    storage = life.storage
    return Compactor(
        storage.registry,
        storage.numbers,
        storage.reader,
        InProcessRunner(bucket, config, rng=Random(3)),
        config,
        append=storage.append_control,
        rng=Random(4),
    )


def test_a_tiny_object_is_not_rewritten_again_and_again() -> None:
    """An object's header is larger than the smallest batch: it is no waste."""

    async def body(loop: SimulatedLoop) -> None:
        async with living(loop) as (life, bucket):
            (stream,) = (await open_new(life, [1])).values()
            await stream.append(make_entry(stream, value=b"v"))
            life.storage.uploader.ask()
            await asyncio.sleep(1)
            compactor = compactor_of(life, bucket)
            assert not await compactor.compact_once()
            assert compactor.space_amplification() == 1.0

    run(body)
