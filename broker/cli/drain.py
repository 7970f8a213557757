"""`headwater drain NODE` and `headwater undrain NODE`.

The mark is set through the controller, which moves the leaderships away; the command only watches.
So it may be ended at any time, and given again.
"""

from __future__ import annotations

import argparse
import asyncio

from broker.cluster import messages as m
from broker.cluster.picture import BrokerPicture, View
from s3stream.metadata.features import HEADWATER_VERSION, MOVES_LEVEL, may_move

from . import exit_status
from .columns import bar, counted
from .complaint import complain
from .door import Door, through_door

LOOK_S = 0.3


class _Refused(Exception):
    """The message says why."""


def run(parsed: argparse.Namespace) -> int:
    """OK: nothing is led there (drain), or it may lead again (undrain)."""

    async def act(door: Door) -> int:
        try:
            if parsed.command == "undrain":
                return await _undrain(door, parsed.node)
            return await _drain(door, parsed.node, parsed.timeout)
        except _Refused as error:
            return complain(parsed.command, str(error), exit_status.FAILED)

    return through_door(parsed.command, parsed, act)


async def _undrain(door: Door, node_id: int) -> int:
    broker = _find(await _look(door), node_id)
    if broker.state != "draining":
        print(f"node {node_id} is not drained")
        return exit_status.OK
    await door.ask(m.SetDraining(broker.incarnation, False), m.Decided)
    print(f"node {node_id} may lead again; it is given its share within seconds")
    return exit_status.OK


async def _drain(door: Door, node_id: int, timeout_s: float) -> int:
    view = await _look(door)
    broker = _find(view, node_id)
    if broker.state != "draining":
        if not may_move(await door.read()):
            raise _Refused(
                f"leaders are moved from level {MOVES_LEVEL} of {HEADWATER_VERSION} on; raise it "
                "with kafka-features when all brokers run this version"
            )
        await door.ask(m.SetDraining(broker.incarnation, True), m.Decided)
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + timeout_s
    told, most = -1, 0
    while True:
        view = await _look(door)
        now = _find(view, node_id)
        if now.incarnation != broker.incarnation and now.state != "draining":
            raise _Refused(f"node {node_id} has started anew meanwhile, and is not drained")
        if now.state != "draining":
            raise _Refused(f"node {node_id} is not drained any more: it was undrained meanwhile")
        left = left_at(view, now)
        most = max(most, left)
        if left != told:
            told = left
            print(
                f"node {node_id}: {counted(left, 'partition')} left {bar(most - left, most)}",
                flush=True,
            )
        if not left:
            print(
                f"node {node_id} leads nothing, and is given nothing until "
                f"`headwater undrain {node_id}` or until its process starts anew"
            )
            return exit_status.OK
        if not _others(view, node_id):
            raise _Refused(
                f"no other broker is there that could lead what node {node_id} leads; it goes on "
                "leading, and hands over as soon as there is one"
            )
        if loop.time() >= give_up_at:
            raise _Refused(
                f"{counted(left, 'partition')} still to be handed over after {timeout_s:g} s; "
                "it goes on, and `headwater cluster` shows what it waits for"
            )
        await asyncio.sleep(LOOK_S)


async def _look(door: Door) -> View:
    return (await door.ask(m.ShowCluster(), m.ClusterShown)).view


def _find(view: View, node_id: int) -> BrokerPicture:
    """A broker that runs. Raises _Refused."""
    for broker in view.brokers:
        if broker.node_id == node_id:
            if broker.state == "fenced":
                raise _Refused(f"node {node_id} does not run; the others lead what it led")
            return broker
    known = ", ".join(str(broker.node_id) for broker in view.brokers)
    raise _Refused(f"there is no node {node_id} in this cluster; there are {known}")


def left_at(view: View, broker: BrokerPicture) -> int:
    """Partitions that it leads, or that a new leader has not opened yet."""
    opening = sum(move.opening for move in view.moves if move.source == broker.node_id)
    return broker.leads + opening


def _others(view: View, node_id: int) -> list[BrokerPicture]:
    return [one for one in view.brokers if one.node_id != node_id and one.state == "live"]
