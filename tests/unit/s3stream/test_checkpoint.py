"""Checkpoints that are cut short."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.simulation.loop import SimulatedLoop

from .log_rig import SMALL, living, make_entry, open_new, read_all, run, take_over

PAGES_AT_ONCE = replace(SMALL, delta_bytes=1, page_streams=1)


@pytest.mark.parametrize("after_s", [n / 1000 for n in range(0, 24, 2)])
def test_a_close_that_cuts_pages_short_loses_no_change(after_s: float) -> None:
    async def body(loop: SimulatedLoop) -> None:
        async with living(loop, PAGES_AT_ONCE) as (life, store):
            streams = await open_new(life, [1, 2, 3])
            written = dict.fromkeys(streams, b"")
            for _ in range(2):
                for one in streams.values():
                    entry = make_entry(one)
                    written[one.stream_id] += bytes(entry.buffer)
                    await one.append(entry)
                # The second time changes lie in pages that are written already.
                life.storage.uploader.ask()
                await asyncio.sleep(1 if not life.storage.wal.trim else after_s)
            await life.close()
            _, opened = await take_over(store, 1, 2, loop, PAGES_AT_ONCE)
            for stream_id, one in opened.items():
                assert await read_all(one) == written[stream_id]

    run(body)
