"""A view of the cluster as lines of text. Pure."""

from __future__ import annotations

from broker.cluster.picture import BrokerPicture, View

from .columns import bar, columns, counted, size


class Progress:
    """How much of what is under way was done since it was first seen; one for a `--watch`."""

    def __init__(self) -> None:
        self._most: dict[tuple[str, int, int], int] = {}

    def of(self, kind: str, one: int, other: int, left: int) -> tuple[int, int]:
        """(done, total)."""
        key = kind, one, other
        total = self._most[key] = max(self._most.get(key, 0), left)
        return total - left, total

    def keep(self, seen: set[tuple[str, int, int]]) -> None:
        """What is over begins anew the next time."""
        self._most = {key: most for key, most in self._most.items() if key in seen}


def lines_of(view: View, progress: Progress | None = None) -> list[str]:
    """progress: None shows no bars."""
    lines = [
        (
            f"cluster {view.cluster_id}   {_controller(view)}   "
            f"{counted(view.topics, 'topic')}, {counted(view.partitions, 'partition')}"
        )
    ]
    if not view.is_live:
        lines.append("no controller answers: this is what the bucket says, without loads")
    if view.without_leader:
        lines.append(
            f"{counted(view.without_leader, 'partition has', 'partitions have')} no live leader"
        )
    lines += ["", *_brokers(view)]
    sick = [one for one in view.brokers if one.why]
    if sick:
        lines += ["", *(f"node {one.node_id} is sick: {one.why}" for one in sick)]
    lines += _under_way(view, progress)
    if view.hottest:
        lines += ["", "hottest partitions (records)"]
        rows = [
            [
                f"{one.topic}/{one.partition}",
                f"node {one.node_id}",
                f"{size(one.bytes_in)}/s",
                f"{size(one.bytes_out)}/s",
                f"{one.share:.0%}",
            ]
            for one in view.hottest
        ]
        header = ["partition", "led by", "in", "out", "of its broker"]
        lines += [f"  {line}" for line in columns(header, rows)]
    if view.unreached:
        lines.append("")
        addresses = {one.node_id: one.address for one in view.brokers}
        lines += [
            f"node {one.asking} does not reach node {one.asked} at "
            f"{addresses.get(one.asked, 'its address')}"
            for one in view.unreached
        ]
    return lines


def _controller(view: View) -> str:
    if view.controller is None:
        return f"no controller, term {view.term}"
    if not view.is_live:
        return f"node {view.controller} decided last, in term {view.term}"
    return f"controller node {view.controller}, term {view.term}"


def _brokers(view: View) -> list[str]:
    header = ["node", "state", "address", "rack", "incarnation", "heard", "leads"]
    if view.is_live:
        header += ["in", "out", "requests", "processor", "memory"]
    rows = []
    for one in view.brokers:
        row = [
            f"{one.node_id}{' *' if one.is_controller else ''}",
            one.state,
            one.address or "-",
            one.rack or "-",
            str(one.incarnation),
            _heard(one),
            str(one.leads),
        ]
        rows.append(row + _load(one) if view.is_live else row)
    return columns(header, rows)


def _heard(one: BrokerPicture) -> str:
    if one.silent_ms is None:
        return "-"
    return f"{one.silent_ms / 1000:.1f} s ago"


def _load(one: BrokerPicture) -> list[str]:
    load = one.load
    if load is None:
        return ["-"] * 5
    return [
        f"{size(load.bytes_in)}/s",
        f"{size(load.bytes_out)}/s",
        f"{load.requests}/s",
        f"{load.processor / 10:.0f} %",
        size(load.resident_bytes) if load.resident_bytes else "-",
    ]


def _under_way(view: View, progress: Progress | None) -> list[str]:
    lines = []
    seen: set[tuple[str, int, int]] = set()
    for move in view.moves:
        left = move.closing + move.opening
        seen.add(("move", move.source, move.target))
        lines.append(
            f"moving from node {move.source} to node {move.target}: "
            f"{counted(left, 'partition')} left ({move.closing} to close, "
            f"{move.opening} to open){_bar(progress, 'move', move.source, move.target, left)}"
        )
    for one in view.failovers:
        left = one.ending + one.opening
        seen.add(("failover", one.node_id, one.incarnation))
        lines.append(
            f"taking over from node {one.node_id} (incarnation {one.incarnation}): "
            f"{counted(left, 'partition')} left ({one.ending} wait for the end of its log, "
            f"{one.opening} to open)"
            f"{_bar(progress, 'failover', one.node_id, one.incarnation, left)}"
        )
    if progress is not None:
        progress.keep(seen)
    return ["", *lines] if lines else []


def _bar(progress: Progress | None, kind: str, one: int, other: int, left: int) -> str:
    if progress is None:
        return ""
    done, total = progress.of(kind, one, other, left)
    return f" {bar(done, total)} {done} of {total}"
