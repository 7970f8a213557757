"""`headwater cluster`: brokers, their load, and what is under way."""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from broker.cluster import messages as m
from broker.cluster.picture import View, view_of

from . import exit_status
from .cluster_view import Progress, lines_of
from .door import Door, NoController, through_door

EACH_S = 1.0
# A watcher asks again anyway.
WATCHED_PATIENCE_S = 1.5
_CLEAR = "\x1b[H\x1b[2J"


def run(parsed: argparse.Namespace) -> int:
    """FAILED where no controller answers: what is shown then is what the bucket says."""
    return through_door("cluster", parsed, lambda door: _show(door, parsed))


async def _show(door: Door, parsed: argparse.Namespace) -> int:
    await door.read()
    if not parsed.watch:
        view = await look(door)
        _print(view, parsed, None)
        return exit_status.OK if view.is_live else exit_status.FAILED
    progress = Progress()
    while True:
        view = await look(door, WATCHED_PATIENCE_S)
        if not view.is_live:
            view = view_of(await door.read(), None)
        _print(view, parsed, progress)
        await asyncio.sleep(EACH_S)


async def look(door: Door, patience_s: float = 4.0) -> View:
    """As the controller tells it, or else the bucket."""
    try:
        return (await door.ask(m.ShowCluster(), m.ClusterShown, patience_s=patience_s)).view
    except NoController:
        return view_of(door.image, None)


def _print(view: View, parsed: argparse.Namespace, progress: Progress | None) -> None:
    if parsed.json:
        print(msgspec.json.encode(view).decode(), flush=True)
        return
    text = "\n".join(lines_of(view, progress))
    if progress is None:
        print(text)
    elif sys.stdout.isatty():
        print(f"{_CLEAR}{text}\n\nctrl-c ends", flush=True)
    else:
        print(f"{text}\n", flush=True)
