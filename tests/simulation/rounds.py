"""A round of deletion beside streams that no broker leads yet."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

from s3stream.collector import Collector
from s3stream.metadata.image import (
    EMPTY_IMAGE,
    End,
    IncarnationState,
    MetadataImage,
    PartitionImage,
    Rounds,
    TopicImage,
    changed,
)
from s3stream.metadata.records import BEFORE_ALL
from s3stream.report import Reporter
from tests.unit.s3stream.log_rig import WINDOW, Life

if TYPE_CHECKING:
    from .lives import Lives


class Round:
    """A round of deletion while recovered streams are not opened yet: only images name them."""

    def __init__(self, lives: Lives, life: Life, mine: int) -> None:
        self._lives = lives
        self.image: MetadataImage = changed(EMPTY_IMAGE, cluster_id="x")
        storage = life.storage
        self._reporter = Reporter(
            storage.registry,
            storage.reader,
            storage.object_writer,
            append=storage.append_control,
            next_seq=lambda: storage.wal.next_seq,
        )
        self._answers: list[asyncio.Task[None]] = []
        self._state(mine, None)
        partitions = []
        for stream_id, written in sorted(lives.streams.items()):
            source = written.source
            if source is None:
                continue
            self._state(source.incarnation, source.recovery)
            partitions.append(
                PartitionImage(stream_id, stream_id, mine, 0, BEFORE_ALL, source.incarnation, False)
            )
        topic = TopicImage("t", UUID(int=1), False, 1, {}, tuple(partitions))
        self.image = changed(self.image, topics=self.image.topics.set("t", topic))

    def _state(self, incarnation: int, recovery: Any) -> None:
        ended = None if recovery is None else End(1 << 40, b"m")
        state = IncarnationState(
            incarnation, incarnation, WINDOW, recovery is not None, ended, recovery
        )
        incarnations = self.image.incarnations.set(incarnation, state)
        self.image = changed(self.image, incarnations=incarnations)

    async def hold(self) -> None:
        collector = Collector(self._lives.store, self, rng=Random(self._lives.rng.random()))
        try:
            result = await collector.run_round()
            assert not result.abandoned
            self._lives.deleted += result.deleted
        finally:
            for answer in self._answers:
                answer.cancel()
                await asyncio.wait([answer])

    # Of RoundLog.

    async def begin_round(self) -> int:
        number = self.image.rounds.next_number
        self.image = changed(self.image, rounds=Rounds(number + 1, number, BEFORE_ALL))
        self._answers.append(asyncio.create_task(self._reporter.answer(number)))
        return number

    async def end_round(self, number: int, *, abandoned: bool) -> None:
        self.image = changed(self.image, rounds=Rounds(number + 1))
