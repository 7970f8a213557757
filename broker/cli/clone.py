"""`headwater clone`: another bucket with the same contents, on which a cluster can start."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from broker.config import load
from broker.verify.fault import Fault
from objectstore.errors import NotFound, StoreError
from objectstore.open import display_uri, open_store

from . import exit_status
from .progress import Bar
from .settings import store_settings

if TYPE_CHECKING:
    from broker.clone import Cloned
    from objectstore.store import ObjectStore

PARTITIONS_SHOWN = 100


def main(argv: Sequence[str]) -> int:
    """Prints how far the copy goes; FAILED where there is none that a broker could start on."""
    parser = argparse.ArgumentParser(
        prog="headwater clone",
        description="Copy a cluster, at work or dead, into an empty bucket, prefix or directory. "
        "Run it again where it was interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--from", dest="source", metavar="URI", required=True)
    parser.add_argument("--to", dest="target", metavar="URI", required=True)
    parser.add_argument("--config", metavar="FILE.toml", help="settings")
    for flag, what in (
        ("--set", "both stores"),
        ("--from-set", "the source"),
        ("--to-set", "the target"),
    ):
        parser.add_argument(
            flag, action="append", default=[], metavar="KEY=VALUE", help=f"any setting of {what}"
        )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parsed = parser.parse_args(argv)
    try:
        if display_uri(parsed.source) == display_uri(parsed.target):
            parser.error("source and target are the same")
        cloned = asyncio.run(_run(parsed))
    except (Fault, StoreError) as error:
        print(f"headwater clone: {error}", file=sys.stderr)
        return exit_status.FAILED
    except ValueError as error:  # ConfigError too
        print(f"headwater clone: {error}", file=sys.stderr)
        return exit_status.USAGE
    _tell(cloned, parsed.target)
    return exit_status.OK


async def _run(parsed: argparse.Namespace) -> Cloned:
    from broker.clone import clone

    rng = random.SystemRandom()
    bar = Bar(quiet=parsed.quiet)
    source = await _open(parsed, parsed.source, parsed.from_set, rng, make_directory=False)
    try:
        target = await _open(parsed, parsed.target, parsed.to_set, rng, make_directory=True)
        try:
            return await clone(source, target, rng, _now_ms, on_progress=bar.show)
        finally:
            bar.end()
            await target.close()
    finally:
        await source.close()


async def _open(
    parsed: argparse.Namespace,
    uri: str,
    sets: list[str],
    rng: random.Random,
    *,
    make_directory: bool,
) -> ObjectStore:
    file = Path(parsed.config) if parsed.config else None
    config = load(
        flags={"store": uri}, sets=[*parsed.set, *sets], environ=os.environ, file=file
    ).config
    try:
        return await open_store(
            uri,
            settings=store_settings(config),
            rng=rng,
            now_ms=_now_ms,
            make_directory=make_directory,
        )
    except FileNotFoundError as error:
        raise NotFound(f"{uri}: there is no such directory") from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _tell(cloned: Cloned, target: str) -> None:
    kept = cloned.kept
    when = datetime.fromtimestamp(cloned.as_of_ms / 1000, UTC).isoformat(timespec="milliseconds")
    print(
        f"copied {cloned.objects} objects, {cloned.size_bytes} bytes"
        + (f"; {cloned.skipped} were there already" if cloned.skipped else "")
    )
    if kept.metadata.fault is None and not kept.losses:
        print(f"all that was acknowledged before {when} is in the copy, by the source's clock")
    else:
        print(f"the copy is of {when}, by the source's clock")
    shown = 0
    for topic, partition in kept.image.partitions():
        entry = kept.entries.get(partition.stream_id)
        if topic.internal or entry is None:
            continue
        if shown < PARTITIONS_SHOWN:
            name = f"{topic.name}-{partition.index}"
            print(f"  {name}: offsets {entry.start_offset} to {entry.next_offset}")
        shown += 1
    if shown > PARTITIONS_SHOWN:
        print(f"  and {shown - PARTITIONS_SHOWN} more partitions")
    if kept.metadata.fault is not None or kept.losses:
        print(
            "not in it, since it came while this copied or is missing in the source too "
            "(`headwater verify` of the source tells):"
        )
        if kept.metadata.fault is not None:
            print(f"  metadata behind {kept.metadata.fault}")
        for one in kept.losses[:PARTITIONS_SHOWN]:
            print(f"  {one}")
    for behind in kept.groups[:PARTITIONS_SHOWN]:
        print(f"  group {behind}")
    print("every object that the copy refers to was read and is whole; to see it again:")
    print(f"  headwater verify --store {target}")
