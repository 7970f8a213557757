"""A client of one broker of a fleet, its answers decoded by kafka-python."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tests.simulation.loop import start_on

from ..cluster.fleet import Fleet
from ..node_rig import Client


class FleetClient:
    """One connection to each broker that is asked, made when it is."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._clients: dict[int, Client] = {}

    async def ask(self, number: int, request: Any, version: int) -> Any:
        """number: of the broker."""
        client = self._clients.get(number)
        if client is None:
            rig = cast(Any, SimpleNamespace(node=self._fleet.node(number)))
            client = self._clients[number] = Client(rig, "10.0.0.1", "PLAINTEXT")
        return await start_on(self._fleet.names[number], client.ask(request, version))
