"""What an incarnation leads, by differences, is what looking at every partition finds."""

from __future__ import annotations

from random import Random
from uuid import UUID

import msgspec
import pytest

from broker.wanted import WantedPartitions
from s3stream.metadata.image import (
    EMPTY_IMAGE,
    MetadataImage,
    PartitionImage,
    TopicImage,
    changed,
    new_partition,
)
from s3stream.metadata.records import BEFORE_ALL

OURS = 1


def topic_of(name: str, number: int, partitions: list[PartitionImage]) -> TopicImage:
    return TopicImage(name, UUID(int=number), False, 1, {}, tuple(partitions))


def with_topics(image: MetadataImage, *topics: TopicImage) -> MetadataImage:
    return changed(image, topics=image.topics.change((one.name, one) for one in topics))


def led(image: MetadataImage) -> dict[int, tuple[PartitionImage, dict[str, str]]]:
    return {p.stream_id: (p, t.configs) for t, p in image.led_by(OURS)}


def step(rng: Random, image: MetadataImage, next_stream: int) -> tuple[MetadataImage, int]:
    """One random change: topics come and go, grow, are configured, partitions change."""
    name = f"t{rng.randrange(6)}"
    topic = image.topics.get(name)
    if topic is None or rng.random() < 0.1:  # made, or made anew under another id
        ids = range(next_stream, next_stream + rng.randrange(1, 5))
        made = [new_partition(i, s, rng.randrange(3), BEFORE_ALL) for i, s in enumerate(ids)]
        return with_topics(image, topic_of(name, next_stream, made)), next_stream + len(made)
    kind = rng.randrange(5)
    if kind == 0:
        return changed(image, topics=image.topics.without(name)), next_stream
    if kind == 1:
        configs = {"retention.ms": str(rng.randrange(3))}
        return with_topics(image, msgspec.structs.replace(topic, configs=configs)), next_stream
    partitions = list(topic.partitions)
    if kind == 2:
        partitions.append(new_partition(len(partitions), next_stream, OURS, BEFORE_ALL))
        next_stream += 1
    else:
        chosen = rng.randrange(len(partitions))
        partitions[chosen] = msgspec.structs.replace(
            partitions[chosen],
            leader=rng.randrange(3),
            leader_epoch=partitions[chosen].leader_epoch + 1,
        )
    return with_topics(
        image, msgspec.structs.replace(topic, partitions=tuple(partitions))
    ), next_stream


@pytest.mark.parametrize("seed", range(20))
def test_any_changes_are_followed_and_every_stream_they_concern_is_told(seed: int) -> None:
    rng = Random(seed)
    image, next_stream = EMPTY_IMAGE, 0
    wanted, known, moving = WantedPartitions(), dict[int, object](), set[int]()
    for _ in range(60):
        before = {s: (p, t.configs) for t, p in image.partitions() for s in [p.stream_id]}
        for _ in range(rng.randrange(3)):  # some images are never seen
            image, next_stream = step(rng, image, next_stream)
        was_moving = moving
        moving = {s for s in led(image) if rng.random() < 0.2}
        touched = wanted.follow(image, OURS, moving)
        after = {s: (p, t.configs) for t, p in image.partitions() for s in [p.stream_id]}
        concerned = {s for s in {*before, *after} if before.get(s) != after.get(s)}
        assert concerned | (moving ^ was_moving) <= touched
        known = {s: place for s, place in led(image).items() if s not in moving}
        found = {s: (w.partition, w.topic.configs) for s in after if (w := wanted.get(s))}
        assert found == known
        assert all(wanted.get(stream_id) is None for stream_id in {*before} - {*after})


def test_nothing_is_told_where_nothing_changed() -> None:
    image = with_topics(EMPTY_IMAGE, topic_of("t", 1, [new_partition(0, 7, OURS, BEFORE_ALL)]))
    wanted = WantedPartitions()
    assert wanted.follow(image, OURS, set()) == {7}
    assert wanted.follow(image, OURS, set()) == set()
    other = with_topics(image, topic_of("u", 2, [new_partition(0, 8, 5, BEFORE_ALL)]))
    assert wanted.follow(other, OURS, set()) == {8}, "whoever leads it"
    assert wanted.get(8) is None


def test_another_incarnation_begins_anew() -> None:
    image = with_topics(
        EMPTY_IMAGE,
        topic_of(
            "t", 1, [new_partition(0, 7, OURS, BEFORE_ALL), new_partition(1, 8, 2, BEFORE_ALL)]
        ),
    )
    wanted = WantedPartitions()
    wanted.follow(image, OURS, set())
    assert wanted.follow(image, 2, set()) == {7, 8}
    assert wanted.get(7) is None
    assert wanted.get(8) is not None
