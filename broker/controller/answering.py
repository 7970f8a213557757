"""Is a broker of this cluster alive at an address? Asked once, before its node id is taken over.

A connection alone proves nothing: a paused process accepts, and another service may have the port.
So the cluster id is asked for (DescribeCluster 0, the first version that tells it without more).

    request    size i32 | key i16 60 | version i16 0 | correlation i32 | client id nullable string
               | tags | include authorised operations bool | tags
    response   size i32 | correlation i32 | tags | throttle i32 | error i16
               | message compact nullable string | cluster id compact string | …

Source: KIP-700, KIP-482.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from broker.network import Network
from s3stream.metadata.image import BrokerRegistration
from s3stream.metadata.records import Endpoint

ANSWER_TIMEOUT_S = 1.0
LARGEST_ANSWER_BYTES = 1 << 20
DESCRIBE_CLUSTER = 60

_CORRELATION = 1
# A broker that is asked under this name makes sure that it was not replaced before it answers.
STARTING_CLIENT_ID = "headwater-start"


def over_network(network: Network) -> Callable[[BrokerRegistration, str], Awaitable[bool]]:
    """What `Controller` takes as `answers`."""

    async def answers(broker: BrokerRegistration, cluster_id: str) -> bool:
        return await broker_answers(network, broker.listeners, cluster_id)

    return answers


async def broker_answers(
    network: Network,
    listeners: Sequence[Endpoint],
    cluster_id: str,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> bool:
    """True where a broker of this cluster answers at one of its listeners in time."""
    for endpoint in listeners:
        try:
            async with asyncio.timeout(timeout_s):
                if await _cluster_id_at(network, endpoint) == cluster_id:
                    return True
        except (OSError, TimeoutError):
            continue
    return False


async def _cluster_id_at(network: Network, endpoint: Endpoint) -> str | None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await network.connect(endpoint.host, endpoint.port, lambda: _Asking(answer))
    try:
        return _parse(await answer)
    finally:
        # cast(): the transports of uvloop are no subclasses of asyncio's.
        cast(asyncio.Transport, transport).abort()


class _Asking(asyncio.Protocol):
    """Sends the one request, gathers the one answer; b"" where there will be none."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(_request())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) < 4 or self._answer.done():
            return
        (size,) = struct.unpack_from(">i", self._received)
        if not 0 <= size <= LARGEST_ANSWER_BYTES:
            self._answer.set_result(b"")
        elif len(self._received) >= 4 + size:
            self._answer.set_result(bytes(self._received[4 : 4 + size]))

    def connection_lost(self, error: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_result(b"")


def _request() -> bytes:
    client_id = STARTING_CLIENT_ID.encode()
    header = struct.pack(">hhih", DESCRIBE_CLUSTER, 0, _CORRELATION, len(client_id)) + client_id
    body = header + b"\x00" + b"\x00" + b"\x00"
    return struct.pack(">i", len(body)) + body


def _parse(answer: bytes) -> str | None:
    """The cluster id; None for what is no such answer."""
    if len(answer) < 13 or struct.unpack_from(">i", answer)[0] != _CORRELATION or answer[4] != 0:
        return None
    # Lengths are varints, but neither a cluster id nor an error of ours needs a second byte.
    position = 4 + 1 + 4 + 2
    message_length = max(answer[position] - 1, 0)
    position += 1 + message_length
    if position >= len(answer) or answer[position] > 0x7F:
        return None
    length = answer[position] - 1
    raw = answer[position + 1 : position + 1 + length]
    return raw.decode("utf-8", "replace") if length > 0 and len(raw) == length else None
