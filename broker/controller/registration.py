"""A process joins the cluster: the controller gives it a node id and an incarnation.

Beside those two it asks one thing, and before it decides: whether the broker that has the wanted
node id is still there. A process that was killed and is started again comes long before it is
missed, so its address is asked, not the heartbeats.
"""

from __future__ import annotations

import logging
from random import Random

from s3stream.metadata.image import BrokerRegistration, MetadataImage
from s3stream.metadata.records import BrokerRegistered

from .controller import Controller
from .election import Answers
from .membership import Identity, StartRefused, is_running, lowest_free, process_name

log = logging.getLogger(__name__)

TOKEN_BYTES = 16


async def register(
    controller: Controller, identity: Identity, token: bytes, answers: Answers
) -> BrokerRegistration:
    """What the process is registered as, durable. token: see `messages.Register`.

    identity.store: not looked at. Raises StartRefused, KafkaError NOT_CONTROLLER.
    """
    found = _by_token(controller.planned(), token)
    if found is None:
        await _refuse_running(controller, identity, answers)
        # From here on nothing awaits before the record is in the log's hands.
        planned = controller.planned()
        node_id = identity.node_id
        if node_id is None:
            node_id = lowest_free([broker.node_id for broker in planned.live_brokers()])
        record = BrokerRegistered(
            node_id=node_id,
            incarnation=planned.next_incarnation,
            process=process_name(node_id, identity.listeners, token),
            window=identity.wal_window,
            listeners=identity.listeners,
            rack=identity.rack,
            address_http=identity.address_http,
            level=identity.level,
        )
        await controller.decide((record,))
        log.info("node %d joined the cluster as incarnation %d", node_id, record.incarnation)
    else:
        await controller.decide(())
    registered = _by_token(controller.image, token)
    if registered is None:
        raise StartRefused("another process of the same node id registered right afterwards")
    return registered


async def _refuse_running(controller: Controller, identity: Identity, answers: Answers) -> None:
    if identity.node_id is None or identity.take_over:
        return
    image = controller.image
    broker = image.brokers.get(identity.node_id)
    if broker is None or broker.fenced:
        return
    if broker.incarnation == controller.incarnation or await answers(broker, image.cluster_id):
        raise StartRefused(is_running(broker))


def _by_token(image: MetadataImage, token: bytes) -> BrokerRegistration | None:
    mark = process_name(0, (), token).rpartition(b"(")[2]
    for broker in image.brokers.values():
        if broker.process.endswith(mark):
            return broker
    return None


def new_token(rng: Random) -> bytes:
    return rng.randbytes(TOKEN_BYTES)
