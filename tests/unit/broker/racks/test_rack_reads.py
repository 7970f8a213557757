"""Consumers of another rack than the leader's are served by a broker of theirs."""

from __future__ import annotations

import asyncio

from tests.unit.broker.cluster.fleet import Fleet

from .reader import RackReader, append, code, in_racks


def test_a_consumer_is_sent_to_its_rack_and_reads_everything_there() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        await append(fleet, 1, 5, index=index)
        reader = RackReader(fleet, "b", index=index)
        await reader.until(lambda: reader.served_by[-1:] == [2])
        await append(fleet, 1, 5, index=index)
        await reader.until(lambda: reader.position == 10)
        assert reader.read == list(range(10))
        assert reader.served_by[-1] == 2
        assert fleet.node(2).services.racks.bytes_by_rack["same"] > 0
        assert fleet.node(2).services.racks.bytes_by_rack["other"] == 0

    in_racks("a", "b", "c", body=body)


def test_what_comes_while_a_consumer_waits_wakes_it() -> None:
    async def body(fleet: Fleet, index: int) -> None:
        reader = RackReader(fleet, "b", index=index)
        await reader.until(lambda: reader.served_by[-1:] == [2])
        waiting = asyncio.create_task(reader.fetch(2, max_wait_ms=30_000))
        await asyncio.sleep(5)
        assert not waiting.done()
        began = fleet.loop.time()
        await append(fleet, 1, index=index)
        told = await waiting
        assert told.records and fleet.loop.time() - began < 0.2
        assert code(told) == "NONE" and told.high_watermark == told.last_stable_offset == 1

    in_racks("a", "b", body=body)
