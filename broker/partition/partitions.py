"""All partitions that this broker leads: found by name or id, opened and closed with the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from protocol.errors import ErrorCode, KafkaError

from .partition import Partition

if TYPE_CHECKING:
    from s3stream.metadata.image import MetadataImage


class Partitions:
    """Looked up on every request; changed only by `node` as the metadata image changes."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, int], Partition] = {}
        self._by_id: dict[tuple[UUID, int], Partition] = {}
        self._image: MetadataImage | None = None

    def set_image(self, image: MetadataImage) -> None:
        """The metadata by which an unknown topic is told from another broker's."""
        self._image = image

    def __len__(self) -> int:
        return len(self._by_name)

    def each(self) -> Iterable[Partition]:
        """In no order that means anything; nothing may open or close meanwhile."""
        return self._by_name.values()

    def all(self) -> list[Partition]:
        """By topic and index."""
        return [self._by_name[key] for key in sorted(self._by_name)]

    def add(self, partition: Partition) -> None:
        self._by_name[partition.topic, partition.index] = partition
        self._by_id[partition.topic_id, partition.index] = partition

    def remove(self, topic: str, index: int) -> Partition | None:
        """The partition, closed, or None."""
        partition = self._by_name.pop((topic, index), None)
        if partition is not None:
            self._by_id.pop((partition.topic_id, index), None)
            partition.close()
        return partition

    def is_open(self, topic: str | UUID, index: int) -> bool:
        """topic: name or id."""
        if isinstance(topic, str):
            return (topic, index) in self._by_name
        return (topic, index) in self._by_id

    def get(self, topic: str, index: int) -> Partition | None:
        return self._by_name.get((topic, index))

    def leading(self, topic: str, index: int) -> Partition:
        """Raises UNKNOWN_TOPIC_OR_PARTITION or NOT_LEADER_OR_FOLLOWER."""
        partition = self._by_name.get((topic, index))
        if partition is None:
            image = self._image
            found = image.topics.get(topic) if image is not None else None
            if found is None or not 0 <= index < len(found.partitions):
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return partition

    def leading_by_id(self, topic_id: UUID | None, index: int) -> Partition:
        """Raises UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION or NOT_LEADER_OR_FOLLOWER."""
        if topic_id is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
        partition = self._by_id.get((topic_id, index))
        if partition is None:
            image = self._image
            found = image.topic_by_id(topic_id) if image is not None else None
            if found is None:
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_ID)
            if not 0 <= index < len(found.partitions):
                raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        return partition
