"""`headwater balance [--plan]`: what the balancer would do now and why, or one step of it."""

from __future__ import annotations

import argparse
import asyncio

from broker.cluster import messages as m
from broker.cluster.balance_view import BalanceView

from . import exit_status
from .columns import columns, counted, size
from .complaint import complain
from .door import Door, through_door

LOOK_S = 0.3
MOVED_WITHIN_S = 30.0


def run(parsed: argparse.Namespace) -> int:
    """FAILED where nothing can be planned now, or a step does not end."""
    return through_door("balance", parsed, lambda door: _balance(door, parsed.plan))


async def _balance(door: Door, plan_only: bool) -> int:
    told = await door.ask(m.BalanceNow(plan_only), m.Balanced)
    print("\n".join(lines_of(told.plan)))
    if told.why_not:
        return complain("balance", f"nothing is moved now: {told.why_not}", exit_status.FAILED)
    if not told.moves:
        return exit_status.OK
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + MOVED_WITHIN_S
    while (await door.ask(m.ShowCluster(), m.ClusterShown)).view.moves:
        if loop.time() >= give_up_at:
            return complain(
                "balance",
                "the partitions are still on their way; `headwater cluster --watch` shows them",
                exit_status.FAILED,
            )
        await asyncio.sleep(LOOK_S)
    print("moved")
    return exit_status.OK


def lines_of(view: BalanceView) -> list[str]:
    """The plan: what, why, and what is expected of it."""
    lines = []
    if view.steps:
        lines.append(f"{counted(len(view.steps), 'partition')} to move:")
        rows = [
            [
                f"{one.topic}/{one.partition}",
                f"node {one.source} -> node {one.target}",
                f"node {one.source} is {one.above:.0%} above the mean in {one.goal}",
            ]
            for one in view.steps
        ]
        lines += [f"  {line}" for line in columns(("partition", "move", "why"), rows)]
    else:
        lines.append("nothing to move")
    for stuck in view.stuck:
        lines.append(
            f"node {stuck.node_id} is {stuck.above:.0%} above the mean in {stuck.goal}, and no "
            "single move would make it better" + _hottest(stuck.partition, stuck.share)
        )
    if view.nodes:
        lines += ["", *_nodes(view)]
        lines.append(
            f"imbalance {view.imbalance_before:.2f} -> {view.imbalance_after:.2f} (0 is even; more "
            f"than {view.above:.0%} above the mean is too much)"
        )
    return lines


def _hottest(partition: str | None, share: float) -> str:
    if partition is None:
        return ""
    return f": {partition} makes {share:.0%} of its bytes"


def _nodes(view: BalanceView) -> list[str]:
    rows = []
    for one in sorted(view.nodes, key=lambda one: one.node_id):
        row = [str(one.node_id)]
        for goal, before, after in zip(view.goals, one.before, one.after, strict=True):
            was, is_to_be = _amount(goal, before), _amount(goal, after)
            row.append(was if was == is_to_be else f"{was} -> {is_to_be}")
        rows.append(row)
    return columns(["node", *view.goals], rows)


def _amount(goal: str, amount: float) -> str:
    match goal:
        case "bytes in" | "bytes out":
            return f"{size(amount)}/s"
        case "requests":
            return f"{amount:.0f}/s"
        case "processor":
            return f"{amount / 10:.0f} %"
        case _:
            return f"{amount:.0f}"
