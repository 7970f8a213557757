"""A plan of the balancer as an operator reads it: nodes and partitions by their names."""

from __future__ import annotations

import msgspec

from broker.controller.goals import GOALS, Amounts, Plan, imbalance
from s3stream.metadata.image import MetadataImage


class StepView(msgspec.Struct, frozen=True):
    """above: how far the source is above the mean of `goal`, as a share of it."""

    topic: str
    partition: int
    source: int
    target: int
    goal: str
    above: float


class StuckView(msgspec.Struct, frozen=True):
    """A node with too much, which no move would mend. partition: its hottest, TOPIC/N, or None;
    share: of the node's bytes.
    """

    node_id: int
    goal: str
    above: float
    partition: str | None
    share: float


class NodeView(msgspec.Struct, frozen=True):
    """Amounts in the order of `goals`."""

    node_id: int
    before: tuple[float, ...]
    after: tuple[float, ...]


class BalanceView(msgspec.Struct, frozen=True):
    """goals: names of the amounts. above: what counts as too much. imbalance: see goals."""

    goals: tuple[str, ...]
    above: float
    nodes: list[NodeView]
    steps: list[StepView]
    stuck: list[StuckView]
    imbalance_before: float
    imbalance_after: float


def balance_view(image: MetadataImage, plan: Plan, above: float) -> BalanceView:
    def node(incarnation: int) -> int:
        state = image.incarnations.get(incarnation)
        return -1 if state is None else state.node_id

    def partition(stream_id: int | None) -> tuple[str, int] | None:
        place = None if stream_id is None else image.partition_of(stream_id)
        return None if place is None else (place[0].name, place[1].index)

    steps = []
    for step in plan.steps:
        topic, index = partition(step.stream_id) or ("?", -1)
        steps.append(
            StepView(topic, index, node(step.source), node(step.target), step.goal, step.above)
        )
    stuck = []
    for one in plan.stuck:
        named = partition(one.hottest)
        told = None if named is None else f"{named[0]}/{named[1]}"
        stuck.append(StuckView(node(one.incarnation), one.goal, one.above, told, one.share))
    return BalanceView(
        GOALS,
        above,
        [
            NodeView(node(one), tuple(plan.before[one]), tuple(plan.after[one]))
            for one in plan.before
        ],
        steps,
        stuck,
        imbalance({one: Amounts(*amounts) for one, amounts in plan.before.items()}),
        imbalance({one: Amounts(*amounts) for one, amounts in plan.after.items()}),
    )
