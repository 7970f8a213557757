"""A node's part in reading from the own rack, wired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.cluster.addresses import Addresses
from broker.cluster.channel import Peers
from broker.cluster.secret import Secret
from broker.cluster.serving import PeerServer
from broker.racks.rack_reads import RackReads

from .confirmation import Confirmation

if TYPE_CHECKING:
    from .node import Node


def new_rack_reads(
    node: Node, secret: Secret, serving: PeerServer, confirmation: Confirmation
) -> RackReads:
    """Of a node whose storage is open."""
    env = node.environment
    name = node.config.optional_text("inter.broker.listener.name")
    racks = RackReads(
        node.config,
        node.controller,
        node.storage,
        node.partitions,
        confirmation,
        Peers(env.network, secret, env.rng),
        Addresses(env.network, name, frozenset()),
        env.rng,
    )
    racks.serve(serving)
    return racks


def register_rack_metrics(node: Node) -> None:
    """Who crosses zones, and who need not."""
    racks = node.services.racks
    node.metrics.register(
        "headwater_consumer_bytes_total", "counter",
        "Bytes of records given to consumers, by whether their client.rack is this broker's.",
        lambda: [({"rack": k}, float(v)) for k, v in racks.bytes_by_rack.items()],
    )  # fmt: skip
    value = node.metrics.register_value
    value(
        "headwater_rack_redirects_total", "counter",
        "Answers that sent a consumer to the broker of its rack.",
        lambda: float(racks.redirected),
    )  # fmt: skip
    value(
        "headwater_rack_followed_partitions", "gauge",
        "Partitions of other leaders that consumers of this rack read here.",
        lambda: float(racks.followed),
    )  # fmt: skip
