"""All of reading in one's own rack, as the rest of the broker sees it.

leader         `preferred`: where a consumer of another rack is sent
serving        `find`: a partition that is served here though another broker leads it
both           bytes given to consumers, by whether they were in this broker's rack
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

from broker.cluster.addresses import Addresses
from broker.cluster.channel import Channel, Peers
from broker.cluster.reads_messages import FollowReads, InviteReads
from broker.cluster.serving import PeerServer
from broker.config import BrokerConfig
from broker.confirmation import Confirmation
from broker.controller.decisions import Membership
from broker.leadership import NO_NODE
from broker.partition.partition import Partition
from broker.partition.partitions import Partitions
from s3stream.told_stream import ToldStream
from wal.parallel import first_error

from .choice import KnownRacks, Racks
from .followed import FollowedPartition
from .following import Following
from .inviting import Inviting
from .telling import Telling

if TYPE_CHECKING:
    from s3stream.metadata.image import MetadataImage
    from s3stream.node_log import StreamStorage

RACK_AWARE = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
LEADER_ONLY = "org.apache.kafka.common.replica.LeaderSelector"


class RackReads:
    """config: its `broker.rack` and `replica.selector.class`, which hold from the start on."""

    def __init__(
        self,
        config: BrokerConfig,
        controller: Membership,
        storage: StreamStorage,
        partitions: Partitions,
        confirmation: Confirmation,
        peers: Peers,
        addresses: Addresses,
        rng: Random,
    ) -> None:
        self._controller = controller
        self._storage = storage
        self._peers = peers
        self._addresses = addresses
        self._rack = config.optional_text("broker.rack")
        self._sends = config.text("replica.selector.class") == RACK_AWARE
        self._known = KnownRacks()
        self._telling = Telling(self._image, partitions, confirmation)
        self._inviting = Inviting(self._open_to)
        self._following = Following(
            self._image,
            self._known,
            lambda: (controller.node_id, controller.incarnation),
            self._open_to,
            self._new_stream,
            rng,
        )
        self.bytes_by_rack = {"same": 0, "other": 0, "unknown": 0}
        self.redirected = 0
        controller.subscribe(self._following.image_changed)

    def serve(self, peers: PeerServer) -> None:
        """What other brokers ask."""
        peers.serve(FollowReads, self._telling.follow)
        peers.serve(InviteReads, self._following.invite)

    async def run(self) -> None:
        """Owner's task: for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._following.run(), name="reads followed")
                tasks.create_task(self._inviting.run(), name="reads invited")
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    def close(self) -> None:
        """Serve nothing more."""
        self._following.close()

    # -- what Metadata and Fetch ask

    @property
    def racks(self) -> Racks:
        """As of the image."""
        return self._known.of(self._image())

    @property
    def followed(self) -> int:
        """Partitions that are read here, and led elsewhere."""
        return len(self._following)

    def find(self, client_rack: str, topic: str | UUID, index: int) -> FollowedPartition | None:
        """The partition, if it is served here beside its leader. topic: name or id.

        To consumers of this rack alone: another, or one that knows of no racks, is here because it
        takes this broker for the leader, and is better told that it is not.
        """
        if not client_rack or client_rack != self._rack:
            return None
        return self._following.find(topic, index)

    def preferred(self, client_rack: str, partition: Partition, offset: int) -> int:
        """The node that a consumer is sent to; -1: it is answered here.

        Source: KIP-392; as with Kafka's RackAwareReplicaSelector, who is in the leader's rack, or
        in one without a broker that can serve the offset now, reads from the leader.
        """
        if not client_rack or not self._sends or client_rack == self._rack:
            return NO_NODE
        racks = self.racks
        if not racks:
            return NO_NODE
        stream_id, node_id = partition.stream.stream_id, self._controller.node_id
        serving = racks.serving(client_rack, stream_id, node_id)
        if serving == node_id:
            return NO_NODE
        incarnation = self._image().brokers[serving].incarnation
        if not self._telling.knows(incarnation, stream_id, offset):
            self._inviting.invite(incarnation, stream_id)
            return NO_NODE
        self.redirected += 1
        return serving

    def count(self, client_rack: str, size_bytes: int) -> None:
        """Bytes of records for a consumer. client_rack: "" where it tells none."""
        if not client_rack or self._rack is None:
            self.bytes_by_rack["unknown"] += size_bytes
        else:
            self.bytes_by_rack["same" if client_rack == self._rack else "other"] += size_bytes

    # -- parts

    def _image(self) -> MetadataImage:
        return self._controller.image

    async def _open_to(self, incarnation: int) -> Channel:
        broker = self._image().broker_of(incarnation)
        endpoint = None if broker is None or broker.fenced else self._addresses.of(broker)
        if endpoint is None:
            raise ConnectionRefusedError(f"incarnation {incarnation} is not there any more")
        return await self._peers.open(endpoint)

    def _new_stream(self, stream_id: int) -> ToldStream:
        storage = self._storage

        def read(size_bytes: int) -> None:
            storage.touch()
            storage.read_from_store(size_bytes)

        return ToldStream(stream_id, storage.reader, storage.read_ahead, read)
