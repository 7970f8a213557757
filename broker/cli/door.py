"""How a command reaches a running cluster: by its bucket, which names the brokers and proves us."""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import TypeVar

from broker.cluster import messages as m
from broker.cluster.addresses import Addresses
from broker.cluster.channel import Channel, Peers
from broker.cluster.joining import holder_of
from broker.cluster.secret import Secret
from broker.controller.membership import host_port
from broker.network import Network, TcpNetwork
from objectstore.errors import StoreError
from objectstore.store import ObjectStore
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import BrokerRegistration, MetadataImage
from s3stream.metadata.records import Endpoint
from s3stream.metadata.tail import load
from wal.errors import LogError

from .settings import load_settings, store_flags
from .store_option import store_of

PATIENCE_S = 8.0
ANSWER_S = 15.0
AGAIN_S = 0.3

A = TypeVar("A", bound=m.Answer)


class NoCluster(Exception):
    """There is none in this store."""


class NoController(Exception):
    """Nobody who decides answers; the message says who was asked."""


class Door:
    """listener_name: `inter.broker.listener.name`, where the cluster has one set."""

    def __init__(
        self, store: ObjectStore, network: Network, rng: Random, listener_name: str | None
    ) -> None:
        self._store = store
        self._addresses = Addresses(network, listener_name, frozenset())
        self._peers = Peers(network, Secret(store), rng)
        self._image: MetadataImage | None = None
        self._channel: Channel | None = None

    async def read(self) -> MetadataImage:
        """The metadata as the bucket tells it now. Raises NoCluster, StoreError, LogError."""
        loaded = await load(self._store)
        if loaded is None:
            raise NoCluster("no cluster was ever made in this store")
        self._image = loaded.image
        return loaded.image

    @property
    def image(self) -> MetadataImage:
        """As it was read last."""
        assert self._image is not None, "read() first"
        return self._image

    def address(self, broker: BrokerRegistration) -> Endpoint | None:
        return self._addresses.of(broker)

    async def reaches(self, broker: BrokerRegistration) -> bool:
        """Whether it answers here, and proves that it is of this cluster."""
        where = self._addresses.of(broker)
        try:
            if where is not None:
                (await self._peers.open(where)).close()
                return True
        except (OSError, TimeoutError, KafkaError):
            pass
        return False

    async def ask(
        self, request: m.Request, expected: type[A], *, patience_s: float = PATIENCE_S
    ) -> A:
        """Of whoever decides, found anew where that has changed. What is asked may be done twice.

        Raises NoController, NoCluster, KafkaError: it refused, StoreError, LogError.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + patience_s
        why = ""
        while True:
            try:
                return await (await self._open()).call(request, expected, ANSWER_S)
            except KafkaError as error:
                if error.code is not ErrorCode.NOT_CONTROLLER:
                    raise
                why = f"{self._named()} does not decide any more"
            except (OSError, TimeoutError) as error:
                why = f"{self._named()} does not answer ({error or 'nothing came back'})"
            self.close()
            if loop.time() >= give_up_at:
                raise NoController(why)
            await asyncio.sleep(AGAIN_S)

    async def _open(self) -> Channel:
        if self._channel is None or not self._channel.is_open:
            holder = holder_of(await self.read())
            where = None if holder is None else self._addresses.of(holder)
            if where is None:
                raise ConnectionError("it registered no address")
            self._channel = await self._peers.open(where)
        return self._channel

    def _named(self) -> str:
        holder = None if self._image is None else holder_of(self._image)
        if holder is None:
            return "whoever decided last"
        where = self._addresses.of(holder)
        return f"node {holder.node_id} at {'nowhere' if where is None else host_port(where)}"

    def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


@asynccontextmanager
async def open_door(parsed: argparse.Namespace) -> AsyncIterator[Door]:
    """To the store of a command. Raises ValueError (ConfigError too) and StoreError."""
    config = load_settings(parsed, store_flags(parsed)).config
    rng = random.SystemRandom()
    store = await store_of(parsed, rng)
    try:
        door = Door(store, TcpNetwork(), rng, config.optional_text("inter.broker.listener.name"))
        try:
            yield door
        finally:
            door.close()
    finally:
        await store.close()


def through_door(
    command: str, parsed: argparse.Namespace, act: Callable[[Door], Awaitable[int]]
) -> int:
    """Runs `act`; what stands in its way becomes one line and FAILED."""
    from . import exit_status
    from .complaint import complain

    async def run() -> int:
        async with open_door(parsed) as door:
            return await act(door)

    try:
        return asyncio.run(run())
    except KafkaError as error:
        return complain(command, error.message or str(error), exit_status.FAILED)
    except (NoCluster, NoController, StoreError, LogError) as error:
        return complain(command, str(error), exit_status.FAILED)
    except ValueError as error:
        return complain(command, str(error), exit_status.USAGE)
