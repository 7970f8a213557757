"""A client that makes and deletes topics, and trims partitions."""

from __future__ import annotations

from random import Random
from typing import Any
from uuid import UUID

from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.records import Record, encode_batch

from .checkers import Violation
from .client import Disconnected
from .workload import Client, Topic, World, produce_request

TIMEOUT_MS = 2_500


class Admin(Client):
    """Answers are checked against what the same client knows; it is the only one that decides."""

    async def create(
        self, name: str, partitions: int, configs: dict[str, str] | None = None
    ) -> Topic:
        """Until it is there."""
        request = m.CreateTopicsRequest(
            topics=[
                m.CreateTopicsRequest.CreatableTopic(
                    name=name,
                    num_partitions=partitions,
                    replication_factor=1,
                    assignments=[],
                    configs=[
                        m.CreateTopicsRequest.CreatableTopic.CreatableTopicConfig(
                            name=key, value=value
                        )
                        for key, value in (configs or {}).items()
                    ],
                )
            ],
            timeout_ms=TIMEOUT_MS,
            validate_only=False,
        )
        tried = False
        while True:
            try:
                answer = (await self.call(request, 7)).topics[0]
            except Disconnected:
                tried = True
                continue
            if answer.error_code == ErrorCode.TOPIC_ALREADY_EXISTS and self.replaced:
                self.leave()  # it does not know yet that the topic was deleted
                continue
            if answer.error_code == ErrorCode.TOPIC_ALREADY_EXISTS and tried:
                found = (await self.describe()).get(name)
                if found is None:
                    await self.rest(0.2)
                    continue  # told by a broker that does not know it yet
                topic_id = found
            elif self.retry(answer.error_code, f"creation of {name}"):
                tried = True
                await self.rest(0.2)
                continue
            else:
                topic_id = answer.topic_id
            self.history.counted["topics created"] += 1
            self.history.topics[name] = topic_id
            topic = self.world.topics[name] = Topic(name, topic_id, partitions)
            return topic

    async def delete(self, topic: Topic) -> None:
        """Until it is gone."""
        self.history.deleting.add(topic.id)
        self.history.topics.pop(topic.name, None)
        self.world.topics.pop(topic.name, None)
        state = m.DeleteTopicsRequest.DeleteTopicState
        request = m.DeleteTopicsRequest(
            topics=[state(name=None, topic_id=topic.id)], timeout_ms=TIMEOUT_MS
        )
        while True:
            try:
                answer = (await self.call(request, 6)).responses[0]
            except Disconnected:
                continue
            gone = answer.error_code == 0
            if answer.error_code == ErrorCode.UNKNOWN_TOPIC_ID:
                # Deleted by an attempt before, or told by a broker that does not know it yet.
                gone = topic.id not in (await self.describe()).values() and not self.replaced
            if gone:
                self.history.counted["topics deleted"] += 1
                return
            self.retry(answer.error_code, f"deletion of {topic.name}")
            await self.rest(0.2)

    async def describe(self) -> dict[str, UUID]:
        """All topics, by name."""
        request = m.MetadataRequest(
            topics=None,
            allow_auto_topic_creation=False,
            include_topic_authorized_operations=False,
        )
        while True:
            try:
                answer = await self.call(request, 12)
            except Disconnected:
                continue
            return {
                one.name: one.topic_id
                for one in answer.topics
                if not one.is_internal and not one.error_code
            }

    @property
    def replaced(self) -> bool:
        return self.world.cluster.process_at(self.host).replaced_at is not None

    async def check_topics(self) -> None:
        """What was created is there, what was deleted is not, and nothing else is."""
        there = await self.describe()
        if self.replaced:
            return  # metadata comes without a confirmation, as from Apache Kafka
        wanted = self.history.topics
        for name, topic_id in wanted.items():
            if there.get(name) != topic_id:
                raise Violation(f"topic {name} ({topic_id}) is gone, or another: {there}")
        for name, topic_id in there.items():
            if name not in wanted:
                raise Violation(
                    f"topic {name} ({topic_id}) was deleted; at {self.host} it is there"
                )

    async def trim(self, topic: Topic, index: int, offset: int) -> None:
        """DeleteRecords, once. Raises Disconnected: nobody knows."""
        place = topic.place(index)
        partition = self.history.at(place)
        partition.start_asked = max(partition.start_asked, offset)
        topic_class = m.DeleteRecordsRequest.DeleteRecordsTopic
        request = m.DeleteRecordsRequest(
            topics=[
                topic_class(
                    name=topic.name,
                    partitions=[
                        topic_class.DeleteRecordsPartition(partition_index=index, offset=offset)
                    ],
                )
            ],
            timeout_ms=TIMEOUT_MS,
        )
        asked_at = self.loop.time()
        answer = (await self.call(request, 2)).topics[0].partitions[0]
        if answer.error_code == ErrorCode.OFFSET_OUT_OF_RANGE and self.stale(asked_at):
            return
        if not self.retry(answer.error_code, f"trim of {topic.name}-{index} to {offset}"):
            if answer.low_watermark < offset:
                raise Violation(f"trimmed to {answer.low_watermark}, asked for {offset}")
            self.history.trimmed(place, answer.low_watermark)


class Churn(Admin):
    """Topics come, get a few records, and go again."""

    async def run(self) -> None:
        made = 0
        kept: list[Topic] = []
        while not self.stopping:
            await self.rest(1.0)
            await self.world.busy.wait()
            if len(kept) < 3:
                # A name that was used before, now and then: it is another topic then.
                name = f"{self.name}-{self.rng.randrange(4)}"
                if name not in self.world.topics:
                    topic = await self.create(name, self.rng.randrange(1, 4))
                    kept.append(topic)
            else:
                topic = kept.pop(self.rng.randrange(len(kept)))
                if self.rng.random() < 0.5:
                    made += 1
                    await self._produce_on_its_way(topic, self.values(made, 1))
                await self.delete(topic)
            await self.check_topics()
            if kept:
                topic = self.rng.choice(kept)
                index = self.rng.randrange(topic.partitions)
                batch = encode_batch(self.values(made, 1))
                made += 1
                sent = self.history.sending(self.name, topic.place(index), batch)
                await self._produce(topic, index, batch, sent)

    async def _produce_on_its_way(self, topic: Topic, values: list[Record]) -> None:
        """By a connection of its own; nobody waits for the answer, and the topic goes."""
        batch = encode_batch(values)
        self.history.sending(self.name, topic.place(0), batch)
        request = produce_request([(topic, 0, batch)], 0)
        connection = await self.connected()
        connection.send_without_answer(request, 9)

    async def _produce(self, topic: Topic, index: int, batch: bytearray, sent: Any) -> None:
        try:
            answer = await self.call(produce_request([(topic, index, batch)], 1), 12)
        except Disconnected:
            return
        told = answer.responses[0].partition_responses[0]
        if not self.retry(told.error_code, f"{sent}"):
            self.history.acknowledged(sent, told.base_offset, told.log_start_offset)


class Trimmer(Admin):
    """Moves log starts up to somewhere below what readers have seen."""

    def __init__(self, world: World, name: str, rng: Random, topics: list[Topic]) -> None:
        super().__init__(world, name, rng)
        self._topics = topics

    async def run(self) -> None:
        while not self.stopping:
            await self.rest(1.0)
            await self.world.busy.wait()
            topic = self.rng.choice(self._topics)
            index = self.rng.randrange(topic.partitions)
            partition = self.history.at(topic.place(index))
            start = max(partition.start_told, partition.start_asked)
            if partition.floor > start:
                offset = self.rng.randint(start, partition.floor)
                try:
                    await self.trim(topic, index, offset)
                except Disconnected:
                    self.history.counted["trim unknown"] += 1
