"""Ten thousand strangers, each with an announced frame that never comes whole."""

from __future__ import annotations

import struct

from .api.requests import fetch, produce
from .fake_transport import FakeTransport
from .node_rig import Rig, batch, run

STRANGERS = 10_000


def test_ten_thousand_connections_take_bounded_memory_and_harm_nobody() -> None:
    async def body(rig: Rig) -> None:
        await rig.topic()
        client = rig.client("10.9.9.9")
        await client.ask(produce([("t", 0, batch())]), 12)
        strangers = []
        for number in range(STRANGERS):
            transport = FakeTransport(f"10.{number % 7}.{number // 250 % 250}.{number % 250}")
            transport.open(rig.node.server._new_connection("PLAINTEXT"))
            # A third says nothing, a third begins a length, a third announces a frame.
            first = (b"", b"\x00\x00", struct.pack(">i", 1 << 20) + b"\x00" * 100)[number % 3]
            transport.receive(first)
            strangers.append(transport)
        assert rig.node.server.connection_count == STRANGERS + 1
        assert rig.node.pool.used_bytes <= rig.node.pool.limit_bytes
        answer = await client.ask(produce([("t", 0, batch())]), 12, within_s=5)
        assert answer.responses[0].partition_responses[0].base_offset == 1
        answer = await client.ask(fetch([("t", 0, 0)]), 12, within_s=5)
        assert answer.responses[0].partitions[0].high_watermark == 2
        for transport in strangers:
            transport.abort()
        await client.ask(fetch([("t", 0, 0)]), 12)
        assert rig.node.server.connection_count == 1
        assert rig.node.pool.used_bytes == 0

    run(body, memory_request_bytes=str(16 << 20))
