"""Moves leaderships so that brokers have equally much to do (`goals`), a few at a calm interval.

Of the process that decides, for one term. A look is taken only after a broker told of a load that
matters: an idle cluster has no timer here, and nothing is decided for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.cluster.load import Load
from protocol.errors import ErrorCode, KafkaError
from s3stream.metadata.features import may_move
from s3stream.metadata.image import MetadataImage

from .goals import STEPS, Amounts, BrokerLoad, Movable, Plan, plan_steps
from .loads import Loads
from .moves import Decide, plan_moves

log = logging.getLogger(__name__)

# In intervals: a partition that was moved is left alone for so long.
RESTS = 3


@dataclass(frozen=True, slots=True)
class BalanceSettings:
    """above: so far above the mean, as a share of it, a broker has too much."""

    enabled: bool = True
    interval_s: float = 60.0
    above: float = 0.2


class Levelling:
    """planned: the image with all that was decided so far."""

    def __init__(
        self,
        planned: Callable[[], MetadataImage],
        decide: Decide,
        loads: Loads,
        settings: BalanceSettings,
    ) -> None:
        self.settings = settings
        self._planned = planned
        self._decide = decide
        self._loads = loads
        self._moved_at: dict[int, float] = {}

    async def run(self) -> None:
        """Owner's task: until the term is over."""
        if not self.settings.enabled:
            return
        while True:
            await self._loads.busy.wait()
            await asyncio.sleep(self.settings.interval_s)
            self._loads.busy.clear()
            try:
                plan, moves = await self.step()
            except KafkaError as error:
                if error.code is ErrorCode.NOT_CONTROLLER:
                    return
                log.info("balancing by load waits: %s", error)
                continue
            if moves:
                log.info(
                    "%d partitions move, since brokers %s have too much",
                    len(plan.steps),
                    sorted({f"{one.source} ({one.goal})" for one in plan.steps}),
                )

    def why_not(self) -> str:
        """Why nothing is planned now, whatever the loads are; "" where it may be."""
        planned = self._planned()
        if not may_move(planned):
            return "the cluster's feature level does not allow moves yet"
        if planned.moves or any(p.source is not None for _, p in planned.partitions()):
            return "partitions are on their way already"
        return ""

    def plan(self) -> Plan:
        """What would be done now."""
        planned = self._planned()
        live = [one.incarnation for one in planned.live_brokers()]
        brokers, movable = inputs_of(planned, self._loads.of(live))
        now = asyncio.get_running_loop().time()
        rests_s = RESTS * self.settings.interval_s
        self._moved_at = {one: at for one, at in self._moved_at.items() if now - at < rests_s}
        return plan_steps(brokers, movable, self.settings.above, resting=self._moved_at)

    async def step(self) -> tuple[Plan, list[int]]:
        """The plan, and the numbers of the moves that were begun for it. Raises KafkaError."""
        if self.why_not():
            return Plan((), (), {}, {}), []
        plan = self.plan()
        if not plan.steps:
            return plan, []
        begun = plan_moves(self._planned(), {one.stream_id: one.target for one in plan.steps})
        await self._decide(begun)
        now = asyncio.get_running_loop().time()
        self._moved_at.update((one.stream_id, now) for one in plan.steps)
        return plan, [one.move for one in begun]


def inputs_of(
    image: MetadataImage, loads: Mapping[int, Load]
) -> tuple[list[BrokerLoad], list[Movable]]:
    """What `plan_steps` wants of the brokers that stay. Where one of them has not told its load,
    only partitions count.
    """
    staying = {
        b.incarnation: b for b in image.live_brokers() if b.incarnation not in image.draining
    }
    told = all(one in loads for one in staying)
    hot = {}
    for incarnation in staying if told else ():
        load = loads[incarnation]
        whole = max(load.bytes_in + load.bytes_out, 1)
        for one in load.hottest:
            share = (one.bytes_in + one.bytes_out) / whole
            hot[one.stream_id] = incarnation, one.bytes_in, one.bytes_out, share
    counts = dict.fromkeys(staying, 0)
    cold: dict[tuple[int, bool], list[int]] = {}
    movable: list[Movable] = []
    for topic, partition in image.partitions():
        leader = partition.leader
        if leader not in counts:
            continue
        counts[leader] += 1
        if partition.source is not None or partition.is_new:
            continue
        known = hot.get(partition.stream_id)
        if known is not None and known[0] == leader:
            movable.append(Movable(partition.stream_id, *known))
        else:
            # The internal ones last: a group has to be loaded anew where one goes.
            few = cold.setdefault((leader, topic.internal), [])
            if len(few) < STEPS:
                few.append(partition.stream_id)
    for leader in staying:
        few = cold.get((leader, False), []) or cold.get((leader, True), [])
        movable += [Movable(stream_id, leader) for stream_id in few]
    brokers = [
        BrokerLoad(
            one,
            _amounts(loads[one] if told else Load(), counts[one]),
            staying[one].rack,
        )
        for one in staying
    ]
    if len({one.rack for one in brokers}) > 1:
        movable = [_with_racks(image, one) for one in movable]
    return brokers, movable


def _amounts(load: Load, partitions: int) -> Amounts:
    return Amounts(load.bytes_in, load.bytes_out, load.requests, load.processor, partitions)


def _with_racks(image: MetadataImage, one: Movable) -> Movable:
    place = image.partition_of(one.stream_id)
    led_in: dict[str, int] = {}
    for partition in () if place is None else place[0].partitions:
        broker = image.broker_of(partition.leader)
        if broker is not None and broker.rack is not None:
            led_in[broker.rack] = led_in.get(broker.rack, 0) + 1
    return Movable(one.stream_id, one.leader, one.bytes_in, one.bytes_out, one.share, led_in)
