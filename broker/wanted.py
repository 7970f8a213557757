"""What the image wants an incarnation to lead, kept up by what differs from the image before.

A cluster may have a hundred thousand partitions, and its image changes with every record: looking
at all of them each time would hold the loop for longer than everything else together.
"""

from __future__ import annotations

from dataclasses import dataclass

from s3stream.metadata.image import EMPTY_IMAGE, MetadataImage, PartitionImage, TopicImage


@dataclass(frozen=True, slots=True)
class Wanted:
    """topic: as it was when the partition, or the topic's configuration, last changed."""

    topic: TopicImage
    partition: PartitionImage


class WantedPartitions:
    """By stream id. Without what is on its way to another broker."""

    def __init__(self) -> None:
        self._image = EMPTY_IMAGE
        self._incarnation = -1
        self._led: dict[int, Wanted] = {}
        self._moving: set[int] = set()

    def get(self, stream_id: int) -> Wanted | None:
        return None if stream_id in self._moving else self._led.get(stream_id)

    def follow(self, image: MetadataImage, incarnation: int, moving: set[int]) -> set[int]:
        """Go on to this image; streams of which something may have changed, whoever leads them.

        moving: what the incarnation leads, and has to hand over.
        """
        touched = self._moving ^ moving
        if incarnation != self._incarnation:
            touched.update(self._led)
            self._led.clear()
            self._image, self._incarnation = EMPTY_IMAGE, incarnation
        before = self._image.topics
        for name in image.topics.differences(before):
            self._replace(before.get(name), image.topics.get(name), touched)
        self._image, self._moving = image, moving
        return touched

    def _replace(self, old: TopicImage | None, new: TopicImage | None, touched: set[int]) -> None:
        gone = {} if old is None else {one.stream_id: one for one in old.partitions}
        if new is not None:
            same = old is not None and old.configs == new.configs and old.topic_id == new.topic_id
            for partition in new.partitions:
                stream_id = partition.stream_id
                if gone.pop(stream_id, None) is partition and same:
                    continue
                touched.add(stream_id)
                if partition.leader == self._incarnation:
                    self._led[stream_id] = Wanted(new, partition)
                else:
                    self._led.pop(stream_id, None)
        for stream_id in gone:
            touched.add(stream_id)
            self._led.pop(stream_id, None)
