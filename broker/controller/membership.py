"""Which node id a starting process gets, and whom it replaces. Pure.

A registered broker of the same node id that does not answer at its address is replaced; should it
be alive after all, it meets the seal of its log and serves nothing more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from s3stream.metadata.features import SUPPORTED_LEVEL
from s3stream.metadata.image import BrokerRegistration, MetadataImage
from s3stream.metadata.records import Endpoint

FIRST_NODE_ID = 1


class StartRefused(Exception):
    """This process must not start; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a process says of itself when it joins.

    node_id: None asks for the lowest free one. take_over: replace the broker of that node id
    even though it answers. listeners: advertised addresses. store: driver and endpoint, by which
    the store was tested (`objectstore.probe`). wal_window: PUTs in flight of its log. level: of
    `headwater.version`, the highest that the process reads.
    """

    node_id: int | None
    take_over: bool
    listeners: tuple[Endpoint, ...]
    store: str
    wal_window: int
    rack: str | None = None
    address_http: str | None = None
    level: int = SUPPORTED_LEVEL


def to_ask(image: MetadataImage) -> list[BrokerRegistration]:
    """Brokers that must be asked whether they are there before anything is decided."""
    return [broker for broker in image.live_brokers() if broker.listeners]


def choose_node_id(
    brokers: Mapping[int, BrokerRegistration],
    identity: Identity,
    answering: Collection[int],
) -> int:
    """The node id to register under. answering: node ids. Raises StartRefused."""
    wanted = identity.node_id
    if wanted is None:
        return lowest_free(answering)
    if wanted in answering and not identity.take_over:
        raise StartRefused(is_running(brokers[wanted]))
    return wanted


def lowest_free(taken: Collection[int]) -> int:
    node_id = FIRST_NODE_ID
    while node_id in taken:
        node_id += 1
    return node_id


def is_running(broker: BrokerRegistration) -> str:
    """Why a start under this broker's node id is refused."""
    return (
        f"node {broker.node_id} of this store is running and answers at {address_of(broker)}; "
        "stop it first, or replace it with --take-over"
    )


def address_of(broker: BrokerRegistration) -> str:
    """The first listener's address, as a person types it."""
    if not broker.listeners:
        return "an unknown address"
    return host_port(broker.listeners[0])


def host_port(endpoint: Endpoint) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{endpoint.port}"


def process_name(node_id: int, listeners: tuple[Endpoint, ...], random_bytes: bytes) -> bytes:
    """Names one process for ever; readable, since a fenced process shows it to its operator."""
    where = host_port(listeners[0]) if listeners else "nowhere"
    return f"node {node_id} at {where} ({random_bytes.hex()})".encode()
