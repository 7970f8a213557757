"""Keeps the open partitions in step with the metadata image: the broker leads what it says.

Deciding is the controller's; here its decisions are carried out: streams are opened (one log
record for all that came together), partitions added, groups loaded, and the opening is reported.
What is to move to another broker is closed at once, handed over by one log record, and let go of
when its next leader's opening is recorded. What fails is tried again; nothing is served before its
opening is durable.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import NamedTuple

from broker.config import BrokerConfig, TopicConfig
from broker.controller.decisions import Membership
from broker.controller.moves import moving_from
from broker.coordinator import OFFSETS_TOPIC, GroupCoordinator
from objectstore.create import Backoff
from objectstore.errors import Corrupt, StoreError
from protocol.errors import KafkaError
from s3stream.handoff import HandoffRef
from s3stream.metadata.image import MetadataImage, PartitionImage
from s3stream.metadata.records import BlobRef
from s3stream.node_log import StreamStorage
from s3stream.registry import StreamRegistry
from s3stream.stream import Stream
from s3stream.takeover import SourceRef
from wal.parallel import first_error

from .confirmation import Confirmation
from .group_loading import GroupLoading
from .leadership import partition_image
from .partition.partition import Partition
from .partition.partitions import Partitions
from .wanted import Wanted, WantedPartitions

log = logging.getLogger(__name__)

SETTLE_S = 5.0
# A change of leaders takes a few requests to the store; clients wait for one that takes longer.
LED_ON_S = 0.5


class Leading:
    """One reconciler: a single task, so opening and closing never overlap."""

    def __init__(
        self,
        controller: Membership,
        storage: StreamStorage,
        confirmation: Confirmation,
        partitions: Partitions,
        groups: GroupCoordinator,
        config: Callable[[], BrokerConfig],
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self._controller = controller
        self._storage = storage
        self._partitions = partitions
        self._config = config
        self._now_ms = now_ms
        self._rng = rng
        self._changed = asyncio.Event()
        self._changed.set()
        self._settled = asyncio.Event()
        self._wanted = WantedPartitions()
        # Streams to look at: the image changed about them, or what it asks for is not done yet.
        self._due: set[int] | None = None
        self._open: dict[int, tuple[Partition, int]] = {}
        self._unreported: dict[int, int] = {}
        self._led_on_until = float("-inf")
        self._loading = GroupLoading(groups, confirmation.confirm)
        groups.led_on = self._groups_led_on
        controller.subscribe(self._image_changed)
        partitions.set_image(controller.image)

    def _image_changed(self, old: MetadataImage, new: MetadataImage) -> None:
        self._partitions.set_image(new)
        if old.topics is not new.topics:
            # Gone at once: nobody may append to a topic that was answered as deleted.
            deleted = {}
            for topic_id in new.topic_names.differences(old.topic_names):
                if topic_id not in new.topic_names:
                    topic = old.topic_by_id(topic_id)
                    assert topic is not None
                    deleted[topic.name] = topic_id
                    for partition in topic.partitions:
                        self._close(partition.stream_id)
                        self._unreported.pop(partition.stream_id, None)
            if deleted:
                self._loading.topics_deleted(deleted)
        if old.moves is not new.moves:
            # At once, and not in the reconciler's turn: the pause of a move begins here.
            for stream_ids in moving_from(new, self._controller.incarnation).values():
                for stream_id in stream_ids:
                    self._close(stream_id)
        if old.topics is not new.topics or old.moves is not new.moves:
            self._settled.clear()
            self._changed.set()
            self._led_on_until = asyncio.get_running_loop().time() + LED_ON_S

    async def led_on(self) -> None:
        """Until leaders that change now have changed; at most so long after the last change."""
        try:
            async with asyncio.timeout_at(self._led_on_until):
                await self._settled.wait()
        except TimeoutError:
            pass

    async def _groups_led_on(self, index: int) -> None:
        """The same, where the image gives us that partition of groups, which is not open."""
        led = partition_image(self._controller.image.topics.get(OFFSETS_TOPIC), index)
        if led is not None and led.leader == self._controller.incarnation:
            await self.led_on()

    async def settled(self) -> None:
        """Until what the image asks for is open, or a few seconds have passed."""
        try:
            async with asyncio.timeout(SETTLE_S):
                await self._settled.wait()
        except TimeoutError:
            pass

    async def run(self) -> None:
        """Owner's task: for ever. Raises Fenced, LogClosed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_in_step(), name="leading")
                tasks.create_task(self._loading.run(), name="group-loading")
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    async def _keep_in_step(self) -> None:
        backoff = Backoff(self._rng)
        told = ""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.reconcile()
            except (StoreError, KafkaError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("opening partitions failed, trying again: %s", error)
                await asyncio.sleep(backoff.next_s())
                self._changed.set()
                continue
            backoff, told = Backoff(self._rng), ""
            if not self._changed.is_set():
                self._settled.set()

    async def reconcile(self) -> None:
        """Open and close until the open partitions are those of the image.

        Raises the first error met, after everything that could be done was done.
        """
        image, incarnation = self._controller.image, self._controller.incarnation
        moves = moving_from(image, incarnation)
        moving = {stream_id for stream_ids in moves.values() for stream_id in stream_ids}
        held = self._storage.registry.entries
        if self._due is None:
            self._due = set(held)  # of topics that were deleted meanwhile, too
        self._due |= self._wanted.follow(image, incarnation, moving)
        due = sorted(self._due)
        wanted = self._wanted.get
        for stream_id in due:
            self._adjust(stream_id, wanted(stream_id))
        closed = await self._hand_over(moves)
        gone = [s for s in due if s in held and wanted(s) is None and self._may_drop(image, s)]
        if gone:
            await self._storage.drop_streams(gone)
        missing = [w for s in due if s not in self._open and (w := wanted(s)) is not None]
        trouble = await self._open_all(image, missing) or closed
        self._due = {s for s in self._due if not self._is_done(s)}
        if self._unreported:
            report = sorted(self._unreported.items())
            await self._controller.opened(report)
            for stream_id, epoch in report:
                if self._unreported.get(stream_id) == epoch:
                    del self._unreported[stream_id]
        if trouble is not None:
            raise trouble

    def _adjust(self, stream_id: int, wanted: Wanted | None) -> None:
        """What is open: close it where it is not wanted so any more, or give it its settings."""
        if (found := self._open.get(stream_id)) is None:
            return
        partition, epoch = found
        if wanted is None or wanted.partition.leader_epoch != epoch:
            self._close(stream_id)
        elif partition.config.overrides != wanted.topic.configs:
            partition.config = TopicConfig(self._config(), wanted.topic.configs)

    def _is_done(self, stream_id: int) -> bool:
        """Nothing is left to do about it until the image changes about it."""
        if self._wanted.get(stream_id) is None:
            return stream_id not in self._storage.registry.entries
        return stream_id in self._open

    async def _hand_over(self, moves: dict[int, list[int]]) -> StoreError | KafkaError | None:
        """Close what is to move, and say where its next leaders read it. Asked again, say so again:
        the controller may have changed since.
        """
        if not moves:
            return None
        try:
            told = await self._storage.hand_over(moves)
            for number in sorted(told):
                await self._controller.handed_over(number, told[number])
        except (StoreError, KafkaError) as error:
            return error  # a move that never ends so is cancelled by the controller
        return None

    def _may_drop(self, image: MetadataImage, stream_id: int) -> bool:
        """Deleted; or another leads it by now and has its opening recorded."""
        place = image.partition_of(stream_id)
        if place is None:
            return True
        partition, incarnation = place[1], self._controller.incarnation
        closed = self._storage.registry.entries[stream_id].closed
        return closed and incarnation not in (partition.leader, partition.source)

    async def _open_all(
        self, image: MetadataImage, missing: list[Wanted]
    ) -> StoreError | KafkaError | None:
        """Open what each source has, in one log record; a source in trouble stops no other."""
        trouble: StoreError | KafkaError | None = None
        by_source: dict[_Source, list[Wanted]] = {}
        for wanted in missing:
            source = _source(image, wanted.partition, self._controller.incarnation)
            by_source.setdefault(source, []).append(wanted)
        for source in sorted(by_source):
            group = by_source[source]
            if source.incarnation is None:
                # Opened empty: only what the image calls new. What we led before is in our log.
                registry = self._storage.registry
                lost = [w for w in group if not w.partition.is_new and not _held(w, registry)]
                if lost:
                    ids = [w.partition.stream_id for w in lost]
                    trouble = trouble or Corrupt(f"our log does not hold streams {ids} any more")
                    group = [w for w in group if w not in lost]
            try:
                streams = await self._storage.open_streams(
                    [
                        (w.partition.stream_id, w.partition.leader_epoch, w.partition.appointment)
                        for w in group
                    ],
                    source.ref(image),
                )
            except (StoreError, KafkaError) as error:
                trouble = trouble or error
                continue
            for wanted, stream in zip(group, streams, strict=True):
                if wanted.partition.source is not None or wanted.partition.is_new:
                    self._unreported[stream.stream_id] = wanted.partition.leader_epoch
                if self._is_current(wanted):
                    self._add(wanted, stream)
        return trouble

    def _is_current(self, wanted: Wanted) -> bool:
        """Whether the image, which went on meanwhile, still gives us the partition like this."""
        image, incarnation = self._controller.image, self._controller.incarnation
        topic = image.topic_by_id(wanted.topic.topic_id)
        now = partition_image(topic, wanted.partition.index)
        return (
            now is not None
            and now.leader == incarnation
            and now.leader_epoch == wanted.partition.leader_epoch
        )

    def _add(self, wanted: Wanted, stream: Stream) -> None:
        topic, index = wanted.topic, wanted.partition.index
        config = self._config()
        partition = Partition(
            topic.name,
            topic.topic_id,
            index,
            stream,
            TopicConfig(config, topic.configs),
            internal=topic.internal,
            producer_expiration_ms=config.int("producer.id.expiration.ms"),
            validate_records=config.flag("log.validate.records"),
            now_ms=self._now_ms,
            storage=self._storage,
            large_batch_bytes=config.int("large.batch.bytes"),
        )
        self._open[stream.stream_id] = (partition, wanted.partition.leader_epoch)
        self._partitions.add(partition)
        if topic.name == OFFSETS_TOPIC:
            self._loading.lead(partition)

    def _close(self, stream_id: int) -> None:
        found = self._open.pop(stream_id, None)
        if found is None:
            return
        if self._due is not None:
            self._due.add(stream_id)
        partition, _ = found
        self._partitions.remove(partition.topic, partition.index)
        if partition.topic == OFFSETS_TOPIC:
            self._loading.resign(partition)

    def set_config(self) -> None:
        """A dynamic change of the broker's settings: topics fall back on them."""
        config = self._config()
        expiration_ms = config.int("producer.id.expiration.ms")
        self._storage.set_producer_expiration(expiration_ms)
        for partition, _ in self._open.values():
            partition.config = partition.config.with_broker(config)
            partition.producers.expiration_ms = expiration_ms

    def close(self) -> None:
        """Serve nothing more."""
        for stream_id in list(self._open):
            self._close(stream_id)


def _held(wanted: Wanted, registry: StreamRegistry) -> bool:
    return wanted.partition.stream_id in registry


class _Source(NamedTuple):
    """Where a stream's contents are told. incarnation None: in our own log, or it is new.

    move: of the handoff by which a live source told it; -1: its recovery object does.
    """

    order: int
    incarnation: int | None
    move: int = -1
    contents: BlobRef | None = None

    def ref(self, image: MetadataImage) -> SourceRef | HandoffRef | None:
        """Raises Corrupt: the image does not say."""
        if self.incarnation is None:
            return None
        if self.contents is not None:
            return HandoffRef(self.incarnation, self.move, self.contents)
        recovery = image.incarnations[self.incarnation].recovery
        if recovery is None:
            raise Corrupt(
                f"the metadata log names no recovery object of incarnation {self.incarnation}"
            )
        return SourceRef(self.incarnation, recovery)


def _source(image: MetadataImage, partition: PartitionImage, ours: int) -> _Source:
    source = partition.source
    if source is None or source == ours:
        return _Source(-1, None)
    handoff = image.handoffs.get(partition.stream_id)
    if handoff is not None and handoff.source == source:
        return _Source(source, source, handoff.move, handoff.contents)
    return _Source(source, source)
