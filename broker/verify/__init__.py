"""`headwater verify`: proves from the bucket alone that every batch is there once, in order.

The way is the chain's: metadata log, incarnations, their logs, checkpoints, index pages, ranges,
and every block and batch of them. Only the decoders of formats are shared with the broker; the
walk of the keys, the folding of records and the sums are this command's own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.cli import exit_status
from broker.cli.progress import Bar
from objectstore.errors import Corrupt, NotFound, StoreError
from objectstore.store import ObjectStore
from s3stream.metadata.records import NO_LEADER
from wal.keys import wal_log

from .contents_walk import CheckContents, Contents, check_contents, check_presence, check_views
from .fault import Fault, IndexDamaged, IndexMissing
from .log_walk import Log, read_log
from .metadata_walk import Metadata, PartitionPlace, read_metadata
from .stream_walk import StreamView, fold_log, read_recovery

__all__ = ["Chain", "Fault", "Verified", "main", "verify"]

# Brokers at work replace objects, and move partitions, while this reads: it looks again.
ATTEMPTS = 8

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """unsealed: logs that may go on, where a missing last object would not show."""

    cluster_id: str
    partitions: int
    contents: Contents
    unsealed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One line of `--against`: a record at this offset was acknowledged."""

    topic: str
    partition: int
    offset: int


async def verify(
    store: ObjectStore,
    *,
    against: Iterable[Acknowledged] = (),
    contents: bool = True,
    on_progress: OnProgress = lambda done, of: None,
) -> Verified:
    """contents: read every batch; False: only see that the objects are there.

    Raises Fault or Corrupt for the first thing wrong, and the store's trouble.
    """
    check = check_contents if contents else check_presence
    metadata = await read_metadata(store)
    for left in reversed(range(ATTEMPTS)):
        try:
            return await _verify_once(store, metadata, list(against), check, on_progress)
        except NotFound as error:
            if not left:
                raise Fault(
                    f"{error}, though the chain names it",
                    is_bookkeeping=isinstance(error, IndexMissing),
                ) from error
            metadata = await read_metadata(store)
        except Fault:
            # Leadership may have gone from one log to another while this read them.
            before, metadata = metadata, await read_metadata(store)
            if not left or metadata.position == before.position:
                raise
    raise AssertionError("unreachable")


async def _verify_once(
    store: ObjectStore,
    metadata: Metadata,
    against: list[Acknowledged],
    check: CheckContents,
    on_progress: OnProgress,
) -> Verified:
    walk = Chain(store, metadata)
    views: list[tuple[str, StreamView]] = []
    places = sorted(metadata.partitions.values(), key=lambda one: (one.topic, one.index))
    for place in places:
        view = await walk.view(place)
        if view is not None:
            views.append((str(place), view))
    wanted = check_views(views)
    _check_acknowledged(against, dict(views))
    whole = sum(ref.size_bytes for ref in wanted)
    done = 0

    def progress(size_bytes: int) -> None:
        nonlocal done
        done += size_bytes
        on_progress(done, whole)

    contents = await check(store, wanted, progress)
    return Verified(metadata.cluster_id, len(places), contents, tuple(sorted(walk.unsealed)))


class Chain:
    """From a partition to its stream; each log and recovery object is read once."""

    def __init__(self, store: ObjectStore, metadata: Metadata) -> None:
        self._store = store
        self._metadata = metadata
        self._logs: dict[int, dict[int, StreamView]] = {}
        self._recoveries: dict[int, dict[int, StreamView]] = {}
        self.unsealed: set[int] = set()

    async def view(self, place: PartitionPlace) -> StreamView | None:
        """With all of its ranges. None: the partition was never opened."""
        found = await self._view(place)
        if found is not None:
            await found.expand(self._store)
        return found

    async def _view(self, place: PartitionPlace) -> StreamView | None:
        if place.leader != NO_LEADER and not self._has_recovery(place.leader):
            held = (await self._log(place.leader)).get(place.stream_id)
            # An opening that answers this very appointment; an older one is another's business.
            if held is not None and tuple(held.appointment) == tuple(place.appointment):
                return held
        if place.source is not None:
            held = (await self._source(place.source)).get(place.stream_id)
        elif place.is_new:
            return None
        else:
            held = (await self._source(place.leader)).get(place.stream_id)
        if held is None:
            where = place.leader if place.source is None else place.source
            raise Fault(f"{place}: its contents should be in the log of incarnation {where}")
        return held

    def _has_recovery(self, incarnation: int) -> bool:
        return self._metadata.incarnations[incarnation].ended

    async def _source(self, incarnation: int) -> dict[int, StreamView]:
        state = self._metadata.incarnations[incarnation]
        if not state.ended:
            return await self._log(incarnation)
        if state.recovery is None:
            return {}
        if incarnation not in self._recoveries:
            self._recoveries[incarnation] = await read_recovery(self._store, state.recovery)
        return self._recoveries[incarnation]

    async def _log(self, incarnation: int) -> dict[int, StreamView]:
        if incarnation not in self._logs:
            log: Log = await read_log(self._store, wal_log(incarnation))
            if not log.ended:
                self.unsealed.add(incarnation)
            self._logs[incarnation] = await fold_log(self._store, log)
        return self._logs[incarnation]


def _check_acknowledged(against: list[Acknowledged], views: dict[str, StreamView]) -> None:
    for one in against:
        view = views.get(f"{one.topic}-{one.partition}")
        end = view.next_offset if view is not None else 0
        if one.offset >= end:
            raise Fault(
                f"{one.topic}-{one.partition}: offset {one.offset} was acknowledged, but the log "
                f"ends at {end}"
            )


def read_acknowledged(path: Path) -> list[Acknowledged]:
    """Lines of `topic partition offset`; empty ones and those that begin with # are passed by.

    Raises ValueError naming the line.
    """
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            topic, partition, offset = words
            found.append(Acknowledged(topic, int(partition), int(offset)))
        except ValueError:
            raise ValueError(
                f"{path}, line {number}: expected `topic partition offset`, not {line!r}"
            ) from None
    return found


# The command


def main(argv: Sequence[str]) -> int:
    from broker.cli.store_option import add_store_options, store_of

    parser = argparse.ArgumentParser(
        prog="headwater verify",
        description="Prove from the bucket alone that every batch is there once, in order and "
        "unchanged.",
        allow_abbrev=False,
    )
    add_store_options(parser)
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="acknowledged offsets that must be there: lines of `topic partition offset`",
    )
    parser.add_argument(
        "--cut",
        action="store_true",
        help="of a bucket that lacks objects: say what would be lost by ending each log at its "
        "first fault; with --yes, end them, so that a broker can start",
    )
    parser.add_argument("--yes", action="store_true", help="really make the cut")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")
    parsed = parser.parse_args(argv)
    try:
        against = read_acknowledged(parsed.against) if parsed.against else []
    except (OSError, ValueError) as error:
        print(f"headwater verify: {error}", file=sys.stderr)
        return exit_status.USAGE

    if parsed.yes and not parsed.cut:
        parser.error("--yes goes with --cut")

    async def run() -> Verified | int:
        rng = random.SystemRandom()
        store = await store_of(parsed, rng)
        try:
            bar = Bar(quiet=parsed.quiet)
            if parsed.cut:
                from broker.cut.command import run_cut

                kept = await run_cut(store, rng, _now_ms, yes=parsed.yes, bar=bar)
                return exit_status.FAILED if kept.is_lossy and not parsed.yes else exit_status.OK
            try:
                return await verify(store, against=against, on_progress=bar.show)
            finally:
                bar.end()
        finally:
            await store.close()

    try:
        found = asyncio.run(run())
    except (Fault, Corrupt) as error:
        print(f"FAULT  {error}")
        print(f"       -> {what_to_do(error)}")
        return exit_status.FAILED
    except (StoreError, ValueError) as error:
        print(f"headwater verify: {error}", file=sys.stderr)
        return exit_status.FAILED
    if isinstance(found, int):
        return found
    _print_result(found, checked=len(against))
    return exit_status.OK


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def what_to_do(error: Fault | Corrupt) -> str:
    """After a fault, for who operates the cluster."""
    if isinstance(error, IndexDamaged) or (isinstance(error, Fault) and error.is_bookkeeping):
        return (
            "put the object back, from a version or a replica of the bucket. Until then its "
            "leader's reports fail, so nothing is deleted anywhere in the cluster; records that "
            "are not in it are served"
        )
    return (
        "put back what is missing, from a version or a replica of the bucket; or stop all brokers "
        "and see what `headwater verify --cut` would leave out"
    )


def _print_result(found: Verified, *, checked: int) -> None:
    amount = found.contents.amount
    print(
        f"cluster {found.cluster_id}: {found.partitions} partitions, {amount.batches} batches, "
        f"{amount.records} records, {amount.size_bytes} bytes in {found.contents.objects} objects: "
        "every batch is there once, in order and unchanged"
    )
    if checked:
        print(f"all {checked} acknowledged offsets of the file are there")
    elif found.unsealed:
        logs = ", ".join(str(one) for one in found.unsealed)
        print(
            f"not seen: whether objects are missing behind the last one of the logs that have no "
            f"end yet (incarnations {logs}); --against a file of acknowledged offsets tells"
        )
