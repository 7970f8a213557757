"""What `headwater doctor` says of the brokers that live in a store."""

from __future__ import annotations

from broker.controller.membership import host_port
from objectstore.doctor import Finding, Severity
from s3stream.metadata.image import BrokerRegistration

from .cluster import look
from .door import Door, NoCluster


async def cluster_findings(door: Door) -> list[Finding]:
    """None where no cluster lives there. Raises StoreError, LogError, KafkaError."""
    try:
        image = await door.read()
    except NoCluster:
        return []
    live = image.live_brokers()
    if not live:
        return [Finding(Severity.OK, f"cluster {image.cluster_id}: no broker runs")]
    found = [await _asked(door, one) for one in live]
    view = await look(door)
    if not view.is_live:
        found.append(
            Finding(
                Severity.WARNING,
                f"no controller answers here (node {view.controller} decided last)",
                "where brokers run, wait a few seconds and ask again; where none runs, start one",
            )
        )
    addresses = {one.node_id: one.address for one in view.brokers}
    found += [
        Finding(
            Severity.WARNING,
            f"node {one.asking} does not reach node {one.asked} at {addresses.get(one.asked)}",
            "brokers reach each other at the listener named by inter.broker.listener.name, "
            "or at the first one: is its advertised address right, and the network between them?",
        )
        for one in view.unreached
    ]
    return found


async def _asked(door: Door, broker: BrokerRegistration) -> Finding:
    where = door.address(broker)
    named = f"node {broker.node_id} at {'no address' if where is None else host_port(where)}"
    if await door.reaches(broker):
        return Finding(Severity.OK, f"{named} answers, and proves that it reads this bucket")
    return Finding(
        Severity.WARNING,
        f"{named} does not answer here",
        "if it is not to run any more, the others fence it by themselves; if it runs, its "
        "advertised address or the network to it is wrong",
    )
