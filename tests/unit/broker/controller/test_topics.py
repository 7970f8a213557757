from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import pytest

from broker.controller import Controller, NewTopic
from broker.controller import term as controller_module
from objectstore.drivers.memory import MemoryStore
from objectstore.errors import StoreUnavailable
from objectstore.store import Chunks
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.image import TopicImage
from s3stream.metadata.tail import load

from .cluster import identity, new_controller, new_store, started

T = TypeVar("T")


def with_controller(act: Callable[[Controller], Awaitable[T]]) -> T:
    async def main() -> T:
        async with started(new_controller(new_store())) as controller:
            return await act(controller)

    return asyncio.run(main())


async def create(controller: Controller, *topics: NewTopic) -> list[TopicImage]:
    made = []
    for answer in await controller.create_topics(topics):
        if isinstance(answer, KafkaError):
            raise answer
        made.append(answer)
    return made


def refusal(topic: NewTopic, *before: NewTopic) -> tuple[ErrorCode, str | None]:
    async def act(controller: Controller) -> tuple[ErrorCode, str | None]:
        await create(controller, *before)
        (answer,) = await controller.create_topics([topic])
        assert isinstance(answer, KafkaError)
        assert topic.name not in controller.image.topics or before
        return answer.code, answer.message

    return with_controller(act)


def test_minus_one_stands_for_the_defaults() -> None:
    async def act(controller: Controller) -> None:
        (topic,) = await create(controller, NewTopic("orders"))
        assert len(topic.partitions) == 2
        assert topic.replication_factor == 1
        assert topic.topic_id.version == 4

    with_controller(act)


def test_any_replication_factor_above_0_is_taken_and_kept() -> None:
    async def act(controller: Controller) -> None:
        (topic,) = await create(controller, NewTopic("orders", 1, 3))
        assert topic.replication_factor == 3

    with_controller(act)


def test_what_is_answered_can_be_read_from_the_bucket() -> None:
    async def main() -> None:
        store = new_store()
        async with started(new_controller(store)) as controller:
            (topic,) = await create(controller, NewTopic("orders", configs={"retention.ms": "5"}))
            loaded = await load(store)
            assert loaded is not None
            assert loaded.image.topics["orders"] == topic

    asyncio.run(main())


@pytest.mark.parametrize(
    ("topic", "code", "message"),
    [
        (
            NewTopic(""),
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            "Topic name is invalid: the empty string is not allowed",
        ),
        (
            NewTopic(".."),
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            "Topic name is invalid: '..' is not allowed",
        ),
        (
            NewTopic("x" * 250),
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            (
                f"Topic name is invalid: the length of '{'x' * 250}' is longer than the max "
                "allowed length 249"
            ),
        ),
        (
            NewTopic("caf\u00e9"),
            ErrorCode.INVALID_TOPIC_EXCEPTION,
            (
                "Topic name is invalid: 'caf\u00e9' contains one or more characters other than "
                "ASCII alphanumerics, '.', '_' and '-'"
            ),
        ),
        (
            NewTopic("a", 0),
            ErrorCode.INVALID_PARTITIONS,
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (
            NewTopic("a", 1, 0),
            ErrorCode.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            NewTopic("a", configs={"retention.ms": None}),
            ErrorCode.INVALID_CONFIG,
            "Null value not supported for topic configs: retention.ms",
        ),
        (
            NewTopic("a", configs={"bad": "1"}),
            ErrorCode.INVALID_CONFIG,
            "Unknown topic config name: bad",
        ),
        (
            NewTopic("a", 1, -1, [(0, [1])]),
            ErrorCode.INVALID_REQUEST,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            NewTopic("a", -1, 1, [(0, [1])]),
            ErrorCode.INVALID_REQUEST,
            (
                "A manual partition assignment was specified, but replication factor was not set "
                "to -1."
            ),
        ),
        (
            NewTopic("a", assignments=[(0, [])]),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            NewTopic("a", assignments=[(0, [9])]),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        ),
        (
            NewTopic("a", assignments=[(0, [1, 1])]),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            NewTopic("a", assignments=[(1, [1])]),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            NewTopic("a", assignments=[(0, [1]), (0, [1])]),
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Found multiple manual partition assignments for partition 0",
        ),
    ],
)
def test_kafkas_refusals(topic: NewTopic, code: ErrorCode, message: str) -> None:
    assert refusal(topic) == (code, message)


def test_names_that_differ_in_dots_and_underscores_only_collide() -> None:
    assert refusal(NewTopic("a_b.c"), NewTopic("a.b_c")) == (
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "Topic 'a_b.c' collides with existing topic: a.b_c",
    )


def test_two_colliding_names_in_one_request_make_one_topic() -> None:
    async def act(controller: Controller) -> None:
        first, second = await controller.create_topics([NewTopic("a.b"), NewTopic("a_b")])
        assert isinstance(first, TopicImage)
        assert isinstance(second, KafkaError)
        assert list(controller.image.topics) == ["a.b"]

    with_controller(act)


def test_a_name_that_is_there_exists_already() -> None:
    assert refusal(NewTopic("a.b"), NewTopic("a.b")) == (
        ErrorCode.TOPIC_ALREADY_EXISTS,
        "Topic 'a.b' already exists.",
    )


def test_a_name_twice_in_one_request_makes_none() -> None:
    async def act(controller: Controller) -> None:
        answers = await controller.create_topics([NewTopic("a"), NewTopic("b"), NewTopic("a")])
        assert [isinstance(answer, KafkaError) for answer in answers] == [True, False, True]
        assert list(controller.image.topics) == ["b"]

    with_controller(act)


def test_too_many_partitions_refuse_the_request_as_a_whole() -> None:
    async def act(controller: Controller) -> None:
        with pytest.raises(KafkaError) as refused:
            await controller.create_topics([NewTopic("a", 6000), NewTopic("b", 6000)])
        assert refused.value.code is ErrorCode.POLICY_VIOLATION
        assert not controller.image.topics

    with_controller(act)


def test_validate_only_checks_and_makes_nothing() -> None:
    async def act(controller: Controller) -> None:
        before = controller.image.position
        good, bad = await controller.create_topics(
            [NewTopic("a", 3), NewTopic("x y")], validate_only=True
        )
        assert isinstance(good, TopicImage) and len(good.partitions) == 3
        assert isinstance(bad, KafkaError)
        assert controller.image.position == before

    with_controller(act)


def test_concurrent_creations_of_one_name_make_one_topic_and_all_answers_are_durable() -> None:
    async def act(controller: Controller) -> None:
        async def one() -> TopicImage | KafkaError:
            (answer,) = await controller.create_topics([NewTopic("orders")])
            assert "orders" in controller.image.topics, "told before it was durable"
            return answer

        answers = await asyncio.gather(*(one() for _ in range(10)))
        made = [answer for answer in answers if isinstance(answer, TopicImage)]
        refused = [answer for answer in answers if isinstance(answer, KafkaError)]
        assert len(made) == 1
        assert {error.code for error in refused} == {ErrorCode.TOPIC_ALREADY_EXISTS}

    with_controller(act)


def test_a_caller_that_goes_away_takes_nothing_back() -> None:
    async def act(controller: Controller) -> None:
        going = asyncio.create_task(controller.create_topics([NewTopic("orders")]))
        await asyncio.sleep(0)
        going.cancel()
        (answer,) = await controller.create_topics([NewTopic("orders")])
        assert isinstance(answer, KafkaError)
        assert answer.code is ErrorCode.TOPIC_ALREADY_EXISTS
        assert "orders" in controller.image.topics

    with_controller(act)


def test_growing_a_topic_keeps_its_partitions_and_numbers_the_new_ones() -> None:
    async def act(controller: Controller) -> None:
        (before,) = await create(controller, NewTopic("orders", 2))
        await controller.create_partitions("orders", 5)
        after = controller.image.topics["orders"]
        assert after.partitions[:2] == before.partitions
        assert [p.index for p in after.partitions] == [0, 1, 2, 3, 4]
        assert len({p.stream_id for p in after.partitions}) == 5

    with_controller(act)


@pytest.mark.parametrize(
    ("name", "total", "assignments", "code", "message"),
    [
        ("nosuch", 3, None, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None),
        ("orders", 2, None, ErrorCode.INVALID_PARTITIONS, "Topic already has 2 partition(s)."),
        (
            "orders",
            1,
            None,
            ErrorCode.INVALID_PARTITIONS,
            "The topic orders currently has 2 partition(s); 1 would not be an increase.",
        ),
        (
            "orders",
            4,
            [[1]],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            "orders",
            3,
            [[7]],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes broker 7, but no such broker is registered.",
        ),
        (
            "orders",
            20_000,
            None,
            ErrorCode.POLICY_VIOLATION,
            "Excessively large number of partitions per request.",
        ),
    ],
)
def test_kafkas_refusals_of_more_partitions(
    name: str,
    total: int,
    assignments: list[list[int]] | None,
    code: ErrorCode,
    message: str | None,
) -> None:
    async def act(controller: Controller) -> None:
        await create(controller, NewTopic("orders", 2))
        with pytest.raises(KafkaError) as refused:
            await controller.create_partitions(name, total, assignments)
        assert (refused.value.code, refused.value.message) == (code, message)

    with_controller(act)


def test_a_deleted_topic_is_gone_and_unknown_ids_are_told_one_by_one() -> None:
    async def act(controller: Controller) -> None:
        (topic,) = await create(controller, NewTopic("orders"))
        gone, unknown, again = await controller.delete_topics(
            [topic.topic_id, UUID(int=7), topic.topic_id]
        )
        assert gone == topic
        assert isinstance(unknown, KafkaError) and unknown.code is ErrorCode.UNKNOWN_TOPIC_ID
        assert isinstance(again, KafkaError)
        (new,) = await create(controller, NewTopic("orders"))
        assert new.topic_id != topic.topic_id
        assert not {p.stream_id for p in new.partitions} & {p.stream_id for p in topic.partitions}

    with_controller(act)


def test_configs_are_checked_as_they_will_be_and_altered_key_by_key() -> None:
    async def act(controller: Controller) -> None:
        await create(controller, NewTopic("orders", configs={"retention.ms": "5"}))
        await controller.alter_configs("topic", "orders", {"retention.bytes": "7"})
        with pytest.raises(KafkaError) as refused:
            await controller.alter_configs("topic", "orders", {"bad": "1"})
        assert refused.value.code is ErrorCode.INVALID_CONFIG
        with pytest.raises(KafkaError) as refused:
            await controller.alter_configs("topic", "nosuch", {"retention.ms": "1"})
        assert refused.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        await controller.alter_configs("topic", "orders", {"retention.ms": None})
        assert controller.image.topics["orders"].configs == {"retention.bytes": "7"}
        await controller.alter_configs("broker", "", {"log.retention.ms": "9"})
        assert controller.image.resource_configs("broker", "") == {"log.retention.ms": "9"}

    with_controller(act)


def test_no_producer_id_is_given_out_twice_over_restarts() -> None:
    async def main() -> None:
        store = new_store()
        blocks: list[tuple[int, int]] = []
        for seed in (1, 2, 3):
            async with started(new_controller(store, seed=seed)) as controller:
                blocks += await asyncio.gather(
                    *(controller.allocate_producer_ids() for _ in range(3))
                )
        given = [n for first, count in blocks for n in range(first, first + count)]
        assert len(given) == len(set(given)) == 9000

    asyncio.run(main())


def test_after_the_term_is_lost_every_decision_is_refused() -> None:
    async def main() -> None:
        store = new_store()
        old = new_controller(store)
        await old.start()
        async with started(new_controller(store, seed=2)):
            answers = await asyncio.gather(
                old.create_topics([NewTopic("orders")]),
                old.allocate_producer_ids(),
                return_exceptions=True,
            )
            for answer in answers:
                assert isinstance(answer, KafkaError)
                assert answer.code is ErrorCode.NOT_CONTROLLER
        await old.abort()
        loaded = await load(store)
        assert loaded is not None and not loaded.image.topics

    asyncio.run(main())


@pytest.mark.parametrize("bound", ["RECORDS_AHEAD_AT_MOST", "BYTES_AHEAD_AT_MOST"])
def test_decisions_that_wait_for_an_absent_store_are_bounded(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck(MemoryStore):
        stuck = False

        async def create(self, key: str, chunks: Chunks) -> None:
            if self.stuck:
                raise StoreUnavailable("connection refused")
            await super().create(key, chunks)

    async def main() -> None:
        store = Stuck(lambda: 0)
        async with started(new_controller(store)) as controller:
            store.stuck = True
            monkeypatch.setattr(controller_module, bound, 20)
            waiting = [
                asyncio.ensure_future(create(controller, NewTopic(f"orders-{n}")))
                for n in range(30)
            ]
            await asyncio.sleep(0)
            refused = [one.exception() for one in waiting if one.done()]
            assert refused and len(refused) < 30
            assert all(isinstance(e, KafkaError) for e in refused)
            assert {e.code for e in refused if isinstance(e, KafkaError)} == {
                ErrorCode.REQUEST_TIMED_OUT
            }
            store.stuck = False
            told = await asyncio.gather(*waiting, return_exceptions=True)
            assert sum(isinstance(one, list) for one in told) == 30 - len(refused)
            assert len(controller.image.topics) == 30 - len(refused)

    asyncio.run(main())


def test_a_replaced_controller_tells_nobody_that_a_topic_exists_already() -> None:
    """Its image is old: the topic may have been deleted by its successor."""

    async def main() -> None:
        store = new_store()
        old = new_controller(store, identity(1))
        await old.start()
        (topic,) = await create(old, NewTopic("orders"))
        new = new_controller(store, identity(1, port=9093, take_over=True), seed=2)
        await new.start()
        await new.delete_topics([topic.topic_id])
        with pytest.raises(KafkaError) as told:
            await old.create_topics([NewTopic("orders")])
        assert told.value.code is ErrorCode.NOT_CONTROLLER
        (made,) = await create(new, NewTopic("orders"))
        assert made.topic_id != topic.topic_id
        await old.abort()
        await new.abort()

    asyncio.run(main())
