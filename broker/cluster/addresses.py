"""Where brokers find each other: at the listener for that, of those that they registered."""

from __future__ import annotations

import asyncio
from typing import cast

from broker.controller.answering import broker_answers
from broker.network import Network
from s3stream.metadata.image import BrokerRegistration
from s3stream.metadata.records import Endpoint

GONE_TIMEOUT_S = 1.0


class Addresses:
    """name: `inter.broker.listener.name`; None: the first. ours: host and port of what this
    process has bound: whoever answers there is no other broker.
    """

    def __init__(
        self, network: Network, name: str | None, ours: frozenset[tuple[str, int]]
    ) -> None:
        self._network = network
        self._name = name
        self._ours = ours

    def of(self, broker: BrokerRegistration) -> Endpoint | None:
        """For brokers. One of another version, or other settings, may lack the name."""
        named = (one for one in broker.listeners if one.name == self._name)
        return next(named, broker.listeners[0] if broker.listeners else None)

    async def answers(self, broker: BrokerRegistration, cluster_id: str) -> bool:
        """Whether it serves clients.

        An address that we hold ourselves cannot be the old broker's. One that we are only to
        advertise may still lead to it: two machines with the same settings.
        """
        others = [one for one in broker.listeners if (one.host, one.port) not in self._ours]
        return await broker_answers(self._network, others, cluster_id)

    async def is_gone(self, broker: BrokerRegistration) -> bool:
        """Whether its address refuses connections, as that of a process that ended does."""
        endpoint = self.of(broker)
        if endpoint is None:
            return True
        try:
            async with asyncio.timeout(GONE_TIMEOUT_S):
                transport, _ = await self._network.connect(
                    endpoint.host, endpoint.port, asyncio.Protocol
                )
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        # cast(): the transports of uvloop are no subclasses of asyncio's.
        cast(asyncio.Transport, transport).abort()
        return False
