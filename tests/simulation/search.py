"""A client that asks for offsets by time."""

from __future__ import annotations

from random import Random
from typing import Any

from protocol import messages as m
from protocol.errors import ErrorCode

from .checkers import Violation
from .client import Disconnected
from .workload import Client, Topic, World

MAX_TIMESTAMP = -3


class Searcher(Client):
    """All records of a batch have one timestamp here, so an answer is the start of a batch."""

    def __init__(
        self, world: World, name: str, rng: Random, targets: list[tuple[Topic, int]]
    ) -> None:
        super().__init__(world, name, rng)
        self._targets = targets
        self._begun_ms = self.loop.now_ms()

    async def run(self) -> None:
        while not self.stopping:
            await self.rest(1.0)
            await self.world.busy.wait()
            topic, index = self.rng.choice(self._targets)
            latest = self.rng.random() < 0.5
            time_ms = self.rng.randint(self._begun_ms, self.loop.now_ms())
            try:
                await self._ask(topic, index, MAX_TIMESTAMP if latest else time_ms)
            except Disconnected:
                continue

    async def _ask(self, topic: Topic, index: int, time_ms: int) -> None:
        partition = self.history.at(topic.place(index))
        known = dict(partition.log)
        asked_at = self.loop.time()
        topic_class = m.ListOffsetsRequest.ListOffsetsTopic
        request = m.ListOffsetsRequest(
            replica_id=-1,
            isolation_level=self.rng.randrange(2),
            topics=[
                topic_class(
                    name=topic.name,
                    partitions=[
                        topic_class.ListOffsetsPartition(
                            partition_index=index, current_leader_epoch=-1, timestamp=time_ms
                        )
                    ],
                )
            ],
            timeout_ms=2000,
        )
        answer = await self.call(request, self.rng.choice((7, 8, 10)))
        told: Any = answer.topics[0].partitions[0]
        if told.error_code == ErrorCode.UNKNOWN_SERVER_ERROR:
            raise Violation(f"{self.name}: a search failed in {topic.name}-{index}")
        what = f"{topic.name}-{index}: searched {time_ms}, got {told.offset} of {told.timestamp}"
        if self.retry(told.error_code, what) or self.stale(asked_at) or partition.retention:
            return
        self.history.counted["searched"] += 1
        if time_ms == MAX_TIMESTAMP:
            after = told.timestamp + 1
            end = 1 << 62
        else:
            after = time_ms
            end = told.offset if told.offset >= 0 else 1 << 62
            if told.offset >= 0 and told.timestamp < time_ms:
                raise Violation(what)
        for base, sent in known.items():
            # What was trimmed, or may be by now, is nobody's to find.
            kept = base >= partition.start_asked and base + sent.count <= end
            if kept and sent.timestamp_ms >= after:
                raise Violation(f"{what}; but {sent} at {base} is of {sent.timestamp_ms}")
