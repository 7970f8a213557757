"""Topics that come to be because somebody asked for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from broker.controller import NewTopic
from broker.coordinator import OFFSETS_TOPIC
from protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    from broker.request_context import RequestContext


def new_topic(ctx: RequestContext, name: str) -> NewTopic:
    """What an automatic creation makes: internal topics have settings of their own."""
    if name != OFFSETS_TOPIC:
        return NewTopic(name)
    config = ctx.services.config
    return NewTopic(
        name,
        partitions=config.int("offsets.topic.num.partitions"),
        replication_factor=config.int("offsets.topic.replication.factor"),
        configs={
            "cleanup.policy": "compact",
            "compression.type": "producer",
            "segment.bytes": str(config.int("offsets.topic.segment.bytes")),
        },
    )


async def auto_create(ctx: RequestContext, names: Sequence[str]) -> dict[str, KafkaError]:
    """Create what is not there; the error of each name that could not be.

    Two requests at a time make one topic: who comes second finds it, durable.
    """
    wanted = [new_topic(ctx, name) for name in names]
    try:
        decided = await ctx.services.controller.create_topics(wanted)
    except KafkaError as error:
        return dict.fromkeys(names, error)
    await ctx.services.settled()
    return {
        new.name: outcome
        for new, outcome in zip(wanted, decided, strict=True)
        if isinstance(outcome, KafkaError) and outcome.code is not ErrorCode.TOPIC_ALREADY_EXISTS
    }
