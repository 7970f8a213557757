"""The coordinator gives the answers that Apache Kafka 4.3.1 was seen to give."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from tests.unit.broker.coordinator.broker_double import BrokerDouble
from tests.unit.broker.coordinator.kafka_cases import CASES, Case, Send
from tests.unit.broker.coordinator.virtual_loop import run


class _Env:
    def __init__(self, broker: BrokerDouble) -> None:
        self.broker = broker

    def client(self) -> Send:
        return self.broker

    def group(self, name: str) -> str:
        return name

    def topic_id(self, name: str) -> UUID:
        return self.broker.topics[name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answer_is_kafkas(case: Case) -> None:
    async def main() -> object:
        return await case.script(_Env(await BrokerDouble().start()))

    assert run(main()) == case.answer


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_restart_keeps_what_the_answers_told(case: Case) -> None:
    async def main() -> None:
        broker = await BrokerDouble().start()
        await case.script(_Env(broker))
        await asyncio.sleep(0.1)
        (_epoch, before) = broker.groups._shards[0]
        await broker.restart()
        (_epoch, after) = broker.groups._shards[0]
        assert after.durable.groups == before.durable.groups
        assert after.durable.offsets == before.durable.offsets

    run(main())
