"""`headwater verify --cut`: says what a cut would lose, and makes it with --yes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from broker.cli.progress import Bar
from objectstore.store import ObjectStore

from .cutting import cut
from .planning import Plan, plan

SHOWN_AT_MOST = 200
Print = Callable[[str], None]


async def run_cut(
    store: ObjectStore,
    rng: Random,
    now_ms: Callable[[], int],
    *,
    yes: bool,
    bar: Bar,
    out: Print = print,
) -> Plan:
    """Raises Fault, StoreError."""
    try:
        found = await (cut(store, rng, now_ms, bar.show) if yes else plan(store, bar.show))
    finally:
        bar.end()
    tell(found, out)
    if yes:
        out("cut: every log has ended here. Start a broker on this store")
    else:
        out("nothing was written. To end every log at its first fault: --cut --yes")
    return found


def tell(found: Plan, out: Print) -> None:
    """What is kept and lost, a line each."""
    position = found.image.position
    out(
        f"cluster {found.image.cluster_id}: metadata up to term {position.term}, record "
        f"{position.seq}; {len(found.image.topics)} topics, {len(found.entries)} partitions with "
        "contents"
    )
    if found.metadata.fault is not None:
        out(f"LOST   metadata: {found.metadata.fault}")
        out(
            f"       {len(found.metadata.unread)} objects behind it do not count: topics, settings "
            "and producer ids made since are lost"
        )
    for line in found.log_faults:
        out(f"log    {line}")
    for one in found.losses[:SHOWN_AT_MOST]:
        out(f"LOST   {one}")
    if len(found.losses) > SHOWN_AT_MOST:
        out(f"LOST   in {len(found.losses) - SHOWN_AT_MOST} more partitions")
    if found.unknown_streams:
        out(f"LOST   {found.unknown_streams} partitions of topics that no metadata tells of")
    for behind in found.groups[:SHOWN_AT_MOST]:
        out(f"group  {behind}")
    if not found.is_lossy:
        out("nothing that was found is lost; what no object tells of cannot be seen")
