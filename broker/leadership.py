"""Who leads what, as a client may be told it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.primitives import NodeEndpoint

if TYPE_CHECKING:
    from s3stream.metadata.image import MetadataImage, PartitionImage, TopicImage

NO_NODE = -1


def leader_node(image: MetadataImage, partition: PartitionImage) -> int:
    """The node id of a partition's leader; -1: it has none that serves."""
    state = image.incarnations.get(partition.leader)
    if state is None or state.fenced:
        return NO_NODE
    broker = image.brokers.get(state.node_id)
    if broker is None or broker.fenced or broker.incarnation != partition.leader:
        return NO_NODE
    return state.node_id


def endpoint_of(image: MetadataImage, node_id: int, listener: str) -> NodeEndpoint | None:
    """Where a broker is reached by the listener that a request came by; else by its first."""
    broker = image.brokers.get(node_id)
    if broker is None or not broker.listeners:
        return None
    chosen = next((e for e in broker.listeners if e.name == listener), broker.listeners[0])
    return NodeEndpoint(node_id, chosen.host, chosen.port, broker.rack)


def partition_image(topic: TopicImage | None, index: int) -> PartitionImage | None:
    """The partition, if the topic has it."""
    if topic is None or not 0 <= index < len(topic.partitions):
        return None
    return topic.partitions[index]
