"""The serving broker's side: asks leaders about what consumers of the own rack read here.

Each leader of something that is read here is asked for as long as it is read (`asking`); while
nobody reads here, none is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

from broker.cluster.channel import Channel
from broker.cluster.reads_messages import InviteReads, ReadsInvited
from broker.leadership import NO_NODE, leader_node, partition_image
from s3stream.told_stream import ToldStream
from wal.parallel import first_error

from .asking import Asking
from .choice import KnownRacks
from .followed import FollowedPartition

if TYPE_CHECKING:
    from s3stream.metadata.image import MetadataImage, PartitionImage, TopicImage


class Following:
    """open_to: a channel to a broker's incarnation; raises OSError, TimeoutError, StoreError.

    us: node id and incarnation. new_stream: for what is known of a stream.
    """

    def __init__(
        self,
        image: Callable[[], MetadataImage],
        racks: KnownRacks,
        us: Callable[[], tuple[int, int]],
        open_to: Callable[[int], Awaitable[Channel]],
        new_stream: Callable[[int], ToldStream],
        rng: Random,
    ) -> None:
        self._image = image
        self._racks = racks
        self._us = us
        self._open_to = open_to
        self._new_stream = new_stream
        self._rng = rng
        self._followed: dict[int, FollowedPartition] = {}
        self._leaders: dict[int, Asking] = {}
        self._some = asyncio.Event()
        self._turns = count(1)

    def __len__(self) -> int:
        return len(self._followed)

    def find(self, topic: str | UUID, index: int) -> FollowedPartition | None:
        """The partition, if this broker serves it in its rack."""
        image = self._image()
        racks = self._racks.of(image)
        if not racks:
            return None
        found = image.topics.get(topic) if isinstance(topic, str) else image.topic_by_id(topic)
        partition = partition_image(found, index)
        if found is None or partition is None:
            return None
        known = self._followed.get(partition.stream_id)
        if known is not None and (
            known.leader == partition.leader or leader_node(image, partition) == NO_NODE
        ):
            # Without a leader, too: what is known does not go with it.
            return known
        if not racks.serves(self._us()[0], image, partition):
            return None
        return self._follow(found, partition)

    def invited(self, streams: list[int]) -> ReadsInvited:
        """A leader has readers for us; of what the image says that we serve we ask it."""
        image, node_id = self._image(), self._us()[0]
        racks = self._racks.of(image)
        for stream_id in streams:
            place = image.partition_of(stream_id)
            if place is None or not racks.serves(node_id, image, place[1]):
                continue
            followed = self._followed.get(stream_id) or self._follow(*place)
            followed.read_at = asyncio.get_running_loop().time()
            self._leaders[followed.leader].hurry()
        return ReadsInvited()

    async def invite(self, request: InviteReads) -> ReadsInvited:
        """Another broker's request."""
        return self.invited(request.streams)

    def _follow(self, topic: TopicImage, partition: PartitionImage) -> FollowedPartition:
        followed = FollowedPartition(
            topic.name,
            topic.topic_id,
            partition.index,
            partition.leader,
            partition.leader_epoch,
            self._new_stream(partition.stream_id),
            self._ask,
            self._hurry,
        )
        self._followed[partition.stream_id] = followed
        self._leader(partition.leader).streams[partition.stream_id] = followed
        return followed

    def _leader(self, incarnation: int) -> Asking:
        leader = self._leaders.get(incarnation)
        if leader is None:
            leader = self._leaders[incarnation] = Asking(incarnation, self.drop, self._turns)
            self._some.set()
        return leader

    def _hurry(self, followed: FollowedPartition) -> None:
        leader = self._leaders.get(followed.leader)
        if leader is not None:
            leader.hurry()

    async def _ask(self, followed: FollowedPartition) -> bool:
        leader = self._leaders.get(followed.leader)
        if leader is None or followed.closed:
            return False
        return await leader.ask(followed)

    def drop(self, followed: FollowedPartition) -> None:
        """Nobody reads it here any more, or this broker does not serve it."""
        self._followed.pop(followed.told.stream_id, None)
        leader = self._leaders.get(followed.leader)
        if leader is not None:
            leader.release(followed.told.stream_id)
        followed.close()

    def image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        """Leaders change, topics go, another broker of the rack comes."""
        if (
            old.topics is new.topics
            and old.brokers is new.brokers
            and old.draining is new.draining
            and old.features is new.features
        ):
            return
        for stream_id, followed in list(self._followed.items()):
            place = new.partition_of(stream_id)
            if place is None:
                self.drop(followed)
                continue
            partition = place[1]
            if leader_node(new, partition) == NO_NODE:
                continue  # between two leaders
            if not self._racks.of(new).serves(self._us()[0], new, partition):
                self.drop(followed)
            elif (partition.leader, partition.leader_epoch) != (
                followed.leader,
                followed.leader_epoch,
            ):
                before = self._leaders.get(followed.leader)
                if before is not None:
                    before.release(stream_id)
                followed.lead_by(partition.leader, partition.leader_epoch)
                leader = self._leader(partition.leader)
                leader.streams[stream_id] = followed
                leader.hurry()

    async def run(self) -> None:
        """Owner's task: for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    await self._some.wait()
                    self._some.clear()
                    for leader in self._leaders.values():
                        if not leader.is_running:
                            leader.is_running = True
                            name = f"reads of {leader.incarnation}"
                            tasks.create_task(self._run(leader), name=name)
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def _run(self, leader: Asking) -> None:
        try:
            while leader.streams:
                await leader.run(self._us()[1], self._open_to, self._rng)
        finally:
            leader.refuse_all()
            del self._leaders[leader.incarnation]

    def close(self) -> None:
        """Serve nothing more."""
        for followed in list(self._followed.values()):
            self.drop(followed)
